"""Counters, gauges and histograms in the Prometheus text format, with the GenAI semantic-convention names.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/ (0.0.4). Names:
https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-metrics/, dots as underscores and the unit at the end.
Several processes behind one URL each keep a registry: one writes its :meth:`Registry.snapshot` where the others find
it, and :func:`render` adds them up.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import msgspec

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

DURATION_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
"""Seconds, as the conventions advise."""
TOKEN_BUCKETS = tuple(float(4**power) for power in range(14))
"""Tokens, as the conventions advise: 1 … 67,108,864."""

MOST_SERIES = 1000
"""Combinations of labels that a counter or histogram keeps apart: callers name models, and must not fill memory so."""
OVERFLOW = "other"
"""What the labels of every further combination are."""

Kind = Literal["counter", "gauge", "histogram"]
Labels = tuple[str, ...]


class Family(msgspec.Struct, kw_only=True):
    """One metric and its values. A histogram's value is its sum and its bucket counts (not cumulative)."""

    name: str
    kind: Kind
    help: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    values: dict[Labels, list[float]] = msgspec.field(default_factory=dict)


class Metric:
    """One metric. Its label values are given in the order of its label names."""

    def __init__(self, family: Family, lock: threading.Lock) -> None:
        self._family = family
        self._values = family.values
        self._buckets = family.buckets
        self._lock = lock

    def _new(self, labels: Labels) -> list[float]:
        """The cell of labels that have none yet."""
        if len(labels) != len(self._family.labels):
            raise TypeError(f"{self._family.name} has the labels {self._family.labels}, not {labels}")
        if len(self._values) >= MOST_SERIES and self._family.kind != "gauge":
            labels = (OVERFLOW,) * len(labels)
            if labels in self._values:
                return self._values[labels]
        size = len(self._buckets) + 2 if self._family.kind == "histogram" else 1
        cell = self._values[labels] = [0.0] * size
        return cell


class Counts:
    """One series of a counter: see :meth:`Counter.series`."""

    __slots__ = ("_cell",)

    def __init__(self, cell: list[float]) -> None:
        self._cell = cell

    def add(self, amount: float = 1.0) -> None:
        self._cell[0] += amount


class Counter(Metric):
    """Only goes up."""

    def add(self, amount: float = 1.0, *labels: str) -> None:
        with self._lock:
            (self._values.get(labels) or self._new(labels))[0] += amount

    def series(self, *labels: str) -> Counts:
        """Where one combination of labels is counted, for those that come back to it with each call.

        Also between threads, without a lock: the interpreter changes threads at calls and jumps, not inside of an
        addition to an item of a list.
        """
        with self._lock:
            return Counts(self._values.get(labels) or self._new(labels))


class Gauge(Metric):
    """Stands at a value. Over several processes it is summed."""

    def set(self, value: float, *labels: str) -> None:
        with self._lock:
            (self._values.get(labels) or self._new(labels))[0] = value

    def replace(self, values: Mapping[Labels, float]) -> None:
        """Set these, and forget every other."""
        with self._lock:
            self._values.clear()
            for labels, value in values.items():
                self._new(labels)[0] = value


class Observations:
    """One series of a histogram: see :meth:`Histogram.series`."""

    __slots__ = ("_buckets", "_cell")

    def __init__(self, cell: list[float], buckets: tuple[float, ...]) -> None:
        self._cell = cell
        self._buckets = buckets

    def observe(self, value: float) -> None:
        cell = self._cell
        cell[0] += value
        cell[bisect_left(self._buckets, value) + 1] += 1.0


class Histogram(Metric):
    """Counts observations by size."""

    def observe(self, value: float, *labels: str) -> None:
        with self._lock:
            Observations(self._values.get(labels) or self._new(labels), self._buckets).observe(value)

    def series(self, *labels: str) -> Observations:
        """As :meth:`Counter.series`."""
        with self._lock:
            return Observations(self._values.get(labels) or self._new(labels), self._buckets)


