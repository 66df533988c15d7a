"""Re-runs a recorded run from its version and its steps: no model, no tool, no network."""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate import clock as clocks
from lockgate.errors import Conflict
from lockgate.results import RunResult
from lockgate.runtime.context import RunContext
from lockgate.runtime.execution import execute
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Completion, Step
from lockgate.runtime.tracing import Tracer
from lockgate.tools.contracts import hash_of
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ModelRef, ToolContract

CUT_OFF = frozenset({"time_exceeded", "cancelled", "host_lost"})
"""A run that ended so was stopped from outside: its replay can only come to where the record ends."""


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay went. ``divergence`` is the first difference, None when there is none."""

    run_id: str
    steps: int
    replayed: int
    divergence: str | None
    status: str
    output: Any = None
    error_type: str | None = None

    @property
    def exact(self) -> bool:
        return self.divergence is None


async def replay(version: AgentVersion, run: dict[str, Any], steps: list[Step], code: Code) -> Replay:
    """``run`` is the recorded run's row. Raises :class:`Conflict` while it is still in progress."""
    if run["status"] == "running":
        raise Conflict(f"run {run['id']} is still in progress", remedy="wait for its end")
    journal = Journal(steps, sealed=True)
    ctx = RunContext(
        version,
        _NoModel(),
        code=code,
        policy=Policy(version.policies),
        mode=_NoTools(),
        recorder=_Recorded(),
        journal=journal,
        tracer=Tracer(None, version, trace_id=run["trace_id"]),
        clock=clocks.system,
        environment=run["environment"],
        run_id=run["id"],
    )
    result = await execute(ctx, run["input"])
    return Replay(
        run_id=run["id"],
        steps=len(steps),
        replayed=journal.position,
        divergence=_divergence(run, steps, journal.position, result),
        status=result.status,
        output=result.output,
        error_type=result.error_type,
    )


def _divergence(run: dict[str, Any], steps: list[Step], replayed: int, result: RunResult) -> str | None:
    cut_off = run["error_type"] in CUT_OFF
    if result.error_type == "diverged":
        ended_where_it_was_cut = cut_off and replayed == len(steps)
        return None if ended_where_it_was_cut else result.error
    if replayed < len(steps):
        return (
            f"the replay ended after {replayed} of {len(steps)} steps, as {_ending(result.status, result.error_type)}"
        )
    if cut_off:
        return None
    was, now = (run["status"], run["error_type"]), (result.status, result.error_type)
    if was != now:
        return f"the run ended as {_ending(*was)}, the replay as {_ending(*now)}: {result.error or ''}".rstrip(": ")
    if hash_of(run["output"]) != hash_of(result.output):
        return f"the output was {run['output']!r}, and is {result.output!r}"
    return None


def _ending(status: str, error_type: str | None) -> str:
    return f"{status} ({error_type})" if error_type else status


class _NoModel:
    records_spans = True

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        raise AssertionError("a sealed journal asks no model")


class _NoTools:
    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> None:
        raise AssertionError("a sealed journal calls no tool")


class _Recorded:
    """The record is read, never written; what waited for a person waits still."""

    async def started(self, step: Step) -> None:
        pass

    async def ended(self, step: Step) -> None:
        pass

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        raise AssertionError("a sealed journal asks for no approval")

    async def decision(self, step: Step) -> Approval:
        return Approval(
            id="",
            run_id="",
            seq=step.seq,
            agent="",
            environment="",
            tool=step.name,
            arguments={},
            arguments_hash="",
            effective_digest="",
            policy_digest="",
            status="pending",
            requested_at=0.0,
            expires_at=None,
        )

    async def claim(self, step: Step, approval: Approval) -> None:
        raise AssertionError("a pending approval is never claimed")
