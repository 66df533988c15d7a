"""Where a hosted run's steps go: the store, behind the run for what may be lost, before it for what may not."""

from __future__ import annotations

import asyncio
from concurrent.futures import Future
from typing import Any

import msgspec
from sqlalchemy import Connection

from lockgate.errors import RunFailed
from lockgate.runtime import store
from lockgate.runtime.committer import Committer
from lockgate.runtime.model import Step
from lockgate.tools.contracts import hash_of
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.service import Approvals


class RunIdentity(msgspec.Struct, frozen=True, kw_only=True):
    """What approvals are bound to, besides the call."""

    run_id: str
    attempt: int
    agent: str
    environment: str
    effective_digest: str
    policy_digest: str


class StoreRecorder:
    """A :class:`~lockgate.runtime.model.Recorder` for one attempt of one run."""

    def __init__(
        self, committer: Committer, approvals: Approvals, run: RunIdentity, recorded: list[Step] | None = None
    ) -> None:
        self._committer = committer
        self._approvals = approvals
        self._run = run
        self._stored = {step.seq for step in recorded or ()}
        self._claimed: dict[int, str] = {}  # step → approval
        self._failure: BaseException | None = None

    async def started(self, step: Step) -> None:
        await self._confirmed(self._submit(step))

    async def ended(self, step: Step) -> None:
        approval_id = self._claimed.pop(step.seq, None)
        written = self._submit(step, lambda connection: self._settle(connection, approval_id, step))
        if step.effect == "write" or approval_id is not None:
            await self._confirmed(written)
        else:
            written.add_done_callback(self._remember)

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        run = self._run

        def ask(connection: Connection) -> Approval:
            store.suspend(connection, run.run_id)
            return self._approvals.request(
                run_id=run.run_id,
                seq=step.seq,
                agent=run.agent,
                environment=run.environment,
                tool=step.name,
                arguments=step.request,
                effective_digest=run.effective_digest,
                policy_digest=run.policy_digest,
                reason=ruling.reason,
                connection=connection,
            )

        approval = await self._confirmed(self._submit(step, ask))
        assert isinstance(approval, Approval)
        return approval

    async def decision(self, step: Step) -> Approval:
        approval = await asyncio.to_thread(self._approvals.of_step, self._run.run_id, step.seq)
        if approval is None:
            raise RunFailed("internal_error", f"step {step.seq} waits for an approval that does not exist")
        return approval

    async def claim(self, step: Step, approval: Approval) -> None:
        run = self._run
        values = store.step_values(msgspec.structs.replace(step, status="started"))

        def take(connection: Connection) -> None:
            store.fence(connection, run.run_id, run.attempt)
            self._approvals.claim(
                approval.id,
                arguments_hash=hash_of(step.request),
                effective_digest=run.effective_digest,
                policy_digest=run.policy_digest,
                connection=connection,
            )
            store.put_step(connection, run.run_id, values, new=False)

        await self._confirmed(self._committer.submit(take))
        self._claimed[step.seq] = approval.id

    def _submit(self, step: Step, also: Any = None) -> Future[Any]:
        """Write the step as it is now, and do ``also`` in the same transaction."""
        run, values, new = self._run, store.step_values(step), step.seq not in self._stored
        self._stored.add(step.seq)

        def write(connection: Connection) -> Any:
            store.fence(connection, run.run_id, run.attempt)
            store.put_step(connection, run.run_id, values, new=new)
            return also(connection) if also else None

        return self._committer.submit(write)

    def _settle(self, connection: Connection, approval_id: str | None, step: Step) -> None:
        if approval_id is None:
            return
        if step.error_type == "outcome_unknown":
            self._approvals.unknown(approval_id, connection=connection)
        else:
            self._approvals.executed(approval_id, step.error, connection=connection)

    async def _confirmed(self, written: Future[Any]) -> Any:
        result = await asyncio.wrap_future(written)
        if self._failure is not None:
            raise self._failure
        return result

    def _remember(self, written: Future[Any]) -> None:
        """A step written behind the run failed: the next one that must not be lost will say so."""
        self._failure = self._failure or written.exception()
