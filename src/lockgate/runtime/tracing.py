"""The spans of a run, with OpenTelemetry's GenAI names (https://opentelemetry.io/docs/specs/semconv/gen-ai/)."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from lockgate.errors import LockgateError
from lockgate.runtime.model import Step
from lockgate.telemetry.model import CLIENT, ERROR, INTERNAL, OK, Span
from lockgate.versions.model import AgentVersion, ModelRef

Emit = Callable[[Span], None]

_LONGEST = 4096  # characters of arguments and results in a span; the whole is in the run's steps


class Tracer:
    """Emits one run's spans below ``invoke_agent``. Without ``emit`` it does nothing."""

    def __init__(
        self,
        emit: Emit | None,
        version: AgentVersion,
        *,
        run_id: str = "",
        effective_digest: str = "",
        trace_id: str = "",
        parent_span: str | None = None,
        session: str | None = None,
        attributes: dict[str, Any] | None = None,
    ) -> None:
        self.trace_id = trace_id or os.urandom(16).hex()
        self.span_id = os.urandom(8).hex()
        self._above = self.span_id
        self._emit = emit
        self._version = version
        self._run_id = run_id
        self._effective_digest = effective_digest
        self._parent = parent_span
        self._session = session
        self._attributes = attributes or {}
        self._started_ns = time.time_ns()

    @property
    def traceparent(self) -> str:
        """For what the run calls: its spans hang below ``invoke_agent``."""
        return f"00-{self.trace_id}-{self.span_id}-01"

    def chat(self, step: Step, model: ModelRef, started_ns: int) -> None:
        """One model call. Tokens and cost stand here and nowhere above, so that each is counted once."""
        if self._emit is None:
            return
        served = (step.response or {}).get("model_served")
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": model.provider,
            "gen_ai.request.model": model.name,
            "gen_ai.request.max_tokens": step.request.get("max_tokens"),
            "gen_ai.request.temperature": step.request.get("temperature"),
            "gen_ai.response.model": served,
            "gen_ai.usage.input_tokens": step.usage.input_tokens,
            "gen_ai.usage.output_tokens": step.usage.output_tokens,
        }
        finish = (step.response or {}).get("finish_reason")
        if finish:
            attributes["gen_ai.response.finish_reasons"] = [finish]
        self._span(
            f"chat {model.name}",
            started_ns,
            attributes,
            kind=CLIENT,
            error_type=step.error_type,
            error=step.error,
            model=served or model.name,
            input_tokens=step.usage.input_tokens,
            output_tokens=step.usage.output_tokens,
            cost_nano=step.cost_nano,
        )

    def tool(self, step: Step, started_ns: int) -> None:
        """One tool call, carried out or not."""
        if self._emit is None:
            return
        attributes: dict[str, Any] = {
            "gen_ai.operation.name": "execute_tool",
            "gen_ai.tool.name": step.name,
            "gen_ai.tool.type": "function",
            "lockgate.tool.effect": step.effect,
            "lockgate.tool.status": step.status,
        }
        if step.replayed:
            attributes["lockgate.tool.replayed"] = True
        if step.from_cache is not None:
            attributes["lockgate.cache.hit"] = "tool" if step.from_cache else "miss"
        if step.from_cache:
            attributes["lockgate.cache.saved_seconds"] = step.saved_seconds
        if not self._version.guardrails.pii_redaction:
            attributes["gen_ai.tool.call.arguments"] = _text(step.request)
            attributes["gen_ai.tool.call.result"] = _text(step.response)
        self._span(f"execute_tool {step.name}", started_ns, attributes, error_type=step.error_type, error=step.error)

    @contextmanager
    def handler(self, name: str) -> Iterator[None]:
        """The handler's own span; the tool calls in the block hang below it. A suspension is no error."""
        started_ns, span_id = time.time_ns(), os.urandom(8).hex()
        error_type = error = None
        self._above = span_id
        try:
            yield
        except LockgateError as failure:
            error_type, error = getattr(failure, "error_type", failure.code), str(failure)
            raise
        finally:
            self._above = self.span_id
            self._span(
                f"execute_tool {name}",
                started_ns,
                {"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": name, "gen_ai.tool.type": "function"},
                span_id=span_id,
                parent=self.span_id,
                error_type=error_type,
                error=error,
            )

    def agent(self, *, status: str, error_type: str | None, error: str | None) -> None:
        """The span over all others: one attempt of the run."""
        if self._emit is None:
            return
        attributes = {
            "gen_ai.operation.name": "invoke_agent",
            "gen_ai.agent.name": self._version.agent,
            "gen_ai.agent.version": str(self._version.file_version),
            "gen_ai.agent.id": self._version.behaviour_digest,
            "gen_ai.conversation.id": self._session,
            "lockgate.run.status": status,
            **self._attributes,
        }
        self._span(
            f"invoke_agent {self._version.agent}",
            self._started_ns,
            attributes,
            span_id=self.span_id,
            parent=self._parent,
            error_type=error_type,
            error=error,
        )

    def _span(
        self,
        name: str,
        started_ns: int,
        attributes: dict[str, Any],
        *,
        kind: int = INTERNAL,
        span_id: str | None = None,
        parent: str | None = "",
        error_type: str | None = None,
        error: str | None = None,
        **columns: Any,
    ) -> None:
        if self._emit is None:
            return
        if error_type:
            attributes["error.type"] = error_type
        above = self._above if parent == "" else parent
        self._emit(
            Span(
                trace_id=bytes.fromhex(self.trace_id),
                span_id=bytes.fromhex(span_id) if span_id else os.urandom(8),
                parent_id=bytes.fromhex(above) if above else None,
                name=name,
                kind=kind,
                start_ns=started_ns,
                end_ns=time.time_ns(),
                status=ERROR if error_type else OK,
                status_message=error or "",
                run_id=self._run_id or None,
                agent=self._version.agent,
                effective_digest=self._effective_digest or None,
                attributes={key: value for key, value in attributes.items() if value is not None},
                **columns,
            )
        )


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"
