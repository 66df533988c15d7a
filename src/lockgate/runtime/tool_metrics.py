"""What a host's tool calls took, and what the tool cache saved, read off their spans."""

from __future__ import annotations

from lockgate.telemetry.metrics import Registry
from lockgate.telemetry.model import Span


class ToolMetrics:
    """Kept by a host; whoever is asked for ``/metrics`` adds them to a gateway's own."""

    def __init__(self, registry: Registry) -> None:
        self._seconds = registry.histogram(
            "gen_ai_execute_tool_duration_seconds", "Duration of a tool call.", ("gen_ai_tool_name", "error_type")
        )
        self._lookups = registry.counter(
            "lockgate_tool_cache_lookups_total",
            "Reads that the run could have made before, by what came of it (hit, miss).",
            ("environment", "agent", "gen_ai_tool_name", "result"),
        )
        self._saved_seconds = registry.counter(
            "lockgate_tool_cache_saved_seconds_total",
            "What the reads that were not made again took the first time.",
            ("environment", "agent", "gen_ai_tool_name"),
        )

    def note(self, span: Span, environment: str) -> None:
        """Count a span, if it is a tool call's."""
        attributes = span.attributes
        if "lockgate.tool.status" not in attributes:
            return
        tool = str(attributes["gen_ai.tool.name"])
        self._seconds.observe((span.end_ns - span.start_ns) / 1e9, tool, str(attributes.get("error.type", "")))
        hit = attributes.get("lockgate.cache.hit")
        if hit is None:
            return
        self._lookups.add(1, environment, span.agent or "", tool, "hit" if hit == "tool" else "miss")
        if hit == "tool":
            saved = float(attributes.get("lockgate.cache.saved_seconds", 0.0))
            self._saved_seconds.add(saved, environment, span.agent or "", tool)
