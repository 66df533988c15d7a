"""Re-runs a recorded run from its version and its steps.

From the record alone: no model, no tool, no network. Or with a live model, while tools still answer from the record:
nothing in the world changes either way.
"""

from __future__ import annotations

from typing import Any

import msgspec

from lockgate import clock as clocks
from lockgate.errors import Conflict, RunFailed
from lockgate.results import RunResult
from lockgate.runtime.context import RunContext
from lockgate.runtime.execution import execute
from lockgate.runtime.journal import Asked, Divergence, Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Answer, Completion, ModelClient, Step
from lockgate.runtime.shadow import ShadowTools
from lockgate.runtime.toolcalls import Fate
from lockgate.runtime.tracing import Tracer
from lockgate.tools.contracts import hash_of
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ModelRef, ToolContract

CUT_OFF = frozenset({"time_exceeded", "cancelled", "host_lost", "depth_exceeded", "shadow_unsupported", "unscored"})
"""A run that ended so was stopped from outside: its replay can only come to where the record ends."""

_UNCALLED = frozenset({"unknown_tool", "invalid_arguments", "policy_refused"})
_APPROVAL = frozenset({"approval_rejected", "approval_expired"})
_FATES = {
    "unknown_tool": "is unknown",
    "invalid_arguments": "has arguments that do not fit",
    "policy_refused": "is refused by policy",
    "approval": "waits for an approval",
    "call": "is carried out",
}


class Replay(msgspec.Struct, frozen=True, kw_only=True):
    """How a replay went. ``divergence`` is the first difference in words, None when there is none; ``parting`` shows
    the step where record and replay parted. ``taken`` are the replay's own steps, ``recorded`` of them answered from
    the record. ``behaviour_digest`` is of the version that was replayed."""

    run_id: str
    behaviour_digest: str
    steps: int
    replayed: int
    divergence: str | None
    status: str
    parting: Divergence | None = None
    live: bool = False
    output: Any = None
    error_type: str | None = None
    error: str | None = None
    cost_nano: int = 0
    taken: list[Step] = []

    @property
    def exact(self) -> bool:
        return self.divergence is None


async def replay(
    version: AgentVersion,
    run: dict[str, Any],
    steps: list[Step],
    code: Code,
    *,
    live: ModelClient | None = None,
    live_reads: bool = False,
    approved: frozenset[int] = frozenset(),
    environment: str | None = None,
) -> Replay:
    """``run`` is the recorded run's row; ``approved`` are its steps that a person was asked about.

    Without ``live`` everything comes from the record. With it, that model is asked where the record has no answer:
    from the first step on when ``version`` is the run's own, else from the step where the two versions part. Tools
    answer from the record as long as the same call stands there; a write is never carried out, and another read
    only with ``live_reads``. Raises :class:`Conflict` while the run is still in progress.
    """
    if run["status"] == "running":
        raise Conflict(f"run {run['id']} is still in progress", remedy="wait for its end")
    same = version.behaviour_digest == run["behaviour_digest"]
    anew = live is not None and same
    journal = Journal([] if anew else steps, sealed=live is None, fork=live is not None and not same)
    ctx = RunContext(
        version,
        live or _NoModel(),
        code=code,
        policy=Policy(version.policies),
        mode=_NoTools() if live is None else _RecordedTools(steps, journal, live_reads=live_reads),
        recorder=_Recorded(),
        journal=journal,
        tracer=Tracer(None, version, trace_id=run["trace_id"]),
        clock=clocks.system,
        environment=environment or run["environment"],
        run_id=run["id"],
        cut_off=same and run["status"] != "completed",
        recheck=None if same else lambda step, fate: _changed_fate(step, fate, approved),
    )
    result = await execute(ctx, run["input"])
    parting = journal.divergence
    replayed = 0 if anew else parting.seq if parting else journal.position
    divergence = _difference_at_end(run, result) if anew else _divergence(run, steps, journal, result)
    if parting is None and not anew and replayed < len(steps):
        left = steps[replayed]
        parting = Divergence(
            seq=replayed,
            expected=Asked(kind=left.kind, name=left.name, request=left.request),
            got=None,
            message=divergence or "",
        )
    return Replay(
        run_id=run["id"],
        behaviour_digest=version.behaviour_digest,
        steps=len(steps),
        replayed=replayed,
        divergence=divergence,
        parting=parting if divergence is not None else None,
        live=live is not None,
        status=result.status,
        output=result.output,
        error_type=result.error_type,
        error=result.error,
        cost_nano=sum(step.cost_nano for step in journal.steps[replayed:]) if live is not None else 0,
        taken=journal.steps[: journal.position],
    )


def _divergence(run: dict[str, Any], steps: list[Step], journal: Journal, result: RunResult) -> str | None:
    cut_off = run["error_type"] in CUT_OFF
    if (parting := journal.divergence) is not None:
        ended_where_it_was_cut = cut_off and parting.seq == len(steps)
        return None if ended_where_it_was_cut else parting.message
    if journal.position < len(steps):
        ending = _ending(result.status, result.error_type)
        return f"the replay ended after {journal.position} of {len(steps)} steps, as {ending}"
    return None if cut_off else _difference_at_end(run, result)


def _difference_at_end(run: dict[str, Any], result: RunResult) -> str | None:
    was, now = (run["status"], run["error_type"]), (result.status, result.error_type)
    if was != now:
        return f"the run ended as {_ending(*was)}, the replay as {_ending(*now)}: {result.error or ''}".rstrip(": ")
    if hash_of(run["output"]) != hash_of(result.output):
        return f"the output was {run['output']!r}, and is {result.output!r}"
    return None


def _changed_fate(step: Step, fate: Fate, approved: frozenset[int]) -> str | None:
    """What another version makes of a recorded tool call, when that is something else than what was made of it."""
    if step.error_type in _UNCALLED:
        was = str(step.error_type)
    elif step.status == "waiting" or step.error_type in _APPROVAL or step.seq in approved:
        was = "approval"
    else:
        was = "call"
    if was == fate or (step.status == "stubbed" and fate in ("approval", "call")):
        return None
    return f"step {step.seq}, tool {step.name!r}, was recorded as one that {_FATES[was]}; now it {_FATES[fate]}"


def _ending(status: str, error_type: str | None) -> str:
    return f"{status} ({error_type})" if error_type else status


class _NoModel:
    records_spans = True

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        raise AssertionError("a sealed journal asks no model")


class _NoTools:
    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> None:
        raise AssertionError("a sealed journal calls no tool")


class _RecordedTools:
    """Tool calls beside a live model: as in a shadow, but what was not recorded is read only when that is asked for."""

    def __init__(self, steps: list[Step], journal: Journal, *, live_reads: bool) -> None:
        self._steps = steps
        self._journal = journal
        self._live_reads = live_reads
        self._shadow: ShadowTools | None = None

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> Answer | None:
        if self._shadow is None:  # from where the record was left, its later answers come first
            at = self._journal.divergence.seq if self._journal.divergence else 0
            self._shadow = ShadowTools([*self._steps[at:], *self._steps[:at]])
        try:
            answer = await self._shadow.answer(contract, arguments, asks=asks)
        except RunFailed:  # a read after a write: it sees another world than the run saw, which is then asked for
            answer = None
        if answer is None and contract.effect != "pure" and not self._live_reads:
            raise RunFailed(
                "unscored",
                f"the replay reads {contract.name!r} with arguments the run did not use: {arguments!r}",
                remedy="--live-reads carries such reads out",
            )
        return answer


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
