"""Where others plug into a call. Each of them is None when it is off, and then costs nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from lockgate.limits.model import Hold, LeaseNeeded
from lockgate.limits.prices import Price
from lockgate.money import Nano

if TYPE_CHECKING:
    from lockgate.gateway.calls.call import Attempt, Call
    from lockgate.gateway.protocols.model import Request


class Meter(Protocol):
    """Who may call how often, and who pays."""

    def admit(self, call: Call) -> None:
        """Once a call, before anything else; raises LimitExceeded or Refused."""
        ...

    def hold(self, call: Call, price: Price, size: int, max_tokens: int, n: int, extra: int) -> Hold:
        """Once an attempt: reserve the most it can cost. ``extra``: input tokens that its bytes do not bound."""
        ...

    async def lease(self, needed: LeaseNeeded) -> None:
        """When :meth:`hold` raised LeaseNeeded: get more of the shared caps it names. The only part that waits."""
        ...

    def mark_sent(self, hold: Hold) -> None: ...

    def settle(self, call: Call, hold: Hold, actual: Nano, tokens: int | None) -> None:
        """Charge what an attempt cost. ``tokens`` None: as many as were held."""
        ...

    def release(self, call: Call, hold: Hold) -> None:
        """An attempt surely cost nothing."""
        ...

    def leave(self, call: Call) -> None:
        """Once for each call that was admitted, however it ended."""
        ...


class StreamGuard(Protocol):
    """Looks at a stream on its way to the client. Both raise Refused to end it."""

    @property
    def is_slow(self) -> bool:
        """Whether to look in a thread, so that other calls go on."""
        ...

    def feed(self, data: bytes) -> bytes:
        """Takes what would go out, in the client's protocol; gives what may go out now."""
        ...

    def finish(self) -> bytes:
        """The rest, when the stream has ended. Raises :class:`TryAgain` where nothing was given yet."""
        ...


class Guards(Protocol):
    """What is checked and changed around the model."""

    async def before(self, call: Call) -> None:
        """May change ``call.request``; raises Refused to block."""
        ...

    def sent(self, attempt: Attempt, body: bytes) -> bytes:
        """What this attempt's upstream gets, in the upstream's protocol: the body, or another."""
        ...

    async def after_answer(self, call: Call, body: bytes) -> bytes:
        """The whole answer in the client's protocol; raises Refused to block, :class:`TryAgain` for one repair."""
        ...

    def on_stream(self, call: Call) -> StreamGuard | None:
        """None: the bytes pass as they are."""
        ...


class TryAgain(Exception):
    """Raised by :meth:`Guards.after_answer`: ask once more, with this request."""

    def __init__(self, request: Request) -> None:
        super().__init__("ask once more")
        self.request = request


class Hit(NamedTuple):
    """An answer that was kept."""

    body: bytes
    content_type: str
    kind: str  # exact | semantic | …
    saved_nano: Nano
    similarity: float | None = None


class Cache(Protocol):
    """Answers that were given before."""

    def wants(self, call: Call) -> bool:
        """Whether this call may be answered from, or kept in, the cache."""
        ...

    async def lookup(self, call: Call) -> Hit | None: ...

    async def store(self, call: Call, body: bytes, content_type: str) -> None:
        """After a good answer that was settled and sent."""
        ...

    def leave(self, call: Call) -> None:
        """Once for each call that was looked up, however it ended."""
        ...


class Router(Protocol):
    """Chooses the model before any is tried."""

    async def route(self, call: Call) -> None:
        """May set ``call.provider`` and ``call.model``."""
        ...

    def directed(self, call: Call, host: str) -> None:
        """Each attempt of a call with notes, before it is made: it goes to this host."""
        ...

    def settled(self, attempt: Attempt) -> None:
        """Each attempt, when it is over and settled, before it is written down."""
        ...
