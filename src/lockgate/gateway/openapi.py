"""The data plane's paths for the OpenAPI document: what Lockgate reads of each request. The rest passes as it is."""

from __future__ import annotations

from typing import Any

from lockgate.gateway.protocols.passages import DIALECTS

_TURNS = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role", "content"],
        "properties": {"role": {"enum": ["user", "assistant"]}, "content": {"type": "string"}},
    },
}
_TEXTS = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_READ: dict[str, dict[str, Any]] = {
    "chat": {"messages": _TURNS},
    "messages": {"messages": _TURNS, "max_tokens": {"type": "integer", "minimum": 1}},
    "count_tokens": {"messages": _TURNS},
    "responses": {"input": _TEXTS},
    "embeddings": {"input": _TEXTS},
    "rerank": {"query": {"type": "string"}, "documents": {"type": "array", "items": {"type": "string"}}},
}
"""What each protocol asks for, beside the model."""
_MODEL = {"type": "string", "description": "`provider/name`; on chat completions also `agent:NAME`."}
_STREAMED = ("chat", "messages", "responses")


def data_plane() -> dict[str, Any]:
    """Paths and their operations, as the document's ``paths`` has them."""
    paths: dict[str, Any] = {}
    for dialect in DIALECTS:
        read = _READ[dialect.name]
        properties: dict[str, Any] = {"model": _MODEL, **read}
        kinds = ["application/json"]
        if dialect.name in _STREAMED:
            properties["stream"] = {"type": "boolean"}
            kinds.append("text/event-stream")
        paths[dialect.path] = {
            "post": _operation(
                f"{dialect.name.replace('_', ' ').capitalize()}, for the provider that `model` names.",
                body={"type": "object", "required": ["model", *read], "properties": properties},
                answers=kinds,
            )
        }
    paths["/v1/models"] = {"get": _operation("What the key may call.")}
    held = {"what": {"type": "string"}, "usd": {"type": "number", "minimum": 0}, "tool": {"type": "string"}}
    paths["/v1/holds"] = {"post": _operation("Hold money for a call of another API.", body=_closed(held))}
    end = {"id": {"type": "string"}, "usd": {"type": "number", "minimum": 0}}
    paths["/v1/holds/settle"] = {"post": _operation("Charge what it cost.", body=_closed(end, "id", "usd"))}
    paths["/v1/holds/release"] = {"post": _operation("Give it back.", body=_closed({"id": end["id"]}, "id"))}
    paths["/v1/traces"] = {"post": _operation("Spans, as OTLP/HTTP sends them.", body={"type": "object"})}
    run = {"input": {}, "session": {"type": ["string", "null"]}, "user": {"type": ["string", "null"]}}
    operation = _operation("Run an agent.", body=_closed(run, "input"), tag="runs")
    name = {"name": "agent", "in": "path", "required": True, "schema": {"type": "string"}}
    paths["/api/v1/agents/{agent}/runs"] = {"post": {**operation, "parameters": [name]}}
    paths["/metrics"] = {"get": _operation("Metrics of all processes.", answers=["text/plain"], tag="health")}
    return paths


def _operation(
    summary: str, *, body: dict[str, Any] | None = None, answers: list[str] | None = None, tag: str = "models"
) -> dict[str, Any]:
    content: dict[str, Any] = {kind: {"schema": {}} for kind in answers or ["application/json"]}
    operation: dict[str, Any] = {
        "tags": [tag],
        "summary": summary,
        "responses": {"200": {"description": "Done.", "content": content}},
    }
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
    return operation


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}
