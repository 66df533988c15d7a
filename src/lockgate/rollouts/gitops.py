"""GitOps: a git branch says what ought to serve, and the control plane brings it about.

Level-triggered, like every tick: the branch's newest commit that can be read is compared with what serves, and what
differs is converged. A commit that cannot be read leaves everything as it is, and says why.
"""

from __future__ import annotations

import hashlib
import hmac
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection, delete, select

from lockgate.clock import Clock
from lockgate.errors import InputError, LockgateError, NotFound, Unauthenticated
from lockgate.project.model import GitOps as Config
from lockgate.project.model import Project
from lockgate.project.secrets import resolve_secret
from lockgate.project.service import load_project
from lockgate.rollouts.admission import short
from lockgate.rollouts.converge import CHANGES, Environments, Status, Step
from lockgate.rollouts.gitrepo import Repository
from lockgate.rollouts.service import Rollouts
from lockgate.storage import schema
from lockgate.storage.blobs import BlobStore
from lockgate.storage.engine import Database
from lockgate.storage.upsert import insert_into
from lockgate.versions.service import MeasuredBy, Versions

BY = "gitops"
NAME = "default"
KEPT = 3
"""Commits whose files stay written out."""

Tell = Callable[[str, str, str], object]
"""``(alert's key, subject, message)``: what is wrong, an empty message when it is well."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of the branch."""

    seen_commit: str = ""
    applied_commit: str = ""
    error: str = ""
    checked_at: float = 0.0
    woken_at: float = 0.0


class AgentState(msgspec.Struct, frozen=True, kw_only=True):
    """One agent: what the branch wants, and whether that is so."""

    environment: str
    agent: str
    wanted_behaviour: str
    wanted_effective: str
    commit: str
    status: Status
    message: str
    synced_at: float | None
    updated_at: float


