"""What one execution of an agent yields: shared by evals, runtime, rollouts and users' tests."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

RunStatus = Literal["running", "suspended", "completed", "failed", "cancelled"]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens as the provider counted them. ``input_tokens`` includes ``cached_tokens`` (read from its cache) and
    ``cache_write_tokens`` (written to it, where that is priced)."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    reasoning_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            cached_tokens=self.cached_tokens + other.cached_tokens,
            reasoning_tokens=self.reasoning_tokens + other.reasoning_tokens,
            cache_write_tokens=self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def total_tokens(self) -> int:
        return self.input_tokens + self.output_tokens


class ToolUse(msgspec.Struct, frozen=True, kw_only=True):
    """One tool call as it happened. ``error`` is a message, or None when it succeeded."""

    name: str
    arguments: dict[str, Any]
    result: Any = None
    error: str | None = None


class RunResult(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of one run.

    ``output`` is the answer (text, or the JSON value an output schema or handler gave);
    ``error_type`` is one of the stable words in ``docs/runs.md`` when ``status`` is ``failed``;
    ``retry_after``: seconds until a limit that stopped the run lets another pass;
    ``served`` says what the provider called what answered, by model as asked for;
    ``iterations`` counts model calls after the first that only repaired or refined an answer.
    Of a simulation: ``transcript``, what user and agent said (``role``, ``content``), and ``changes``, what is other
    than before in the world it played in (path → value now, None where it is gone).
    """

    status: RunStatus
    output: Any = None
    tools_used: list[ToolUse] = msgspec.field(default_factory=list)
    usage: Usage = msgspec.field(default_factory=Usage)
    cost_nano: int = 0
    seconds: float = 0.0
    model_calls: int = 0
    iterations: int = 0
    served: dict[str, str] = msgspec.field(default_factory=dict)
    run_id: str = ""
    trace_id: str = ""
    approval_id: str | None = None
    error_type: str | None = None
    error: str | None = None
    retry_after: float | None = None
    transcript: list[dict[str, str]] = msgspec.field(default_factory=list)
    changes: dict[str, Any] | None = None

    @property
    def cost_usd(self) -> float:
        return self.cost_nano / 1e9

    @property
    def deliverable(self) -> str:
        """The answer as text."""
        if isinstance(self.output, str):
            return self.output
        return "" if self.output is None else msgspec.json.encode(self.output).decode()
