"""Sets, reads and follows settings. Each change is one transaction with its line in the audit log."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, NamedTuple

from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import InputError, NotFound
from lockgate.settings import store
from lockgate.settings.catalogue import check_scope, check_value, definition
from lockgate.settings.model import Change, Scope, Setting, Snapshot
from lockgate.storage import audit
from lockgate.storage.engine import Database

MAX_REASON = 2000
MAX_NAME = 256


class Done(NamedTuple):
    """What a change came to, and what somebody should know of it."""

    setting: Setting
    notes: list[str]


class Settings:
    """The settings of one project. ``environments`` are the names there are."""

    def __init__(self, control: Database, clock: Clock, environments: Callable[[], Collection[str]]) -> None:
        self._control = control
        self._clock = clock
        self._environments = environments

    def set(self, name: str, value: Any, scope: Scope, *, actor: str, reason: str = "") -> Done:
        """Put a value in force, in every process within two seconds. Setting what holds already changes nothing.

        Raises :class:`InputError` for a wrong name, value or scope, and :class:`~lockgate.errors.Refused` for what
        changes only through a new digest.
        """
        known = definition(name)
        self._check(known.name, scope, reason)
        check_scope(known, scope)
        if known.reasoned and not reason.strip():
            raise InputError(f"{name!r} needs a reason: whoever is refused is told", remedy="give --reason")
        taken = check_value(known, value)
        now = self._clock()
        with self._control.write() as connection:
            before = self._in_force(connection, name, scope)
            if before is not None and before.value == taken and before.reason == reason:
                return Done(before, self._notes(connection, scope))
            old = None if before is None else before.value
            revision = self._record(connection, name, scope, taken, old, removed=False, reason=reason, by=actor, at=now)
            after = Setting(name=name, scope=scope, value=taken, reason=reason, actor=actor, at=now, revision=revision)
            return Done(after, self._notes(connection, scope))

    def unset(self, name: str, scope: Scope, *, actor: str, reason: str = "") -> Setting:
        """Take a value away: a wider one, or the default, holds again. Returns what held.

        Raises :class:`NotFound` when nothing is set in exactly this scope.
        """
        definition(name)
        self._check(name, scope, reason)
        now = self._clock()
        with self._control.write() as connection:
            before = self._in_force(connection, name, scope)
            if before is None:
                others = [str(one.scope) for one in store.current(connection) if one.name == name]
                remedy = f"it is set for: {'; '.join(others)}" if others else "lockgate settings list"
                raise NotFound(f"{name!r} is not set for: {scope}", remedy=remedy)
            self._record(connection, name, scope, None, before.value, removed=True, reason=reason, by=actor, at=now)
        return before

    def all(self, name: str | None = None, environment: str | None = None) -> list[Setting]:
        """What is set, by name; with ``environment`` what holds there, or everywhere."""
        if name is not None:
            definition(name)
        with self._control.read() as connection:
            found = store.current(connection)
        return [
            one
            for one in found
            if name in (None, one.name) and (environment is None or one.scope.environment in ("", environment))
        ]

    def history(self, name: str | None = None, *, environment: str | None = None, limit: int = 100) -> list[Change]:
        """Who changed what, when and why: the newest first."""
        if name is not None:
            definition(name)
        with self._control.read() as connection:
            return store.history(connection, name, environment, limit)

    def snapshot(self) -> Snapshot:
        """What holds now."""
        with self._control.read() as connection:
            return Snapshot(store.current(connection), store.revision(connection))

    def _in_force(self, connection: Connection, name: str, scope: Scope) -> Setting | None:
        known = store.current(connection)
        return next((one for one in known if (one.name, one.scope) == (name, scope)), None)

    def _record(
        self,
        connection: Connection,
        name: str,
        scope: Scope,
        value: Any,
        old: Any,
        *,
        removed: bool,
        reason: str,
        by: str,
        at: float,
    ) -> int:
        # The audit log first: on PostgreSQL its lock makes changes commit in the order of their revisions, so that
        # whoever follows by the newest revision misses none.
        audit.record(
            connection,
            at=at,
            actor=by,
            action="setting.unset" if removed else "setting.set",
            subject=f"{name}: {scope}",
            details={"from": old, "to": value, "reason": reason},
        )
        return store.add(connection, name, scope, value, removed=removed, reason=reason, actor=by, at=at)

    def _check(self, name: str, scope: Scope, reason: str) -> None:
        if scope.environment and scope.environment not in self._environments():
            raise InputError(
                f"{name!r} is for the environment {scope.environment!r}, which is not in lockgate.yaml",
                remedy=f"one of {', '.join(self._environments())}",
            )
        if len(reason) > MAX_REASON:
            raise InputError(f"the reason has {len(reason)} characters", remedy=f"use at most {MAX_REASON}")
        for value in (scope.agent, scope.tenant, scope.model):
            if len(value) > MAX_NAME or not value.isprintable():
                raise InputError(f"the name {value[:40]!r} is no name", remedy=f"use at most {MAX_NAME} characters")

    def _notes(self, connection: Connection, scope: Scope) -> list[str]:
        """A name with a slip in it would hold for nobody: say what is not known here."""
        notes = []
        if scope.agent and not store.is_deployed(connection, scope.agent, scope.environment):
            where = f" in {scope.environment!r}" if scope.environment else ""
            notes.append(f"no agent {scope.agent!r} is deployed{where}: it holds as soon as one is")
        if scope.tenant and not store.has_key(connection, scope.tenant):
            notes.append(f"no key was ever made for the tenant {scope.tenant!r}: it holds as soon as one is")
        return notes


class Follower:
    """The settings as one process knows them: read anew when the store's revision has changed."""

    def __init__(self) -> None:
        self.current = Snapshot()

    def refresh(self, connection: Connection) -> bool:
        """Look at the revision, and read what holds if it is another. True when something changed."""
        newest = store.revision(connection)
        if newest == self.current.revision:
            return False
        self.current = Snapshot(store.current(connection), newest)
        return True