class Registry:
    """The metrics of one process. Safe between threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._families: dict[str, Family] = {}

    def counter(self, name: str, help: str, labels: Sequence[str] = ()) -> Counter:
        """``name`` ends in ``_total``."""
        return Counter(self._add(Family(name=name, kind="counter", help=help, labels=tuple(labels))), self._lock)

    def gauge(self, name: str, help: str, labels: Sequence[str] = ()) -> Gauge:
        return Gauge(self._add(Family(name=name, kind="gauge", help=help, labels=tuple(labels))), self._lock)

    def histogram(
        self, name: str, help: str, labels: Sequence[str] = (), buckets: Sequence[float] = DURATION_BUCKETS
    ) -> Histogram:
        """``buckets`` are upper bounds, ascending, without infinity."""
        family = Family(name=name, kind="histogram", help=help, labels=tuple(labels), buckets=tuple(buckets))
        return Histogram(self._add(family), self._lock)

    def snapshot(self) -> bytes:
        """Everything as it stands, for :func:`render` in this or another process."""
        with self._lock:
            return msgspec.msgpack.encode(list(self._families.values()))

    def render(self) -> str:
        """This process alone in the text format."""
        return render([self.snapshot()])

    def _add(self, family: Family) -> Family:
        if family.name in self._families:
            raise ValueError(f"the metric {family.name!r} is already defined")
        self._families[family.name] = family
        return family


class GenAI:
    """The metrics a gateway keeps, by their standard names."""

    def __init__(self, registry: Registry) -> None:
        model = ("gen_ai_operation_name", "gen_ai_provider_name", "gen_ai_request_model")
        self.operation_seconds = registry.histogram(
            "gen_ai_client_operation_duration_seconds",
            "Duration of a model call, upstream included.",
            (*model, "error_type"),
        )
        self.tokens = registry.histogram(
            "gen_ai_client_token_usage",
            "Tokens of a model call, by type (input, output).",
            (*model, "gen_ai_token_type"),
            TOKEN_BUCKETS,
        )
        self.first_chunk_seconds = registry.histogram(
            "gen_ai_client_operation_time_to_first_chunk_seconds",
            "Time until the first chunk of a streamed answer.",
            model,
        )
        self.agent_seconds = registry.histogram(
            "gen_ai_invoke_agent_duration_seconds",
            "Duration of an agent's run.",
            ("gen_ai_agent_name", "error_type"),
        )
        self.cost_usd = registry.counter(
            "lockgate_cost_usd_total",
            "Money spent on models, in USD.",
            ("environment", "agent", "gen_ai_request_model"),
        )
        self.refusals = registry.counter(
            "lockgate_refusals_total", "Calls refused, by the rule that refused them.", ("environment", "limit")
        )
        self.shadows = registry.counter(
            "lockgate_shadows_total",
            "Shadow runs, by outcome (completed, failed, lost, dropped).",
            ("environment", "outcome"),
        )
        self.spans_dropped = registry.gauge("lockgate_spans_dropped", "Spans this process could not record.")


def render(snapshots: Iterable[bytes]) -> str:
    """The sum of the snapshots in the Prometheus text format. Raises ValueError when they disagree on a metric."""
    merged: dict[str, Family] = {}
    for snapshot in snapshots:
        for family in msgspec.msgpack.decode(snapshot, type=list[Family]):
            into = merged.setdefault(family.name, family)
            if into is family:
                continue
            if (into.kind, into.labels, into.buckets) != (family.kind, family.labels, family.buckets):
                raise ValueError(f"the metric {family.name!r} has two shapes")
            for labels, cell in family.values.items():
                held = into.values.get(labels, [0.0] * len(cell))
                into.values[labels] = [a + b for a, b in zip(held, cell, strict=True)]
    return "".join(_lines(merged[name]) for name in sorted(merged))


def _lines(family: Family) -> str:
    help = family.help.replace("\\", "\\\\").replace("\n", "\\n")
    lines = [f"# HELP {family.name} {help}\n# TYPE {family.name} {family.kind}\n"]
    for labels, cell in sorted(family.values.items()):
        if family.kind != "gauge" and not any(cell):
            continue  # a series that was found, and nothing has been noted in it yet
        pairs = [f'{name}="{_escaped(value)}"' for name, value in zip(family.labels, labels, strict=True)]
        if family.kind != "histogram":
            lines.append(f"{family.name}{_braces(pairs)} {_number(cell[0])}\n")
            continue
        total = 0.0
        for bound, count in zip((*family.buckets, math.inf), cell[1:], strict=True):
            total += count
            bucket = _braces([*pairs, 'le="' + _number(bound) + '"'])
            lines.append(f"{family.name}_bucket{bucket} {_number(total)}\n")
        lines.append(f"{family.name}_sum{_braces(pairs)} {_number(cell[0])}\n")
        lines.append(f"{family.name}_count{_braces(pairs)} {_number(total)}\n")
    return "".join(lines)


def _braces(pairs: list[str]) -> str:
    return "{" + ",".join(pairs) + "}" if pairs else ""


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)
