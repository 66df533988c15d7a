"""The control plane's background work: a few loops, each a list of ticks.

A tick is idempotent and level-triggered: it looks at what is, so one that fails, or dies half-way, is made good by
the next. What must have one master runs on the leader only; what belongs to this machine runs here anyway.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.exc import InterfaceError, OperationalError

from lockgate.errors import Conflict, Killed, Unavailable
from lockgate.fleet.model import Severity
from lockgate.following import Following, retirements
from lockgate.limits.alerts import reconcile_message
from lockgate.limits.model import Balance
from lockgate.limits.reconcile import Line
from lockgate.rollouts.leader import Leadership

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.fleet.fallbacks import Fallbacks
    from lockgate.fleet.upgrades import Upgrades
    from lockgate.gateway.batches.watching import Watching
    from lockgate.telemetry.metrics import GenAI

_log = logging.getLogger(__name__)

SLOWEST_RETRY = 30.0
"""A tick that keeps failing is tried at least this often, in seconds."""
AWAY_RETRY = 2.0
"""And at least this often while something that it needs is away, in seconds."""
_ALERT_AGAIN = 60.0  # seconds after which a budget alert that still stands is refreshed


class Tick(NamedTuple):
    """One thing to do every so many seconds."""

    name: str
    every: float
    run: Callable[[], object]
    leader_only: bool = True


class Loop:
    """Runs ticks one after another in a thread of its own."""

    def __init__(self, name: str, ticks: Sequence[Tick], leads: Callable[[], bool]) -> None:
        self._ticks = ticks
        self._leads = leads
        self._due = dict.fromkeys((tick.name for tick in ticks), 0.0)
        self._failures = dict.fromkeys((tick.name for tick in ticks), 0)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"lockgate-{name}", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 10.0) -> None:
        """End after the tick that is running."""
        self._stop.set()
        self._thread.join(timeout)

    def once(self, now: float) -> None:
        """Run what is due. One tick that fails is logged and backs off; the others go on."""
        for tick in self._ticks:
            if self._due[tick.name] > now or (tick.leader_only and not self._leads()):
                continue
            try:
                tick.run()
            except (OperationalError, InterfaceError, Unavailable) as away:
                if not self._failures[tick.name]:
                    _log.warning("%s waits: %s", tick.name, str(away).partition("\n")[0])
                self._failures[tick.name] += 1
                self._due[tick.name] = now + max(tick.every, AWAY_RETRY)
            except Exception:  # the boundary of background work
                self._failures[tick.name] += 1
                wait = min(SLOWEST_RETRY, tick.every * 2 ** self._failures[tick.name])
                _log.exception("%s failed %d times; again in %.0f s", tick.name, self._failures[tick.name], wait)
                self._due[tick.name] = now + wait
            else:
                self._failures[tick.name] = 0
                self._due[tick.name] = now + tick.every

    def _run(self) -> None:
        pace = min(tick.every for tick in self._ticks)
        while not self._stop.is_set():
            self.once(time.monotonic())
            self._stop.wait(pace)


def loops(app: App, lead: Leadership, metrics: GenAI) -> list[Loop]:
    """All background work of one control plane; what it costs is added to ``metrics``."""
    from lockgate.rollouts.controller import Controller
    from lockgate.rollouts.scoring import LiveScoring
    from lockgate.runtime import service as runs

    controller = Controller(app.control, app.clock, alert=app.alerts.raise_alert, lead=lead)
    scoring = LiveScoring(app.control, app.clock, app.project.root)
    budgets = BudgetAlerts(app)
    upgrades = implicit_upgrades(app)
    following = Following(app)
    leaving = retirements(app)
    backups = fallbacks(app)
    leads = lead.leads

    def resume() -> None:
        app.approvals.expire()
        resume_approved(app)

    def follow() -> None:
        def tell(key: str, subject: str, message: str) -> None:
            if message:
                app.alerts.raise_alert(key, "gitops", "warning", subject, message)
            else:
                app.alerts.resolve(key)

        if app.project.config.gitops is not None:
            app.gitops.tick(tell)

    return [
        Loop("settings", [Tick("settings", 0.5, following.tick, leader_only=False)], leads),
        Loop("gitops", [Tick("gitops", 0.5, follow)], leads),
        Loop("fallbacks", [Tick("fallback slices", 5.0, backups.tick)], leads),
        Loop("batches", [Tick("batches", 1.0, batches(app, metrics).tick, leader_only=False)], leads),
        Loop(
            "rollouts",
            [
                Tick("leadership", 1.0, lead.acquire, leader_only=False),
                Tick("rollouts", 0.5, controller.tick),
                Tick("direct rollouts", 0.1, controller.tick_direct),
            ],
            leads,
        ),
        Loop(
            "housekeeping",
            [
                Tick("live scoring", 0.5, scoring.tick),
                Tick("resume", 0.5, resume),
                Tick("runs of dead hosts", 2.0, lambda: runs.reap(app.control, app.clock)),
                Tick("holds of dead processes", 1.0, app.charges.reap, leader_only=False),
                Tick("reconciliation", 60.0, Reconciliation(app).tick, leader_only=False),
                *([] if app.leases is None else [Tick("leases", 1.0, app.leases.tick, leader_only=False)]),
                Tick("ledger", 1.0, lambda: app.ledger.persist(app.holds), leader_only=False),
                Tick("budget alerts", 1.0, budgets.tick),
                Tick("implicit upgrades", 5.0, upgrades.tick),
                Tick("fleet", 3.0, app.fleet.watch),
                Tick("retiring models", 30.0, leaving.tick),
                Tick("triage", 2.0, app.triage.capture),
            ],
            leads,
        ),
    ]


class Reconciliation:
    """Once a day, when yesterday is over everywhere: the ledger held against the spans; what differs is an alert."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._done = ""

    def tick(self) -> None:
        from lockgate.limits.windows import day_of

        day = day_of(self._app.clock() - 15 * 3600.0)  # the last zone's midnight is twelve hours after Greenwich's
        if day != self._done:
            self._app.spans.flush()
            self.tell()
            self._done = day

    def tell(self, days: int = 2) -> list[Line]:
        """Reconcile now; gives every line, and keeps one alert open for each that does not agree."""
        from lockgate.gateway.figures import Figures

        app = self._app
        app.accounting.note(days)
        app.charges.correct_all(Figures(app.project, app.accounting, app.prices))
        lines = app.accounting.reconcile(days)
        where = (
            f"ledger/{app.ledger.machine}:" if app.accounting.keeps_traces else "ledger:"
        )  # whose calls were compared
        wrong = {f"{where}{line.account}:{line.window}": line for line in lines if not line.agrees}
        for key, line in wrong.items():
            self._app.alerts.raise_alert(key, "ledger", "critical", line.account, reconcile_message(line))
        for alert in self._app.alerts.list(limit=10_000):
            if alert.kind == "ledger" and alert.key.startswith(where) and alert.key not in wrong:
                self._app.alerts.resolve(alert.key)
        return lines


