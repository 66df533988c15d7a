"""Steps of a run, and its seams: to models, to the record, and to what kind of run it is."""

from __future__ import annotations

from typing import Any, Literal, NamedTuple, Protocol

import msgspec

from lockgate.money import Nano
from lockgate.results import Usage
from lockgate.tools.model import Approval, Ruling
from lockgate.versions.model import ModelRef, ToolContract

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
    from_cache: bool | None = None  # a read that this run made before; None: that is not looked for. Not stored
    saved_seconds: float = 0.0  # what it took then. Not stored
    started_at: float = 0.0
    ended_at: float | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """What a model answered: the assistant ``message`` of chat completions, and what it cost."""

    message: dict[str, Any]
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_nano: int = 0
    model_served: str = ""
    stands_in: bool = False  # triage's model answered, or the cache: it does not tell what the asked one is by now
    fingerprint: str | None = None  # of the provider's configuration, where it states one
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


class Suspend(BaseException):
    """The run must end here and wait for a person. Not an Exception: an agent's code must not swallow it."""

    def __init__(self, approval_id: str) -> None:
        super().__init__(approval_id)
        self.approval_id = approval_id


class Answer(NamedTuple):
    """A tool call answered without carrying it out. ``stubbed``: an intention only; ``replayed``: from the record."""

    result: Any = None
    error_type: str | None = None
    error: str | None = None
    stubbed: bool = False
    replayed: bool = False


class Held(NamedTuple):
    """Money held for one call of a paid tool."""

    id: str
    nano: Nano


class Purse(Protocol):
    """Where the calls of paid tools are held for, before they are made."""

    async def hold(self, tool: str) -> Held | None:
        """Hold what one call costs; None when it costs nothing.

        Raises what :meth:`ModelClient.complete` does: the call must not be made then.
        """
        ...

    async def settle(self, held: Held) -> None:
        """The call was made, whatever came of it."""
        ...

    async def release(self, held: Held) -> None:
        """The call was not made."""
        ...


class ToolMode(Protocol):
    """What kind of run this is, as far as tools go: live, an eval, or a shadow."""

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> Answer | None:
        """None: carry the call out. ``asks`` says that it would need an approval. May raise :class:`RunFailed`."""
        ...


class Recorder(Protocol):
    """Where steps are kept. What ``started``, ``waiting`` and ``claim`` return is durable."""

    async def started(self, step: Step) -> None:
        """A write is about to happen."""
        ...

    async def ended(self, step: Step) -> None:
        """A step is done, failed or stubbed. Durable on return when its effect is ``write``."""
        ...

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        """The step needs an approval: keep both in one transaction."""
        ...

    async def decision(self, step: Step) -> Approval:
        """The approval that a recorded step waits for."""
        ...

    async def claim(self, step: Step, approval: Approval) -> None:
        """Take the approved call, once. Raises :class:`~lockgate.errors.Refused` or ``Conflict``."""
        ...
