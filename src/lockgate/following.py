"""What the control plane follows while it runs: settings, the files that people edit, and models that go."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockgate.project.service import PROJECT_FILE

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.fleet.retirements import Retirements

_log = logging.getLogger(__name__)

KIND = "settings"


class Following:
    """Takes settings and files as they stand now, and keeps an alert open for a file that is not in force."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._config = app.project.config
        self._told: dict[str, str | None] | None = None

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
        kept = ", ".join(app.project_file.kept)
        wrong = {
            f"{KIND}:file:{PROJECT_FILE}": app.project_file.problem,
            f"{KIND}:file:prices": app.prices.problem,
            f"{KIND}:kept": kept
            and f"{kept}: part of what versions answer by; in force from a restart and a deploy on",
        }
        if self._told is None:  # after a start: what an earlier process raised
            open_keys = {alert.key for alert in app.alerts.list(limit=10_000) if alert.kind == KIND}
            self._told = {key: "" if key in open_keys else None for key in wrong}
        for key, message in wrong.items():
            if message and message != self._told[key]:
                text = message if key.endswith("kept") else f"{message}; the last good file stays in force"
                app.alerts.raise_alert(key, KIND, "warning", PROJECT_FILE, text)
            elif not message and self._told[key] is not None:
                app.alerts.resolve(key)
            self._told[key] = message or None


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
