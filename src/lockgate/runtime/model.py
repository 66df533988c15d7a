"""Steps of a run, and the seam to models."""

from __future__ import annotations

from typing import Any, Literal, Protocol

import msgspec

from lockgate.results import Usage
from lockgate.versions.model import ModelRef

StepKind = Literal["model", "tool"]
StepStatus = Literal["started", "waiting", "done", "failed", "stubbed"]
"""``started``: a write was about to happen; what came of it is unknown. ``waiting``: for an approval.
``stubbed``: an intention that was recorded and not carried out (evals and shadows)."""


class Step(msgspec.Struct, kw_only=True):
    """One act of a run: a model call or a tool call, as it was asked for and as it ended.

    ``request`` is the model call's body, or the tool's arguments; ``response`` the completion or the result.
    A failed step has ``error_type`` (a word of ``docs/runs.md``) and ``error``. Times are Unix seconds.
    """

    seq: int
    kind: StepKind
    name: str  # the model as "provider/name", or the tool
    request_hash: str
    request: Any
    status: StepStatus = "started"
    effect: str | None = None  # of a tool
    response: Any = None
    error_type: str | None = None
    error: str | None = None
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_nano: int = 0
    replayed: bool = False  # a shadow's: answered from the primary's record
    started_at: float = 0.0
    ended_at: float | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered: the assistant ``message`` of chat completions, and what it cost."""

    message: dict[str, Any]
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_nano: int = 0
    model_served: str = ""
    finish_reason: str | None = None


class ModelClient(Protocol):
    """The seam to models. ``records_spans`` says that the other side writes the ``chat`` span (a gateway does),
    so that tokens and cost are counted once."""

    records_spans: bool

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """Ask once. ``body`` is a chat-completions request without ``model``; ``timeout`` is in seconds.

        Raises :class:`~lockgate.errors.UpstreamError`, :class:`~lockgate.errors.LimitExceeded`,
        :class:`~lockgate.errors.Refused` or :class:`TimeoutError`; never waits past the timeout.
        """
        ...


def wire_name(model: ModelRef) -> str:
    """``provider/name``, as the gateway knows models."""
    return f"{model.provider}/{model.name}"