class GitOps:
    """Follows the branch that ``lockgate.yaml`` names."""

    def __init__(
        self,
        control: Database,
        clock: Clock,
        *,
        project: Project,
        blobs: BlobStore,
        yardstick: MeasuredBy | None = None,
    ) -> None:
        self.reconciled_at = 0.0
        """When this process last brought what serves to what the branch says, Unix seconds."""
        self.failures = {"commit": 0, "reconcile": 0}
        """How often the newest commit could not be read, and an agent could not be brought there."""
        self._yardstick = yardstick
        self._control = control
        self._clock = clock
        self._project = project
        self._blobs = blobs
        self._opened: tuple[str, Project, Environments] | None = None
        self._told: dict[str, str] = {}

    @property
    def config(self) -> Config:
        """The project's ``gitops`` block."""
        found = self._project.config.gitops
        if found is None:
            raise NotFound("no branch is followed", remedy="add gitops: {repository: …, branch: …} to lockgate.yaml")
        return found

    # --- looking ----------------------------------------------------------------------------------------------

    def source(self) -> Source:
        """The branch as it was last seen."""
        with self._control.read() as connection:
            row = connection.execute(select(schema.gitops_source).where(schema.gitops_source.c.name == NAME)).first()
        if row is None:
            return Source()
        return Source(**{name: value for name, value in row._mapping.items() if name != "name"})

    def states(self) -> list[AgentState]:
        """Every agent that the branch names."""
        table = schema.gitops_states
        with self._control.read() as connection:
            rows = connection.execute(select(table).order_by(table.c.environment, table.c.agent)).all()
        return [AgentState(**row._mapping) for row in rows]

    # --- waking -----------------------------------------------------------------------------------------------

    def wake(self, body: bytes, signature: str | None) -> None:
        """A push was announced: the next tick looks. Raises :class:`Unauthenticated` for a wrong signature.

        ``signature``: ``sha256=<hex>``, HMAC-SHA256 of the body under ``gitops.webhook_secret``.
        """
        secret = resolve_secret(self.config.webhook_secret, self._project.root)
        if secret is None:
            raise NotFound("no webhook is configured", remedy="set gitops.webhook_secret in lockgate.yaml")
        expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        given = (signature or "").removeprefix("sha256=")
        if not hmac.compare_digest(expected.encode(), given.encode("utf-8", "surrogatepass")):
            raise Unauthenticated("the webhook's signature is wrong", remedy="sign the body with the shared secret")
        self.ask()

    def ask(self) -> None:
        """Make the next tick look at the repository, whenever it last did."""
        self._save_source(msgspec.structs.replace(self.source(), woken_at=self._clock()))

    # --- working ----------------------------------------------------------------------------------------------

    def tick(self, tell: Tell = lambda key, subject, message: None) -> list[Step]:
        """Look at the branch when that is due, and converge.

        ``tell`` is told of a broken commit and of each agent that is Degraded: when it changes, and at each look.
        """
        if self._project.config.gitops is None:
            return []
        known, now = self.source(), self._clock()
        if known.woken_at > known.checked_at or now - known.checked_at >= self.config.poll:
            known = self._look(known, now)
            self._told.clear()
            tell("gitops", "gitops", known.error)
        if not known.applied_commit:
            return []
        project, environments = self._open(known.applied_commit)
        steps: list[Step] = []
        names = self.config.environments or [name for name, each in project.config.environments.items() if each.agents]
        for name in names:
            steps += [self._converge(environments, step, known.applied_commit) for step in environments.plan(name)]
        for step in steps:
            self._tell(tell, step.environment, step.agent, step.message if step.status == "Degraded" else "")
        for gone in self._forget({(step.environment, step.agent) for step in steps}):
            self._tell(tell, gone.environment, gone.agent, "")
        self.failures["reconcile"] += sum(step.action == "error" for step in steps)
        self.reconciled_at = self._clock()
        return steps

    def _tell(self, tell: Tell, environment: str, agent: str, message: str) -> None:
        key = f"gitops:{environment}:{agent}"
        if self._told.get(key) != message:
            tell(key, f"{agent} in {environment}", message)
            self._told[key] = message

    def _look(self, known: Source, now: float) -> Source:
        commit = known.seen_commit
        try:
            repository = self._repository()
            commit = repository.newest()
            if commit != known.applied_commit:
                repository.write(commit, self._folder(commit))
                project, environments = self._open(commit)
                broken = [
                    step
                    for name, each in project.config.environments.items()
                    if each.agents and name in (self.config.environments or project.config.environments)
                    for step in environments.plan(name)
                    if step.action == "error"
                ]
                if broken:
                    raise InputError("; ".join(f"{one.agent} in {one.environment}: {one.message}" for one in broken))
            known = msgspec.structs.replace(known, applied_commit=commit, error="")
        except LockgateError as wrong:
            self._opened = None
            self.failures["commit"] += 1
            where = f"commit {commit[:12]}: " if commit and commit != known.applied_commit else ""
            known = msgspec.structs.replace(known, error=where + wrong.message)
        known = msgspec.structs.replace(known, seen_commit=commit, checked_at=now)
        self._save_source(known)
        return known

    def _converge(self, environments: Environments, step: Step, commit: str) -> Step:
        if step.wanted is None:
            return step
        before = self._state(step.environment, step.agent)
        changed = before is None or before.wanted_effective != step.wanted.effective_digest
        if changed and step.action == "held" and self._release(step):
            placement = environments.placement(step.environment, step.agent)
            step = environments.look(step.environment, step.agent, placement)
        drifted = not changed and before is not None and before.synced_at is not None and step.action in CHANGES
        if drifted and not self.config.revert_drift:
            what = step.message
            if step.current is not None and step.action not in ("settings", "end"):
                what = f"{short(step.current.behaviour_digest)} serves"
            message = f"changed by hand: {what}; left so, as gitops.revert_drift is off"
            step = msgspec.structs.replace(step, status="OutOfSync", message=message)
        else:
            why = f"commit {commit[:12]}" if not drifted else f"changed by hand; commit {commit[:12]} says otherwise"
            step = environments.take(step, by=BY, why=why)
        synced = None if changed or before is None else before.synced_at
        if step.action == "held":
            step = msgspec.structs.replace(step, message=f"{step.message}; {self._way_back(step)}")
        if step.status == "Synced":
            synced = synced or self._clock()
        self._save_state(step, commit, synced)
        return step

    def _way_back(self, step: Step) -> str:
        assert step.wanted is not None
        table = schema.digest_holds
        query = select(table.c.held_by).where(
            table.c.environment == step.environment,
            table.c.agent == step.agent,
            table.c.effective_digest == step.wanted.effective_digest,
        )
        with self._control.read() as connection:
            by = connection.execute(query).scalar()
        if by == "controller":
            return f"lockgate rollout retry {step.agent} --env {step.environment} tries it again"
        return "it may come back once the branch has wanted another version in between"

    def _release(self, step: Step) -> bool:
        """Forget a hold by hand: what is wanted has changed since. One that the evidence put stays."""
        assert step.wanted is not None
        digest = step.wanted.effective_digest
        table = schema.digest_holds
        with self._control.write() as connection:
            gone = connection.execute(
                delete(table).where(
                    table.c.environment == step.environment,
                    table.c.agent == step.agent,
                    table.c.effective_digest == digest,
                    table.c.held_by != "controller",
                )
            )
        return bool(gone.rowcount)

    def _open(self, commit: str) -> tuple[Project, Environments]:
        if self._opened is None or self._opened[0] != commit:
            folder = self._folder(commit)
            if not folder.is_dir():
                self._repository().write(commit, folder)
            inside = folder / self.config.folder
            read = load_project(inside, last_good=False)  # a commit speaks for itself, or not at all
            if not read.root.is_relative_to(folder):
                raise InputError(f"no lockgate.yaml in {self.config.folder!r} of the repository")
            project = msgspec.structs.replace(read, home=self._project.home)
            versions = Versions(project, self._control, self._blobs, self._clock, yardstick=self._yardstick)
            rollouts = Rollouts(self._control, self._clock, versions=versions, project=project)
            environments = Environments(
                self._control, self._clock, versions=versions, project=project, rollouts=rollouts, unchanging=True
            )
            self._opened = (commit, project, environments)
            self._tidy(keep=folder)
        return self._opened[1], self._opened[2]

    def _repository(self) -> Repository:
        config = self.config
        source = config.repository
        if "://" not in source and "@" not in source:
            source = str((self._project.root / source).resolve())
        token = resolve_secret(config.token, self._project.root)
        return Repository(source, config.branch, self._place / "mirror.git", token=token)

    @property
    def _place(self) -> Path:
        return self._project.home / "gitops"

    def _folder(self, commit: str) -> Path:
        return self._place / "commits" / commit

    def _tidy(self, keep: Path) -> None:
        others = [each for each in self._folder("x").parent.iterdir() if each != keep and not each.name.startswith(".")]
        for old in sorted(others, key=lambda each: each.stat().st_mtime, reverse=True)[KEPT:]:
            shutil.rmtree(old, ignore_errors=True)

    # --- rows -------------------------------------------------------------------------------------------------

    def _state(self, environment: str, agent: str) -> AgentState | None:
        return next((one for one in self.states() if (one.environment, one.agent) == (environment, agent)), None)

    def _save_state(self, step: Step, commit: str, synced: float | None) -> None:
        assert step.wanted is not None
        values = {
            "wanted_behaviour": step.wanted.behaviour_digest,
            "wanted_effective": step.wanted.effective_digest,
            "commit": commit,
            "status": step.status,
            "message": step.message,
            "synced_at": synced,
        }
        before = self._state(step.environment, step.agent)
        if before is not None and all(getattr(before, name) == value for name, value in values.items()):
            return
        values["updated_at"] = self._clock()
        with self._control.write() as connection:
            _upsert(connection, schema.gitops_states, {"environment": step.environment, "agent": step.agent}, values)

    def _forget(self, named: set[tuple[str, str]]) -> list[AgentState]:
        """Drop what the branch names no more; returns it."""
        gone = [state for state in self.states() if (state.environment, state.agent) not in named]
        table = schema.gitops_states
        for state in gone:
            with self._control.write() as connection:
                connection.execute(
                    delete(table).where(table.c.environment == state.environment, table.c.agent == state.agent)
                )
        return gone

    def _save_source(self, source: Source) -> None:
        with self._control.write() as connection:
            _upsert(connection, schema.gitops_source, {"name": NAME}, msgspec.structs.asdict(source))


def _upsert(connection: Connection, table: Any, key: dict[str, Any], values: dict[str, Any]) -> None:
    statement = insert_into(connection, table).values(**key, **values)
    connection.execute(statement.on_conflict_do_update(index_elements=list(key), set_=values))