class BudgetAlerts:
    """Keeps one alert open for each budget that is past 70 % (warning) or used up (critical)."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._told: dict[str, tuple[float, float]] = {}
        self._looked_at = 0.0

    def tick(self) -> None:
        from lockgate.limits.alerts import alert_message, crossing

        now = self._app.clock()
        crossed = {
            _alert_key(balance): (balance, level)
            for balance in self._app.ledger.balances(self._app.holds, capped=self._app.capped(), day=self._app.day)
            if balance.unit != "concurrent"
            and not balance.account.startswith(("run:", "session:"))  # one caller's: its calls are told
            and (level := crossing(balance, self._warn_at(balance))) is not None
        }
        for key, (balance, level) in crossed.items():
            told = self._told.get(key)
            if told is None or told[0] != level or now - told[1] > _ALERT_AGAIN:
                severity: Severity = "critical" if level >= 100 else "warning"
                self._app.alerts.raise_alert(key, "budget", severity, balance.account, alert_message(balance))
                self._told[key] = (level, now)
        for key in self._open(now) - set(crossed):
            self._app.alerts.resolve(key)
            self._told.pop(key, None)

    def _warn_at(self, balance: Balance) -> float:
        from lockgate.limits.alerts import WARN_PERCENT

        kind, _, rest = balance.account.partition(":")
        environment, _, name = rest.partition(":")
        place = {kind: name} if kind in ("agent", "tenant") else {}
        known = self._app.following.current
        return float(known.value("alert.budget_percent", WARN_PERCENT, environment=environment, **place))

    def _open(self, now: float) -> set[str]:
        if now - self._looked_at > _ALERT_AGAIN:  # also what an earlier process raised, or another machine that led
            self._looked_at = now
            return {alert.key for alert in self._app.alerts.list(limit=10_000) if alert.kind == "budget"}
        return set(self._told)


def fallbacks(app: App) -> Fallbacks:
    """The fallback slices of what serves; see :mod:`lockgate.fleet.fallbacks`."""
    from lockgate.fleet.fallbacks import Fallbacks

    return Fallbacks(app.control, app.clock, app.alerts, app.project.root)


def batches(app: App, metrics: GenAI | None = None) -> Watching:
    """The watch over batches at providers; see :mod:`lockgate.gateway.batches.watching`."""
    from lockgate.gateway.batches.watching import Watching
    from lockgate.gateway.providers import Providers

    return Watching(
        control=app.control,
        clock=app.clock,
        machine=app.ledger.machine,
        providers=lambda: Providers(app.project, app.clock, deployed=app.versions.providers_as_deployed),
        settling=lambda asking: app.settling(asking, metrics),
    )


def implicit_upgrades(app: App) -> Upgrades:
    """The watch over what providers serve under an unchanged digest, with this project's providers."""
    from lockgate.fleet.upgrades import Upgrades
    from lockgate.project.service import resolve_provider
    from lockgate.versions.deprecations import models_of
    from lockgate.versions.resolve import digest_for, ollama_digests

    def locked(behaviour_digest: str, model: str) -> str | None:
        models = models_of(app.versions.load(behaviour_digest))
        return next((one.revision for one in models if f"{one.provider}/{one.name}" == model), None)

    def digest(environment: str, effective: str, model: str) -> str | None:
        provider, _, name = model.partition("/")
        deployed = app.versions.providers_as_deployed(effective).get(provider)
        found = ollama_digests((deployed or resolve_provider(app.project, provider, environment)).base_url)
        return None if found is None else digest_for(name, found)

    return Upgrades(app.control, app.clock, app.alerts, locked=locked, digest=digest)


