"""What the control plane follows while it runs: settings, the files that people edit, and models that go."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockgate.errors import LockgateError
from lockgate.project.service import PROJECT_FILE

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.fleet.retirements import Retirements

_log = logging.getLogger(__name__)

KIND = "settings"
_LOOK = 2.0  # seconds between two looks whether what serves still has the file's providers


class Following:
    """Takes settings and files as they stand now, and keeps an alert open for a file that is not in force."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._config = app.project.config
        self._told: dict[str, str | None] | None = None
        self._older = ""
        self._looked = 0.0

    def tick(self) -> None:
        app = self._app
        for look in app.follow_files:
            look()
        with app.control.read() as connection:
            changed = app.following.refresh(connection)
        if changed:
            app.prices.use(app.following.current)
        if app.project.config is not self._config:
            self._follow_budgets()
            self._looked = 0.0
        if time.monotonic() - self._looked >= _LOOK:
            self._older = "; ".join(on_older_providers(app))
            self._looked = time.monotonic()
        self._tell()

    def _follow_budgets(self) -> None:
        from lockgate.rollouts.budgets import follow

        app, before = self._app, self._config
        changed = follow(app.control, app.versions, before, app.project.config, now=app.clock())
        self._config = app.project.config
        if changed:
            _log.info("%s: the budgets of %d deployed agents were changed", PROJECT_FILE, changed)

    def _tell(self) -> None:
        app = self._app
        wrong = {
            f"{KIND}:file:{PROJECT_FILE}": app.project_file.problem,
            f"{KIND}:file:prices": app.prices.problem,
            f"{KIND}:providers": self._older,
        }
        if self._told is None:  # after a start: what an earlier process raised
            open_keys = {alert.key for alert in app.alerts.list(limit=10_000) if alert.kind == KIND}
            self._told = {key: "" if key in open_keys else None for key in wrong}
        for key, message in wrong.items():
            if message and message != self._told[key]:
                text = message if key.endswith("providers") else f"{message}; the last good file stays in force"
                app.alerts.raise_alert(key, KIND, "warning", PROJECT_FILE, text)
            elif not message and self._told[key] is not None:
                app.alerts.resolve(key)
            self._told[key] = message or None


def on_older_providers(app: App) -> list[str]:
    """What serves by other providers than ``lockgate.yaml`` gives it now, and how it gets those: a line each.

    Environments that a git branch is followed for are left out: the branch says what their providers are.
    """
    from sqlalchemy import select

    from lockgate.rollouts.budgets import is_followed
    from lockgate.storage.schema import routes

    columns = (routes.c.environment, routes.c.agent, routes.c.stable_behaviour, routes.c.stable_effective)
    with app.control.read() as connection:
        rows = connection.execute(select(*columns).order_by(routes.c.environment, routes.c.agent)).all()
    found = []
    for environment, agent, behaviour, effective in rows:
        if environment in app.project.config.environments and not is_followed(app.project.config, environment):
            names = _older(app, environment, agent, effective)
            if names:
                version = f"{agent}@{behaviour.removeprefix('sha256:')[:12]}"
                found.append(
                    f"{agent} in {environment} is served by the provider {', '.join(names)} as it was deployed, and "
                    f"{PROJECT_FILE} has changed it since: lockgate deploy {version} --env {environment} brings it"
                )
    return found


def _older(app: App, environment: str, agent: str, effective: str) -> list[str]:
    from lockgate.project.service import resolve_provider

    names = []
    for name, deployed in app.versions.providers_as_deployed(effective).items():
        try:
            now = resolve_provider(app.project, name, environment, agent)
        except LockgateError:  # it is gone from the file
            names.append(name)
            continue
        if now.identity() != deployed.identity():
            names.append(name)
    return names


def retirements(app: App) -> Retirements:
    """The watch over served models that their publishers take away, with this project's table and settings."""
    from lockgate.fleet.retirements import DAYS, Ending, Retirements
    from lockgate.project.service import resolve_provider
    from lockgate.storage.schema import routes
    from lockgate.versions.deprecationfile import project_table
    from lockgate.versions.deprecations import day, deprecation_of, models_of

    def endings() -> Iterator[Ending]:
        from sqlalchemy import select

        columns = (routes.c.environment, routes.c.agent, routes.c.stable_behaviour, routes.c.candidate_behaviour)
        with app.control.read() as connection:
            rows = connection.execute(select(*columns)).all()
        table, today = project_table(app.project), day(app.clock())
        for environment, agent, *digests in rows:
            if environment not in app.project.config.environments:
                continue
            for digest in filter(None, digests):
                for model in models_of(app.versions.load(digest)):
                    kind = resolve_provider(app.project, model.provider, environment, agent).kind
                    end = deprecation_of(kind, model.name, today, table=table)
                    if end is not None:
                        yield Ending(environment, agent, f"{model.provider}/{model.name}", end)

    def days(environment: str, agent: str) -> int:
        known = app.following.current
        return int(known.value("alert.retirement_days", DAYS, environment=environment, agent=agent))

    return Retirements(app.alerts, endings=endings, today=lambda: day(app.clock()), days=days)
