"""The only wiring: names the concrete engines and hands each room what it needs.

Everything is built on first use, so a command pays only for what it touches.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection
from contextlib import AbstractAsyncContextManager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from lockgate import clock as clocks
from lockgate.errors import InputError
from lockgate.project.model import Project, ProjectConfig
from lockgate.project.places import find_root, home_of
from lockgate.project.service import PROJECT_FILE, load_project

if TYPE_CHECKING:
    from lockgate.evals.annotation.service import Annotations
    from lockgate.evals.judges.service import Judges
    from lockgate.evals.model import JudgeSettings, Subject
    from lockgate.evals.running.meter import AskVectors
    from lockgate.evals.scorers.judge import Ask
    from lockgate.evals.service import Evals, Mutant
    from lockgate.fleet.heartbeats.service import Fleet
    from lockgate.fleet.service import Alerts
    from lockgate.gateway.batches.asking import Asking
    from lockgate.gateway.batches.settling import Settling
    from lockgate.gateway.keys import Keys
    from lockgate.gateway.shared_metrics import SharedMetrics
    from lockgate.improve.service import Triage
    from lockgate.limits.accounting import Accounting
    from lockgate.limits.books import Books
    from lockgate.limits.charges import Charges
    from lockgate.limits.holdtable import HoldTable
    from lockgate.limits.leases import Leases
    from lockgate.limits.model import Account
    from lockgate.limits.prices import Prices
    from lockgate.limits.service import Ledger
    from lockgate.project.reload import ProjectFile
    from lockgate.results import RunResult
    from lockgate.rollouts.converge import Environments
    from lockgate.rollouts.gitops import GitOps
    from lockgate.rollouts.service import Rollouts
    from lockgate.runtime.model import ModelClient
    from lockgate.settings.model import Snapshot
    from lockgate.settings.service import Follower, Settings
    from lockgate.storage.blobs import BlobStore
    from lockgate.storage.engine import Database
    from lockgate.telemetry.metrics import GenAI, Registry
    from lockgate.telemetry.writer import SpanWriter
    from lockgate.tools.service import Approvals
    from lockgate.versions.model import AgentSettings, AgentVersion, VersionRef, Yardstick
    from lockgate.versions.service import Versions


_log = logging.getLogger(__name__)


class App:
    """One project, opened. Each property is a service or a store, made when first asked for."""

    def __init__(self, project: Project, clock: clocks.Clock = clocks.system) -> None:
        self.project = project
        self.clock = clock
        self.has_scribe = False
        """Whether this process leaves it to another one to write its spans: to be set before the first of them."""

    @property
    def home(self) -> Path:
        """Where state lives: databases, blobs, sockets, the hold table."""
        return self.project.home

    # --- stores -----------------------------------------------------------------------------------------------

    @cached_property
    def control(self) -> Database:
        from lockgate.storage.engine import open_database

        return open_database(self._database("control"), "control")

    @cached_property
    def traces(self) -> Database:
        from lockgate.storage.engine import open_database

        return open_database(self._database("traces"), "traces")

    def _database(self, kind: str) -> str | Path:
        """Where a database is: ``LOCKGATE_CONTROL_URL`` and ``LOCKGATE_TRACES_URL`` name ones that machines share."""
        return os.environ.get(f"LOCKGATE_{kind.upper()}_URL") or self.home / f"{kind}.db"

    @cached_property
    def blobs(self) -> BlobStore:
        from lockgate.storage.blobs import BlobStore

        return BlobStore(self.home / "blobs")

    @cached_property
    def secret(self) -> bytes:
        """This machine's own, for signatures."""
        from lockgate.storage.secret import machine_secret

        return machine_secret(self.home)

    @property
    def holds_path(self) -> Path:
        return self.home / "holds.table"

    @cached_property
    def holds(self) -> HoldTable:
        from lockgate.limits.holdtable import HoldTable

        table = HoldTable(self.holds_path)
        if not table.restored:
            self.ledger.restore(table)
        return table

    @cached_property
    def ledger(self) -> Ledger:
        from lockgate.limits.service import Ledger

        machine = ""
        if self.control.dialect == "postgresql":
            from lockgate.storage.secret import machine_name

            machine = machine_name(self.home)
        return Ledger(self.control, self.clock, machine=machine, lock=self.home / "ledger.lock")

    @cached_property
    def leases(self) -> Leases | None:
        """What this machine has leased of shared caps; None where the database is its own."""
        if not self.ledger.machine:
            return None
        from lockgate.limits.leases import Leases

        return Leases(self.control, self.ledger, self.holds, self.clock)

    def capped(self) -> list[Account]:
        """The accounts that ``lockgate.yaml`` gives a cap by name, in the windows of now."""
        now = self.clock()
        return [account for book in self.books.all() for account in book.every_account(now)]

    def day(self, environment: str) -> str:
        """The environment's day as a window of budgets."""
        return self.books(environment).day(self.clock())

    @cached_property
    def charges(self) -> Charges:
        from lockgate.limits.charges import Charges

        return Charges(self.control, self.ledger, self.holds, self.clock)

    @cached_property
    def accounting(self) -> Accounting:
        from lockgate.limits.accounting import Accounting

        def counts(account: str, window: str) -> bool:
            return self.books(account.split(":")[1]).counts(account, window)

        return Accounting(self.control, self.traces, self.ledger, self.holds, self.charges, self.clock, counts=counts)

    @cached_property
    def books(self) -> Books:
        from lockgate.limits.books import Books

        leases = self.leases
        with self.control.read() as connection:
            self.following.refresh(connection)
        machines = None if leases is None else lambda: leases.machines
        return Books(self.project, machines, lambda: self.following.current)

    @cached_property
    def prices(self) -> Prices:
        from lockgate.limits.prices import Prices

        name = self.project.config.prices
        return Prices(self.project.root / name if name else None)

    @cached_property
    def project_file(self) -> ProjectFile:
        """``lockgate.yaml`` as it stands; see :mod:`lockgate.project.reload`."""
        from lockgate.project.reload import ProjectFile

        return ProjectFile(self.project)

    @property
    def follow_files(self) -> list[Callable[[], object]]:
        """What a process that stays calls a few times a second: files that people edit."""
        from lockgate.project.service import prices_file

        looks: list[Callable[[], object]] = [
            self.project_file.refresh,
            lambda: self.prices.refresh(prices_file(self.project)),
        ]
        return looks if self.leases is None else [*looks, self.leases.look]

    def take_settings(self, settings: Snapshot) -> None:
        """Settings that another reader of the store has read hold here too."""
        self.following.current = settings
        self.prices.use(settings)

    @cached_property
    def settings(self) -> Settings:
        from lockgate.settings.service import Settings

        return Settings(self.control, self.clock, lambda: list(self.project.config.environments))

    @cached_property
    def following(self) -> Follower:
        """The settings as this process has last read them; whoever stays reads them anew."""
        from lockgate.settings.service import Follower

        return Follower()

    @cached_property
    def spans(self) -> SpanWriter:
        from lockgate.telemetry.scribe import Scribe
        from lockgate.telemetry.table import SpanTable
        from lockgate.telemetry.writer import SpanWriter

        return SpanWriter(Scribe(self._database("traces")) if self.has_scribe else SpanTable(self.traces))

    def shared_metrics(self, registry: Registry, name: str) -> SharedMetrics:
        """A process's metrics, left under its name where a gateway that is asked for metrics adds them up."""
        from lockgate.gateway.shared_metrics import SharedMetrics

        return SharedMetrics(registry, self.home / "run" / "metrics", name)

    # --- services ---------------------------------------------------------------------------------------------

    @cached_property
    def versions(self) -> Versions:
        from lockgate.versions.service import Versions

        return Versions(
            self.project,
            lambda: self.control,
            self.blobs,
            self.clock,
            yardstick=self._yardstick,
            check_evals=self._check_evals,
        )

    @staticmethod
    def _check_evals(settings: AgentSettings, root: Path) -> None:
        from lockgate.evals.rubric import parse_rubric

        parse_rubric(settings.evals, root)

    @staticmethod
    def _yardstick(settings: AgentSettings, root: Path) -> Yardstick:
        from lockgate.evals.yardstick import yardstick

        return yardstick(settings, root)

    @cached_property
    def evals(self) -> Evals:
        from lockgate.evals.service import Evals

        folder = self.project.home / "run" / "trials"
        return Evals(self.control, self.clock, open_embeddings=self.embeddings, folder=folder)

    @cached_property
    def annotations(self) -> Annotations:
        from lockgate.evals.annotation.service import Annotations

        return Annotations(self.control, self.clock)

    @cached_property
    def judges(self) -> Judges:
        from lockgate.evals.judges.service import Judges

        return Judges(self.control, self.clock)

    @cached_property
    def keys(self) -> Keys:
        from lockgate.gateway.keys import Keys

        return Keys(self.control, self.clock)

    @cached_property
    def approvals(self) -> Approvals:
        from lockgate.tools.service import Approvals

        return Approvals(self.control, self.clock)

    @cached_property
    def alerts(self) -> Alerts:
        from lockgate.fleet.service import Alerts

        return Alerts(self.control, self.clock, muted=lambda: self.following.current.value("alert.mute", ()))

    @cached_property
    def fleet(self) -> Fleet:
        from lockgate.fleet.heartbeats.service import Fleet

        return Fleet(self.control, self.clock, self.alerts)

    @cached_property
    def triage(self) -> Triage:
        from lockgate.improve.service import Triage

        return Triage(self.control, self.clock)

    @cached_property
    def rollouts(self) -> Rollouts:
        from lockgate.rollouts.service import Rollouts

        return Rollouts(self.control, self.clock, versions=lambda: self.versions, project=self.project)

    @cached_property
    def environments(self) -> Environments:
        from lockgate.rollouts.converge import Environments

        return Environments(
            self.control, self.clock, versions=self.versions, project=self.project, rollouts=self.rollouts
        )

    @cached_property
    def gitops(self) -> GitOps:
        from lockgate.rollouts.gitops import GitOps

        return GitOps(self.control, self.clock, project=self.project, blobs=self.blobs, yardstick=self._yardstick)

    def suspended_versions(self) -> set[tuple[str, str, str, str]]:
        """``(environment, agent, behaviour digest, effective digest)`` of versions that suspended runs wait for."""
        from lockgate.runtime.service import resumable

        return {
            (run.environment, run.agent, run.behaviour_digest, run.effective_digest) for run in resumable(self.control)
        }

    def uncalibrated(self, files: Collection[str]) -> dict[str, list[str]]:
        """By agent file, the metrics of the version locked from it whose judge was not held against people, or does
        not agree with them. Files of which nothing is known yet are left out."""
        from lockgate.errors import NotFound
        from lockgate.evals.rubric import parse_rubric
        from lockgate.versions.lockfile import read_lock

        found: dict[str, list[str]] = {}
        if not files or not (self.home / "control.db").exists():
            return found
        for entry in read_lock(self.project.root):
            if entry.file in files:
                try:
                    settings = self.versions.settings(entry.digest)
                except NotFound:
                    continue
                rubric = parse_rubric(settings.evals, self.project.root, where=f"{entry.file}: evals")
                found[entry.file] = self.judges.uncalibrated(rubric, entry.agent)
        return found

    def run_result(self, run_id: str) -> RunResult:
        """What a run of the gateway answered, with its tool calls, as a scorer is given it."""
        from sqlalchemy import select

        from lockgate.errors import NotFound
        from lockgate.rollouts.scoring import result_of
        from lockgate.storage.schema import runs

        with self.control.read() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).first()
            if row is None:
                raise NotFound(f"no run {run_id!r}", remedy="lockgate runs lists the newest ones")
            return result_of(connection, row)

    # --- what evals are given -----------------------------------------------------------------------------------

    def subject(
        self,
        behaviour_digest: str,
        environment: str,
        *,
        model_override: str | None = None,
        system_prompt: str | None = None,
    ) -> AbstractAsyncContextManager[Subject]:
        """The version, ready to run cases; see :func:`lockgate.subjects.open_subject`."""
        from lockgate.subjects import open_subject

        return open_subject(
            self, behaviour_digest, environment, model_override=model_override, system_prompt=system_prompt
        )

    def models(self, version: AgentVersion, environment: str) -> AbstractAsyncContextManager[ModelClient]:
        """The version's models, ready to be asked; see :func:`lockgate.subjects.open_models`."""
        from lockgate.subjects import open_models

        return open_models(self, version, environment)

    def judge(self, settings: JudgeSettings, environment: str) -> AbstractAsyncContextManager[Ask]:
        """The judge's model, ready to be asked; see :func:`lockgate.subjects.open_judge`."""
        from lockgate.subjects import open_judge

        return open_judge(self, settings, environment)

    def embeddings(self, named: str, environment: str) -> AskVectors:
        """A provider's embeddings; see :func:`lockgate.subjects.open_embeddings`."""
        from lockgate.subjects import open_embeddings

        return open_embeddings(self, named, environment)

    def settling(self, asking: Asking, metrics: GenAI | None = None) -> Settling:
        """What settles batches, in the gateway and in the control plane; ``asking`` is the way to their providers."""
        from lockgate.gateway.batches.settling import Settling

        return Settling(
            asking=asking,
            control=self.control,
            charges=self.charges,
            prices=self.prices,
            emit=self.spans.emit,
            clock=self.clock,
            alert=self.alerts.raise_alert,
            metrics=metrics,
        )

    def permit(self, model: str, environment: str) -> None:
        """Raises :class:`~lockgate.errors.Killed` while ``model`` (``provider/name``) is switched off there."""
        from lockgate.offswitch import OffSwitch

        OffSwitch(self, environment).check(model)

    def mutants(self, behaviour_digest: str, environment: str, *, weaker: str | None = None) -> list[Mutant]:
        """The version made worse on purpose; see :mod:`lockgate.mutants`."""
        from lockgate.mutants import of_version

        return of_version(self, behaviour_digest, environment, weaker=weaker)

    def stable(self, environment: str, agent: str) -> VersionRef | None:
        """The version that serves the agent there: the baseline of a gate. None before a first deploy."""
        from sqlalchemy import select

        from lockgate.storage.schema import deployments
        from lockgate.versions.model import VersionRef

        with self.control.read() as connection:
            row = connection.execute(
                select(deployments.c.stable_behaviour, deployments.c.stable_effective).where(
                    deployments.c.environment == environment, deployments.c.agent == agent
                )
            ).first()
        return None if row is None else VersionRef(agent=agent, behaviour_digest=row[0], effective_digest=row[1])

    def stable_effective(self, environment: str, agent: str) -> str | None:
        """The effective digest that serves the agent there; None before a first deploy."""
        stable = self.stable(environment, agent)
        return None if stable is None else stable.effective_digest


def open_app(start: Path | None = None, *, last_good: bool | None = None) -> App:
    """Open the project that ``start`` (or the working directory) is in; see :func:`load_project`."""
    project = load_project(start, last_good=last_good)
    if project.problem is not None:
        _log.warning("%s cannot be read, the last good one is used: %s", PROJECT_FILE, project.problem)
    return App(project)


def open_store(start: Path | None = None) -> App:
    """Open the project for what its store alone is needed for, such as revoking a stolen key.

    A mistake in its file stops nothing then: ``project.problem`` of the app names it, and the configuration is the
    last good one, or an empty one.
    """
    try:
        return App(load_project(start, last_good=True))
    except InputError as wrong:
        root = find_root(start or Path.cwd())
        if root is None:
            raise
        empty = ProjectConfig(project=root.name)
        return App(Project(root=root, home=home_of(root), config=empty, problem=wrong.message))
