"""What a model call costs: the project's ``prices.yaml`` first, then the table bundled with ``genai-prices``.

Prices are integers of nano-USD per million tokens, worked out once a model, so that a cost is a few integer
operations. ``genai-prices`` takes a tenth of a second to import; that happens when a model is first looked up in it.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate import clock as clocks
from lockgate.errors import InputError, Unavailable
from lockgate.money import Nano, to_nano
from lockgate.project.reload import stamp
from lockgate.results import Usage
from lockgate.settings.catalogue import ModelPrice
from lockgate.settings.model import Snapshot

if TYPE_CHECKING:
    from lockgate.limits.pricefile import PriceRow

log = logging.getLogger(__name__)

MILLION = 1_000_000
_FOUND = 1000  # prices that are kept at hand: where every model has one, callers name as many as they like

INPUT_OVERHEAD = 512
"""Input tokens a provider may add of its own (chat template, tool preamble) beyond one a byte of the request."""


TOOLS = "tools"
"""The name in prices.yaml under which tools have their prices: ``tools: {web_search: {request: 0.005, …}}``."""

OWN_MACHINES = "ollama"
"""A well-known provider that is no service: its models cost nothing by the token."""


class Rates(msgspec.Struct, frozen=True):
    """Nano-USD per million tokens, for calls of more than ``above`` input tokens.

    The dearest rates are over cache writes and media too: what such a call can cost at worst.
    """

    above: int
    input: int
    cached: int
    output: int
    dearest_input: int
    dearest_output: int
    cache_write: int | None = None  # None: as input


class Price(msgspec.Struct, frozen=True):
    """One model's price: base rates, the tiers above them (crossing one reprices the whole call), and nano-USD for
    each request."""

    base: Rates
    tiers: tuple[Rates, ...] = ()
    request: Nano = 0

    def cost(self, usage: Usage) -> Nano:
        """What the usage costs, rounded up to a nano-USD."""
        rates = self.base
        for tier in self.tiers:
            if usage.input_tokens > tier.above:
                rates = tier
        cached, written = usage.cached_tokens, usage.cache_write_tokens
        total = (usage.input_tokens - cached) * rates.input + cached * rates.cached + usage.output_tokens * rates.output
        if written and rates.cache_write is not None:
            total += written * (rates.cache_write - rates.input)
        return -(-total // MILLION) + self.request

    def bound(self, request_bytes: int, max_output_tokens: int, n: int = 1, extra_input_tokens: int = 0) -> Nano:
        """The most a call can cost: a token is at least one byte of UTF-8, and every output may be used up.

        ``extra_input_tokens``: what an input named by reference (an image's URL) may add.
        """
        tokens_in = request_bytes + INPUT_OVERHEAD + extra_input_tokens
        dearest_in, dearest_out = self.base.dearest_input, self.base.dearest_output
        for tier in self.tiers:
            if tokens_in > tier.above:
                dearest_in, dearest_out = max(dearest_in, tier.dearest_input), max(dearest_out, tier.dearest_output)
        return -(-(tokens_in * dearest_in + max_output_tokens * n * dearest_out) // MILLION) + self.request


FREE = Price(Rates(0, 0, 0, 0, 0, 0))


class Prices:
    """Prices by provider and model. ``overrides`` is a ``prices.yaml`` (see ``pricefile.py``), or None."""

    def __init__(self, overrides: Path | None = None, clock: clocks.Clock = clocks.system) -> None:
        self.problem: str | None = None
        """What is wrong with the file as it stands; None when it is in force."""
        self._path = overrides
        self._clock = clock
        self._rows: dict[str, dict[str, PriceRow]] | None = None
        self._seen = None if overrides is None else stamp([overrides])
        self._set: dict[str, Price] = {}
        self._found: dict[tuple[str, str, str], Price] = {}

    def price(self, provider_kind: str, provider_name: str, model: str) -> Price:
        """The model's price. Raises :class:`InputError` when there is none.

        Looked for in ``prices.yaml`` under the provider's name; then in the bundled table under the provider's name,
        else under its kind. Models of kind ``local``, and of the provider ``ollama``, run on machines of one's own:
        they cost nothing unless ``prices.yaml`` says otherwise.
        """
        key = (provider_kind, provider_name, model)
        known = self._found
        price = known.get(key)
        if price is None:
            price = (
                self._as_set(provider_name, model)
                or self._own(provider_name, model)
                or self._bundled(provider_kind, provider_name, model)
            )
            if price is None:
                row = f"{provider_name}: {{{model!r}: {{input: 0.0, output: 0.0}}}}"
                # its name alone: callers from elsewhere read this, and need not know where the project lies
                where = self._path.name if self._path else "prices.yaml, and `prices: prices.yaml` to lockgate.yaml"
                raise InputError(
                    f"no price is known for the model {model!r} of the provider {provider_name!r}",
                    remedy=f"add it to {where} (USD per million tokens): {row}",
                )
            if len(known) >= _FOUND:
                known.clear()
            known[key] = price  # of what was in force when it was looked up
        return price

    def tool(self, name: str) -> Nano | None:
        """What one call of a tool costs; None when it has no price."""
        price = self._as_set(TOOLS, name) or self._own(TOOLS, name)
        return None if price is None or not price.request else price.request

    def batch_price(self, provider_kind: str, provider_name: str, model: str) -> Price:
        """The model's price for the requests of a batch; where none is known for batches, its ordinary one."""
        row = None if self._as_set(provider_name, model) else self._row(provider_name, model)
        if row is not None:
            return _of_row(row, share=row.batch)
        ordinary = self.price(provider_kind, provider_name, model)
        if self._as_set(provider_name, model):
            return ordinary
        return self._bundled(provider_kind, provider_name, model, {"processing": "batch"}) or ordinary

    def use(self, settings: Snapshot) -> None:
        """Let the prices that people set go before the files'."""
        self._set = {one.scope.model: _of_row(ModelPrice(**one.value)) for one in reversed(settings.all("price"))}
        self._found = {}

    def read(self) -> None:
        """Read the file now. Raises :class:`InputError` when it cannot be taken."""
        from lockgate.limits.pricefile import read_prices

        if self._path is not None:
            self._rows = read_prices(self._path)

    def refresh(self, overrides: Path | None) -> bool:
        """Look whether the file was changed (or is another), and take it if it is good. True when it is in force now.

        A file that cannot be read leaves the last good one in force.
        """
        from lockgate.limits.pricefile import read_prices

        now = None if overrides is None else stamp([overrides])
        if now == self._seen and (self._rows is not None or self.problem is not None):
            return False
        self._seen = now
        try:
            rows = {} if overrides is None else read_prices(overrides)
        except InputError as wrong:
            self.problem = wrong.message
            kept = "the last good ones stay in force" if self._rows is not None else "models cannot be priced"
            log.warning("prices are not taken, %s: %s", kept, wrong.message)
            return False
        first, self.problem = self._rows is None, None
        self._path, self._rows, self._found = overrides, rows, {}
        if not first:
            log.info("prices were changed, and are in force")
        return not first

    def cost(self, provider_kind: str, provider_name: str, model: str, usage: Usage) -> Nano:
        """What the usage costs."""
        return self.price(provider_kind, provider_name, model).cost(usage)

    def bound(
        self,
        provider_kind: str,
        provider_name: str,
        model: str,
        *,
        request_bytes: int,
        max_output_tokens: int,
        n: int = 1,
        extra_input_tokens: int = 0,
    ) -> Nano:
        """The most that a call can cost; see :meth:`Price.bound`."""
        price = self.price(provider_kind, provider_name, model)
        return price.bound(request_bytes, max_output_tokens, n, extra_input_tokens)

    def _as_set(self, provider: str, model: str) -> Price | None:
        return self._set.get(f"{provider}/{model}") or self._set.get(f"{provider}/*")

    def _own(self, provider: str, model: str) -> Price | None:
        row = self._row(provider, model)
        return None if row is None else _of_row(row)

    def _row(self, provider: str, model: str) -> PriceRow | None:
        if self._path is None:
            return None
        if self._rows is None:
            if self.problem is not None:  # no caller's fault
                raise Unavailable("the prices of this gateway cannot be read", remedy="its log says what is wrong")
            self.read()
        rows = (self._rows or {}).get(provider, {})
        return rows.get(model) or rows.get("*")

    def _bundled(self, kind: str, provider: str, model: str, context: dict[str, str] | None = None) -> Price | None:
        if kind == "local" or provider == OWN_MACHINES:
            return FREE
        from genai_prices.data_snapshot import get_snapshot

        snapshot = get_snapshot()
        for provider_id in dict.fromkeys((provider, kind)):
            try:
                _, found = snapshot.find_provider_model(model, None, provider_id, None)
            except LookupError:
                continue
            return _compiled(found, datetime.fromtimestamp(self._clock(), UTC), context)
        return None


def _of_row(row: PriceRow | ModelPrice, share: float = 1.0) -> Price:
    rate_in, rate_out = to_nano(row.input * share), to_nano(row.output * share)
    cached = rate_in if row.cached is None else to_nano(row.cached * share)
    request = to_nano(row.request * share)
    return Price(Rates(0, rate_in, cached, rate_out, max(rate_in, cached), rate_out), request=request)


def _compiled(model: Any, at: datetime, context: dict[str, str] | None = None) -> Price | None:
    """A ``genai_prices`` model as integers; at the dearest hour of the day where the hour matters."""
    from genai_prices.types import ConditionalPrice, TimeOfDateConstraint

    choices = [model.get_prices(at, context)]
    if context is None and not hasattr(model.prices, "calc_price"):
        conditional: list[ConditionalPrice] = model.prices
        choices += [row.prices for row in conditional if isinstance(row.constraint, TimeOfDateConstraint)]
    compiled = [price for price in map(_one, choices) if price is not None]
    return max(compiled, key=lambda price: (price.base.output, price.base.input), default=None)


def _one(prices: Any) -> Price | None:
    """None when the model is not priced by the token (images, audio minutes…): its cost could not be told."""
    if prices.input_mtok is None and prices.output_mtok is None:
        return None
    starts = sorted({tier.start for rate in vars(prices).values() for tier in getattr(rate, "tiers", ())})
    per_request = prices.requests_kcount
    return Price(
        _rates(prices, 0),
        tuple(_rates(prices, start) for start in starts),
        0 if per_request is None else -(-to_nano(getattr(per_request, "base", per_request)) // 1000),
    )


def _rates(prices: Any, above: int) -> Rates:
    rates = {name: _rate(rate, above + 1) for name, rate in vars(prices).items() if name.endswith("_mtok")}
    known = {name: rate for name, rate in rates.items() if rate is not None}
    rate_in = known.get("input_mtok", 0)
    return Rates(
        above,
        rate_in,
        known.get("cache_read_mtok", rate_in),
        known.get("output_mtok", 0),
        max((rate for name, rate in known.items() if not name.startswith("output")), default=0),
        max((rate for name, rate in known.items() if name.startswith("output")), default=0),
        known.get("cache_write_mtok"),
    )


def _rate(rate: Any, input_tokens: int) -> int | None:
    if rate is None:
        return None
    usd = getattr(rate, "base", rate)
    for tier in getattr(rate, "tiers", ()):
        if input_tokens > tier.start:
            usd = tier.price
    return to_nano(usd)
