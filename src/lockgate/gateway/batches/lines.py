"""A batch's lines: each request checked, bounded and written anew on its way in; what each answer used on its way out.
Pure.

https://platform.openai.com/docs/guides/batch
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError, LockgateError
from lockgate.gateway.calls.call import DEFAULT_MAX_TOKENS, REFERENCE_TOKENS
from lockgate.gateway.guardrails.schemas import asked_schema
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.dialect import Dialect
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.protocols.passages import DIALECTS, passage_to
from lockgate.limits.budgets import estimate_tokens
from lockgate.limits.prices import INPUT_OVERHEAD, MILLION, Price
from lockgate.money import Nano

if TYPE_CHECKING:
    from lockgate.gateway.batches.guarding import RequestLines

MAX_LINE = 32 * 1024 * 1024
"""Bytes of one line, as of one request."""
MAX_SCHEMA = 64 * 1024
"""Bytes of a schema that is kept until the answers are there."""
MAX_REQUESTS = 50_000
"""Lines of a batch, as OpenAI allows."""

_BY_PATH = {dialect.path.removeprefix("/v1"): dialect for dialect in DIALECTS if dialect.name != "messages"}

Check = Callable[[str, Request | None], None]
"""Raises for a model (``provider/name``) or a request to it that its sender may not make; None for a request of a
protocol that Lockgate does not read."""


class Counted(msgspec.Struct, kw_only=True):
    """What a batch's input can cost at most. Sums over its lines."""

    model: str = ""  # as the provider names it; all lines have the same
    endpoint: str = ""
    requests: int = 0
    input_tokens: int = 0  # no line's input can be more
    longest: int = 0  # of one line
    output_tokens: int = 0  # no line's output can be more
    units: int = 0  # how often a price by the request is due
    estimate: int = 0  # of all tokens, for budgets in tokens
    tools: list[str] = []  # that lines offer to the model
    unbounded: str | None = None  # a parameter whose cost cannot be bounded, and its line
    guarded: str = ""  # the checks that the lines went through; see Policy.lines
    canary: str = ""  # that was planted in them
    schema: dict[str, Any] | None = None  # that every line asks its answer to fit; {}: any JSON; None: none
    one_schema: bool = True  # False: lines ask for different ones, or for one that is too long to be kept

    def bound(self, price: Price) -> Nano:
        """The most that the batch can cost at this price."""
        rates_in, rates_out = price.base.dearest_input, price.base.dearest_output
        for tier in price.tiers:
            if self.longest > tier.above:
                rates_in, rates_out = max(rates_in, tier.dearest_input), max(rates_out, tier.dearest_output)
        by_token = -(-(self.input_tokens * rates_in + self.output_tokens * rates_out) // MILLION)
        return by_token + self.requests + self.units * price.request  # each one's cost is rounded up


def dialect_of(endpoint: str) -> Dialect | None:
    """The protocol of a batch's requests; None for one that Lockgate does not read."""
    return _BY_PATH.get(endpoint.removeprefix("/v1"))


def schema_of(request: Request) -> dict[str, Any] | None:
    """The schema that a request asks its answer to fit."""
    asked = asked_schema(request)
    return None if asked is None else asked.schema


class Used(msgspec.Struct, kw_only=True):
    """What a batch's answers say was used."""

    answers: int = 0
    without_usage: int = 0  # good answers that do not tell
    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    nano: Nano = 0


class Lines:
    """Cuts bytes into lines, none longer than :data:`MAX_LINE`."""

    def __init__(self) -> None:
        self._left = bytearray()
        self._looked = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are whole now, without their ends."""
        left = self._left
        left += data
        end = left.rfind(b"\n", self._looked)
        if end < 0:
            self._looked = len(left)
            if len(left) > MAX_LINE:
                raise InputError(f"a line is longer than {MAX_LINE} bytes")
            return []
        lines = bytes(left[:end]).split(b"\n")
        del left[: end + 1]
        self._looked = len(left)
        return lines

    def finish(self) -> list[bytes]:
        """The last line, when it has no end."""
        last, self._left = bytes(self._left), bytearray()
        return [last] if last else []


def model_asked(line: bytes) -> str | None:
    """The model that a line asks for, when it looks like a batch's request; else None."""
    try:
        fields = f.take_apart(line, "a line")
        if not {"custom_id", "url", "body"} <= set(fields):
            return None
        return f.model_name(f.take_apart(bytes(fields["body"]), "a body"))
    except InputError:
        return None


def no_request() -> InputError:
    """For a file of blank lines, or of none."""
    return InputError("the batch's file holds no request", remedy="send a line of JSON for each")


def check_shape(line: bytes, number: int) -> None:
    """InputError, naming the line, for what is no request of a batch, to whatever provider."""
    try:
        fields, url, body = _parted(line)
        f.field(fields, "custom_id", str, ...)
        dialect = dialect_of(url)
        if dialect is None:
            f.model_name(f.take_apart(body, "a body"))
        else:
            dialect.read(body)
    except InputError as wrong:
        _name_line(wrong, number)
        raise


def _parted(line: bytes) -> tuple[f.Fields, str, bytes]:
    """A line's fields, its url and its body."""
    fields = f.take_apart(line, '{"custom_id": …, "method": "POST", "url": …, "body": …}')
    url = f.field(fields, "url", str, ...)
    if f.field(fields, "method", str, ...) != "POST" or "body" not in fields:
        raise InputError("it is no POST with a body", remedy="batches take such requests only")
    return fields, url, bytes(fields["body"])


def _name_line(wrong: LockgateError, number: int) -> None:
    wrong.message = f"line {number}: {wrong.message}"
    wrong.args = (wrong.message,)


class BatchInput:
    """The lines of an input file on their way to a provider of this name and kind.

    ``check`` is asked about each, and ``guard`` looks into it; ``others`` are the names of the project's other
    providers, which a line's model may not begin with.
    """

    def __init__(
        self,
        provider: str,
        kind: str,
        check: Check,
        others: Collection[str] = (),
        guard: RequestLines | None = None,
    ) -> None:
        self.counted = Counted() if guard is None else guard.begin()
        self._guard = guard
        self._provider = provider
        self._kind = kind
        self._check = check
        self._others = frozenset(others) - {provider}
        self._lines = Lines()
        self._number = 0

    def feed(self, data: bytes) -> bytes:
        """Takes what came; gives what goes on. Raises InputError or Refused, naming the line."""
        return b"".join([self._passed(line) for line in self._lines.feed(data)])

    def finish(self) -> bytes:
        """What is left to go on."""
        rest = b"".join([self._passed(line) for line in self._lines.finish()])
        if not self.counted.requests:
            raise no_request()
        return rest

    def _passed(self, line: bytes) -> bytes:
        self._number += 1
        if not line.strip():
            return b""
        try:
            return self._request(line)
        except LockgateError as wrong:
            _name_line(wrong, self._number)
            raise

    def _request(self, line: bytes) -> bytes:
        fields, url, body = _parted(line)
        counted = self.counted
        if counted.requests >= MAX_REQUESTS:
            raise InputError(f"a batch has at most {MAX_REQUESTS} requests", remedy="send several batches")
        if counted.requests and url != counted.endpoint:
            raise InputError(f"'url' is {url!r}, and the lines before have {counted.endpoint!r}")
        dialect, guard = dialect_of(url), self._guard
        if dialect is None:
            if guard is not None:
                guard.refuse(url)
            parts = f.take_apart(body, "a body")
            model = self._own_name(f.model_name(parts))
            self._check(f"{self._provider}/{model}", None)
            counted.unbounded = counted.unbounded or f"url {url}"
            sent = f.encode({**parts, "model": f.raw(model)})
        else:
            request = dialect.read(body)
            model = self._own_name(request.model)
            self._check(f"{self._provider}/{model}", request)
            if request.stream:
                raise InputError("'stream' is true", remedy="a batch's answers come whole: leave it out")
            schema = schema_of(request)  # the checks change texts only
            if guard is not None:
                request = guard.checked(request, schema, counted)
            sent = self._count(request, model, schema)
        if counted.requests and model != counted.model:
            raise InputError(
                f"'model' is {model!r}, and the lines before have {counted.model!r}", remedy="send a batch for each"
            )
        counted.model, counted.endpoint = model, url
        counted.requests += 1
        return f.encode({**fields, "body": msgspec.Raw(sent)}) + b"\n"

    def _count(self, request: Request, model: str, schema: dict[str, Any] | None) -> bytes:
        """Add the request to what is counted; gives its body as the provider is to have it."""
        counted, dialect = self.counted, request.dialect
        most = (request.max_tokens or DEFAULT_MAX_TOKENS) if dialect.has_output else 0
        extra = request.references * REFERENCE_TOKENS
        tokens_in = request.size + INPUT_OVERHEAD + extra
        counted.input_tokens += tokens_in
        counted.longest = max(counted.longest, tokens_in)
        counted.output_tokens += most * request.n
        counted.units += request.units
        counted.estimate += estimate_tokens(request.size, most, request.n) + extra
        for tool in request.offered():
            if tool not in counted.tools:
                counted.tools.append(tool)
        if request.unbounded is not None and counted.unbounded is None:
            counted.unbounded = f"{request.unbounded} (line {self._number})"
        if not counted.requests:
            counted.schema = schema
            if schema and len(f.encode(schema)) > MAX_SCHEMA:
                counted.schema, counted.one_schema = None, False
        elif schema != counted.schema:
            counted.schema, counted.one_schema = None, False
        return passage_to(dialect, self._kind).forward(request, model, most)

    def _own_name(self, model: str) -> str:
        first, slash, name = model.partition("/")
        if slash and first in self._others:
            raise InputError(
                f"'model' is {model!r}, and this file goes to provider {self._provider!r}",
                remedy="send a file for each provider",
            )
        return name if slash and first == self._provider else model


class BatchOutput:
    """Adds up what the answers of an output file used."""

    def __init__(self, endpoint: str, kind: str, price: Price) -> None:
        self.used = Used()
        self._price = price
        self._lines = Lines()
        dialect = dialect_of(endpoint)
        self._passage = None if dialect is None else passage_to(dialect, kind)

    def feed(self, data: bytes) -> None:
        for line in self._lines.feed(data):
            self._add(line)

    def finish(self) -> None:
        for line in self._lines.finish():
            self._add(line)

    def _add(self, line: bytes) -> None:
        if not line.strip():
            return
        used = self.used
        try:
            answer = _answer(line).response
        except f.UNREADABLE:
            used.answers += 1
            used.without_usage += 1
            return
        if answer is None or answer.status_code >= 400:
            return  # nothing is charged for it
        used.answers += 1
        outcome = None if self._passage is None else self._passage.outcome(bytes(answer.body))
        if outcome is None or outcome.usage is None:
            used.without_usage += 1
            return
        used.input_tokens += outcome.usage.input_tokens
        used.output_tokens += outcome.usage.output_tokens
        used.cached_tokens += outcome.usage.cached_tokens
        used.nano += self._price.cost(outcome.usage)


class _Response(msgspec.Struct):
    status_code: int = 0
    body: msgspec.Raw = msgspec.Raw(b"null")


class _Answer(msgspec.Struct):
    response: _Response | None = None


_answer = msgspec.json.Decoder(_Answer).decode
