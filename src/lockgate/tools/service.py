"""Approvals as their users see them: requested by a run, decided by a person, used once, and every act audited."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import Conflict
from lockgate.ids import new_id
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.tools import approvals, store
from lockgate.tools.contracts import hash_of
from lockgate.tools.model import Approval, ApprovalStatus

EXPIRES_AFTER = 24 * 3600.0
"""Seconds an approval may wait for its decision and its use."""


class Approvals:
    """Decide on tool calls that wait for a person. Safe to use from several processes at once."""

    def __init__(self, control: Database, clock: Clock, *, expires_after: float = EXPIRES_AFTER) -> None:
        self._control = control
        self._clock = clock
        self._expires_after = expires_after

    def request(
        self,
        *,
        run_id: str,
        seq: int,
        agent: str,
        environment: str,
        tool: str,
        arguments: dict[str, Any],
        effective_digest: str,
        policy_digest: str,
        reason: str = "",
        connection: Connection | None = None,
    ) -> Approval:
        """Ask for one. Inside the caller's transaction when it gives one, so that step and request stand together."""
        now = self._clock()
        asked = Approval(
            id=new_id("apr"),
            run_id=run_id,
            seq=seq,
            agent=agent,
            environment=environment,
            tool=tool,
            arguments=arguments,
            arguments_hash=hash_of(arguments),
            effective_digest=effective_digest,
            policy_digest=policy_digest,
            status="pending",
            requested_at=now,
            expires_at=now + self._expires_after,
        )
        with self._transaction(connection) as inside:
            store.add(inside, asked)
            details = {"tool": tool, "run": run_id, "arguments": asked.arguments_hash, "reason": reason}
            self._audit(inside, asked, f"agent:{agent}", "requested", details)
        return asked

    def get(self, approval_id: str) -> Approval:
        with self._control.read() as connection:
            return store.get(connection, approval_id)

    def of_step(self, run_id: str, seq: int) -> Approval | None:
        """The approval that a run's step waits for, if it asked for one."""
        with self._control.read() as connection:
            return store.of_step(connection, run_id, seq)

    def listed(
        self, *, status: ApprovalStatus | None = None, agent: str | None = None, limit: int = 100
    ) -> list[Approval]:
        """Newest first."""
        with self._control.read() as connection:
            return store.listed(connection, status=status, agent=agent, limit=limit)

    def approve(self, approval_id: str, by: str, reason: str = "") -> Approval:
        """A person's yes. Raises :class:`Conflict` when it is decided or expired."""
        return self._decide(approval_id, "approved", by, reason)

    def reject(self, approval_id: str, by: str, reason: str = "") -> Approval:
        """A person's no. Raises :class:`Conflict` when it is decided or expired."""
        return self._decide(approval_id, "rejected", by, reason)

    def claim(
        self,
        approval_id: str,
        *,
        arguments_hash: str,
        effective_digest: str,
        policy_digest: str,
        connection: Connection | None = None,
    ) -> Approval:
        """Take an approved call for execution: at most one caller ever gets it.

        Raises :class:`~lockgate.errors.Refused` when it was not approved, has expired, or was given for anything
        else than exactly this; :class:`Conflict` when another took it first.
        """
        now = self._clock()
        with self._transaction(connection) as inside:
            approval = store.get(inside, approval_id)
            approvals.check_claim(
                approval,
                arguments_hash=arguments_hash,
                effective_digest=effective_digest,
                policy_digest=policy_digest,
                now=now,
            )
            return self._move(inside, approval, "executing", actor=f"run:{approval.run_id}", now=now)

    def executed(self, approval_id: str, error: str | None = None, *, connection: Connection | None = None) -> Approval:
        """The call was carried out, well or with ``error``. Either way it is used up."""
        return self._end(approval_id, "executed", error, connection)

    def unknown(self, approval_id: str, *, connection: Connection | None = None) -> Approval:
        """Nobody can say whether the call happened, e.g. its host died. It will not be tried again."""
        return self._end(approval_id, "unknown", None, connection)

    def withdraw(self, run_id: str, *, connection: Connection | None = None) -> None:
        """The run has ended: nobody need decide any more, and what was being carried out has an unknown outcome."""
        now = self._clock()
        with self._transaction(connection) as inside:
            for approval in store.listed(inside, status=None, agent=None, run_id=run_id):
                if approval.status in ("pending", "approved"):
                    self._move(inside, approval, "expired", actor="lockgate", now=now)
                elif approval.status == "executing":
                    self._move(inside, approval, "unknown", actor="lockgate", now=now)

    def expire(self) -> list[Approval]:
        """End those past their time; returns them. Run by the control plane's tick."""
        now = self._clock()
        with self._control.write() as connection:
            return [
                self._move(connection, approval, "expired", actor="lockgate", now=now)
                for approval in store.overdue(connection, now)
            ]

    @contextmanager
    def _transaction(self, connection: Connection | None) -> Iterator[Connection]:
        """The caller's transaction, or one of its own."""
        if connection is not None:
            yield connection
        else:
            with self._control.write() as own:
                yield own

    def _decide(self, approval_id: str, verdict: ApprovalStatus, by: str, reason: str) -> Approval:
        now = self._clock()
        with self._control.write() as connection:
            before = store.get(connection, approval_id)
            after = approvals.decide(before, verdict, by=by, reason=reason, now=now)
            if not store.change(connection, before, after):
                raise Conflict(f"approval {approval_id} was decided by somebody else just now")
            details = {"tool": after.tool, "run": after.run_id, "arguments": after.arguments_hash, "reason": reason}
            self._audit(connection, after, by, verdict, details)
            return after

    def _end(
        self, approval_id: str, status: ApprovalStatus, error: str | None, connection: Connection | None
    ) -> Approval:
        now = self._clock()
        with self._transaction(connection) as inside:
            approval = store.get(inside, approval_id)
            if approval.status != "executing":
                raise Conflict(f"approval {approval_id} is {approval.status}, not executing")
            return self._move(inside, approval, status, actor=f"run:{approval.run_id}", now=now, error=error)

    def _move(
        self,
        connection: Connection,
        before: Approval,
        status: ApprovalStatus,
        *,
        actor: str,
        now: float,
        error: str | None = None,
    ) -> Approval:
        executed_at = now if status == "executed" else before.executed_at
        after = msgspec.structs.replace(before, status=status, executed_at=executed_at)
        if not store.change(connection, before, after):
            raise Conflict(f"approval {before.id} was {before.status} a moment ago and is not any more")
        details = {"tool": after.tool, "run": after.run_id, "arguments": after.arguments_hash}
        self._audit(connection, after, actor, status, details | ({"error": error} if error else {}))
        return after

    def _audit(self, connection: Connection, approval: Approval, actor: str, act: str, details: dict[str, Any]) -> None:
        audit.record(
            connection,
            at=self._clock(),
            actor=actor,
            action=f"approval.{act}",
            subject=approval.id,
            details={"agent": approval.agent, "environment": approval.environment, **details},
        )
