"""What is read from the traces database, and what is deleted from it."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import msgspec
from sqlalchemy import Connection, RowMapping, delete, func, select, tuple_

from lockgate.storage.engine import Database
from lockgate.storage.schema import spans
from lockgate.telemetry import tree
from lockgate.telemetry.model import Span

_RECENT_SPANS = 200  # looked through for each trace wanted, so that listing does not read the whole table
_BODY = ("attributes", "events")
_LIGHT = [column for column in spans.columns if column.name not in _BODY]


class TraceSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the list of traces. ``name`` is its first span's; the figures count each model call once."""

    trace_id: str  # 32 hex
    name: str
    agent: str | None
    run_id: str | None
    totals: tree.Totals


class TraceStore:
    """Reads of one traces database, and retention."""

    def __init__(self, traces: Database) -> None:
        self._traces = traces

    def trace(self, trace_id: bytes) -> list[Span]:
        """Every span of the trace, oldest first; empty when it is not known."""
        statement = select(spans).where(spans.c.trace_id == trace_id).order_by(spans.c.start_ns, spans.c.span_id)
        with self._traces.read() as connection:
            return [_to_span(row) for row in connection.execute(statement).mappings()]

    def totals(self, trace_id: bytes) -> tree.Totals:
        """The figures of a trace without its payloads; the cost is the sum of its leaf model calls."""
        with self._traces.read() as connection:
            return tree.totals(tree.build(_light_spans(connection, [trace_id])[trace_id]))

    def traces_of_run(self, run_id: str) -> list[bytes]:
        """The traces that hold a span of the run, newest first."""
        statement = (
            select(spans.c.trace_id)
            .where(spans.c.run_id == run_id)
            .group_by(spans.c.trace_id)
            .order_by(func.max(spans.c.start_ns).desc())
        )
        with self._traces.read() as connection:
            return [bytes(trace_id) for trace_id in connection.execute(statement).scalars()]

    def traces_starting_with(self, prefix: str, *, limit: int = 2) -> list[bytes]:
        """Traces whose id starts with these hex digits (up to 32)."""
        low, high = (bytes.fromhex(prefix.ljust(32, filler)) for filler in "0f")
        statement = select(spans.c.trace_id).where(spans.c.trace_id.between(low, high)).distinct().limit(limit)
        with self._traces.read() as connection:
            return [bytes(trace_id) for trace_id in connection.execute(statement).scalars()]

    def recent(self, limit: int = 20, *, agent: str | None = None) -> list[TraceSummary]:
        """The newest traces first, as far as the newest ``200 * limit`` spans (of ``agent``, when given) tell."""
        latest = select(spans.c.trace_id, spans.c.start_ns).order_by(spans.c.start_ns.desc())
        if agent is not None:
            latest = latest.where(spans.c.agent == agent)
        window = latest.limit(_RECENT_SPANS * limit).subquery()
        newest = func.max(window.c.start_ns).desc()
        chosen = select(window.c.trace_id).group_by(window.c.trace_id).order_by(newest).limit(limit)
        with self._traces.read() as connection:
            ids = [bytes(trace_id) for trace_id in connection.execute(chosen).scalars()]
            found = _light_spans(connection, ids)
        return [_summary(trace_id, found[trace_id]) for trace_id in ids]

    def delete_before(self, start_ns: int, *, at_most: int = 10_000) -> int:
        """Retention: delete up to ``at_most`` spans that started before ``start_ns``, in one short transaction.

        Returns how many went; call again until it is 0, so that no writer waits long.
        """
        oldest = select(spans.c.trace_id, spans.c.span_id).where(spans.c.start_ns < start_ns)
        oldest = oldest.order_by(spans.c.start_ns).limit(at_most)
        with self._traces.write() as connection:
            return connection.execute(
                delete(spans).where(tuple_(spans.c.trace_id, spans.c.span_id).in_(oldest))
            ).rowcount


def _light_spans(connection: Connection, ids: list[bytes]) -> defaultdict[bytes, list[Span]]:
    found: defaultdict[bytes, list[Span]] = defaultdict(list)
    for row in connection.execute(select(*_LIGHT).where(spans.c.trace_id.in_(ids))).mappings():
        span = _to_span(row)
        found[span.trace_id].append(span)
    return found


def _to_span(row: RowMapping) -> Span:
    values: dict[str, Any] = dict(row)
    for name in ("trace_id", "span_id", "parent_id"):
        values[name] = None if values[name] is None else bytes(values[name])
    for name in _BODY:
        if name in values:
            values[name] = msgspec.json.decode(values[name])
    return Span(**values)


def _summary(trace_id: bytes, found: list[Span]) -> TraceSummary:
    roots = tree.build(found)
    first = roots[0].span
    agents = [span for span in (first, *found) if span.agent]
    runs = [span for span in (first, *found) if span.run_id]
    return TraceSummary(
        trace_id=trace_id.hex(),
        name=first.name,
        agent=agents[0].agent if agents else None,
        run_id=runs[0].run_id if runs else None,
        totals=tree.totals(roots),
    )