def resume_approved(app: App) -> int:
    """Hand each run whose approval was decided to a host of its version, with a new token; returns how many went."""
    from lockgate.gateway.agents import claims_for
    from lockgate.gateway.tokens import sign
    from lockgate.runtime.service import resumable, resume_on_host
    from lockgate.settings import switches

    waiting = resumable(app.control)
    resumed = 0
    for run in waiting:
        try:
            switches.check(app.following.current, environment=run.environment, tenant=run.tenant, agents=[run.agent])
        except Killed as off:  # it goes on when the switch is lifted
            _log.debug("run %s waits: %s", run.run_id, off.message)
            continue
        limits = app.versions.load(run.behaviour_digest).limits
        claims = claims_for(run, limits, now=app.clock())
        app.ledger.reopen_run(app.holds, run.run_id)
        try:
            asyncio.run(resume_on_host(app.home, run, sign(claims, app.secret)))
        except Unavailable as away:
            _log.debug("run %s waits for a host of its version: %s", run.run_id, away.message)
        except Conflict as taken:
            _log.debug("run %s is resumed already: %s", run.run_id, taken.message)
        else:
            resumed += 1
    return resumed


def _alert_key(balance: Balance) -> str:
    return f"budget:{balance.account}:{balance.window}:{balance.unit}"
