"""Tool calls of a shadow: answered from what the primary run recorded, so that nothing in the world changes. Pure."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from typing import Any

from lockgate.errors import RunFailed
from lockgate.runtime.model import Answer, Step
from lockgate.tools.contracts import hash_of, stubbed_result
from lockgate.versions.model import ToolContract


class ShadowTools:
    """A :class:`~lockgate.runtime.model.ToolMode` over the primary's steps.

    - A pure tool is carried out.
    - A write is an intention: stubbed, with the primary's own result where it made the same call.
    - A read that the primary made too is answered from its record.
    - Any other read goes live as long as neither run has written: after that it would see another world than the
      primary saw, and the shadow ends ``unscored``.
    """

    def __init__(self, primary: Sequence[Step]) -> None:
        calls = [step for step in primary if step.kind == "tool"]
        self._recorded: defaultdict[tuple[str, str], deque[Step]] = defaultdict(deque)
        for step in calls:
            if step.status in ("done", "failed", "stubbed"):
                self._recorded[step.name, hash_of(step.request)].append(step)
        self._writers = {step.name for step in calls if step.effect == "write"}
        # A write that was refused or invalid changed nothing; one that raised may have.
        changing = (None, "tool_failed", "outcome_unknown")
        self._wrote = any(
            step.effect == "write" and step.status in ("started", "done", "failed") and step.error_type in changing
            for step in calls
        )

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> Answer | None:
        """See :class:`~lockgate.runtime.model.ToolMode`. Raises :class:`RunFailed` (``unscored``)."""
        if contract.effect == "pure" and not asks:
            return None
        recorded = self._next(contract.name, arguments)
        if contract.effect == "write" or asks or contract.name in self._writers:
            self._wrote = True
            if recorded is None:
                return Answer(result=stubbed_result(contract, arguments), stubbed=True)
            return _replayed(recorded, stubbed=True)
        if recorded is not None:
            return _replayed(recorded, stubbed=False)
        if self._wrote:
            raise RunFailed(
                "unscored",
                f"the shadow reads {contract.name!r} with arguments the primary did not use, after a write",
            )
        return None

    def _next(self, name: str, arguments: dict[str, Any]) -> Step | None:
        """The primary's result for this call; when it made the same call several times, one after another."""
        waiting = self._recorded.get((name, hash_of(arguments)))
        if not waiting:
            return None
        return waiting.popleft() if len(waiting) > 1 else waiting[0]


def _replayed(step: Step, *, stubbed: bool) -> Answer:
    return Answer(result=step.response, error_type=step.error_type, error=step.error, stubbed=stubbed, replayed=True)
