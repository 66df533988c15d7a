"""The data plane's paths for the OpenAPI document: what Lockgate reads of each request. The rest passes as it is."""

from __future__ import annotations

from typing import Any

from lockgate.gateway.batches.asking import PROVIDER
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

# --- OpenAI's files, uploads and batches: https://platform.openai.com/docs/api-reference/batch

_TEXT: dict[str, Any] = {"type": "string"}
_NUMBER = {"type": "integer"}
_MOMENT = {"type": "integer", "description": "Unix seconds."}
_MAYBE_TEXT = {"type": ["string", "null"]}
_MAYBE_MOMENT = {"type": ["integer", "null"], "description": "Unix seconds."}
_BYTES = {"type": "string", "format": "binary"}
_PURPOSE = {
    **_TEXT,
    "minLength": 1,
    "description": "`batch`, `user_data`, …; only a file for `batch` can be a batch's.",
}
_PROVIDER = {
    "name": PROVIDER,
    "in": "header",
    "required": False,
    "schema": {**_TEXT, "description": "Whose file it is to be, where there are several providers."},
}
_METADATA = {"type": ["object", "null"], "additionalProperties": _TEXT}
_EXPIRES = {
    "type": "object",
    "required": ["anchor", "seconds"],
    "properties": {"anchor": {"const": "created_at"}, "seconds": _NUMBER},
}
_STATES = ["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]
_FILE = {
    "bytes": _NUMBER,
    "created_at": _MOMENT,
    "filename": _TEXT,
    "purpose": _TEXT,
    "status": {"enum": ["uploaded", "processed", "error"]},
    "status_details": _MAYBE_TEXT,
    "expires_at": _MAYBE_MOMENT,
}
_UPLOAD = {
    "bytes": _NUMBER,
    "created_at": _MOMENT,
    "expires_at": _MOMENT,
    "filename": _TEXT,
    "purpose": _TEXT,
    "status": {"enum": ["pending", "completed", "cancelled", "expired"]},
}
_BATCH = {
    "endpoint": _TEXT,
    "input_file_id": _TEXT,
    "completion_window": _TEXT,
    "status": {"enum": _STATES},
    "output_file_id": _MAYBE_TEXT,
    "error_file_id": _MAYBE_TEXT,
    "errors": {"type": ["object", "null"]},
    "request_counts": {
        "type": ["object", "null"],
        "properties": {"total": _NUMBER, "completed": _NUMBER, "failed": _NUMBER},
    },
    "created_at": _MOMENT,
    "metadata": _METADATA,
    **dict.fromkeys(
        ("in_progress_at", "expires_at", "finalizing_at", "completed_at", "failed_at", "expired_at",
         "cancelling_at", "cancelled_at"), _MAYBE_MOMENT
    ),
}  # fmt: skip
_COST = {"x-lockgate-cost-usd": "What it cost, once that is known."}
_HELD = {"x-lockgate-held-usd": "The most it can cost, charged until it has ended."}


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
    paths |= _files() | _uploads() | _batches()
    paths["/v1/models"] = {"get": _operation("What the key may call.")}
    paths["/v1/models/{model}"] = {"get": _operation("One of them.", parameters=[_in_path("model")])}
    held = {"what": {"type": "string"}, "usd": {"type": "number", "minimum": 0}, "tool": {"type": "string"}}
    paths["/v1/holds"] = {"post": _operation("Hold money for a call of another API.", body=_closed(held))}
    end = {"id": {"type": "string"}, "usd": {"type": "number", "minimum": 0}}
    paths["/v1/holds/settle"] = {"post": _operation("Charge what it cost.", body=_closed(end, "id", "usd"))}
    paths["/v1/holds/release"] = {"post": _operation("Give it back.", body=_closed({"id": end["id"]}, "id"))}
    paths["/v1/traces"] = {"post": _operation("Spans, as OTLP/HTTP sends them.", body={"type": "object"})}
    run = {"input": {}, "session": {"type": ["string", "null"]}, "user": {"type": ["string", "null"]}}
    paths["/api/v1/agents/{agent}/runs"] = {
        "post": _operation("Run an agent.", body=_closed(run, "input"), parameters=[_in_path("agent")], tag="runs")
    }
    paths["/metrics"] = {"get": _operation("Metrics of all processes.", answers=["text/plain"], tag="health")}
    return paths


def _files() -> dict[str, Any]:
    file, one = _kept("file", _FILE), [_in_path("file_id")]
    form = {"file": _BYTES, "purpose": _PURPOSE, "expires_after": _EXPIRES}
    asked = [_in_query("purpose", _TEXT), *_page(10_000), _in_query("order", {"enum": ["asc", "desc"]})]
    deleted = _kept("file", {"deleted": {"type": "boolean"}})
    return {
        "/v1/files": {
            "post": _operation(
                "Upload a file. The lines of a batch are checked as they come.",
                form=_open(form, "file", "purpose"), parameters=[_PROVIDER], gives=file, tag="files",
            ),
            "get": _operation("The tenant's files.", parameters=asked, gives=_list(file), tag="files"),
        },
        "/v1/files/{file_id}": {
            "get": _operation("A file.", parameters=one, gives=file, tag="files"),
            "delete": _operation("Delete a file.", parameters=one, gives=deleted, tag="files"),
        },
        "/v1/files/{file_id}/content": {
            "get": _operation(
                "What is in a file; a batch's answers through the guardrails.",
                parameters=one, gives=_BYTES, answers=["application/octet-stream"], tag="files",
            )
        },
    }  # fmt: skip


def _uploads() -> dict[str, Any]:
    upload, one = _kept("upload", {**_UPLOAD, "file": _kept("file", _FILE, "null")}), [_in_path("upload_id")]
    part = _kept("upload.part", {"created_at": _MOMENT, "upload_id": _TEXT})
    begun = {"filename": _TEXT, "bytes": _NUMBER, "mime_type": _TEXT, "purpose": _PURPOSE, "expires_after": _EXPIRES}
    parts = {"part_ids": {"type": "array", "items": _TEXT}, "md5": _TEXT}
    return {
        "/v1/uploads": {
            "post": _operation(
                "Begin a large file, which comes in parts.",
                body=_open(begun, "filename", "bytes", "mime_type", "purpose"),
                parameters=[_PROVIDER], gives=upload, tag="files",
            )
        },
        "/v1/uploads/{upload_id}/parts": {
            "post": _operation(
                "Send a part.", form=_open({"data": _BYTES}, "data"), parameters=one, gives=part, tag="files"
            )
        },
        "/v1/uploads/{upload_id}/complete": {
            "post": _operation(
                "Put the parts together.", body=_open(parts, "part_ids"), parameters=one, gives=upload, tag="files"
            )
        },
        "/v1/uploads/{upload_id}/cancel": {
            "post": _operation("Give it up.", parameters=one, gives=upload, tag="files")
        },
    }  # fmt: skip


def _batches() -> dict[str, Any]:
    batch, one = _kept("batch", _BATCH), [_in_path("batch_id")]
    asked = {
        "input_file_id": _TEXT,
        "endpoint": {**_TEXT, "description": "That of all lines of the file, such as `/v1/chat/completions`."},
        "completion_window": {**_TEXT, "description": "`24h`."},
        "metadata": _METADATA,
        "output_expires_after": _EXPIRES,
    }
    return {
        "/v1/batches": {
            "post": _operation(
                "Make a batch of an uploaded file: the most it can cost is held, then it is made.",
                body=_open(asked, "input_file_id", "endpoint", "completion_window"),
                gives=batch, headers=_HELD, tag="batches",
            ),
            "get": _operation("The tenant's batches.", parameters=_page(100), gives=_list(batch), tag="batches"),
        },
        "/v1/batches/{batch_id}": {
            "get": _operation("A batch.", parameters=one, gives=batch, headers=_COST, tag="batches")
        },
        "/v1/batches/{batch_id}/cancel": {
            "post": _operation("Cancel a batch.", parameters=one, gives=batch, headers=_COST, tag="batches")
        },
    }  # fmt: skip


def _operation(
    summary: str,
    *,
    body: dict[str, Any] | None = None,
    form: dict[str, Any] | None = None,
    parameters: list[dict[str, Any]] | None = None,
    answers: list[str] | None = None,
    gives: dict[str, Any] | None = None,
    headers: dict[str, str] | None = None,
    tag: str = "models",
) -> dict[str, Any]:
    """``body`` is JSON's schema, ``form`` that of a form with a file; ``gives`` is the answer's, in each of the types
    ``answers``, with ``headers`` of these meanings."""
    content: dict[str, Any] = {kind: {"schema": gives or {}} for kind in answers or ["application/json"]}
    done: dict[str, Any] = {"description": "Done.", "content": content}
    if headers:
        done["headers"] = {name: {"description": text, "schema": _TEXT} for name, text in headers.items()}
    operation: dict[str, Any] = {"tags": [tag], "summary": summary, "responses": {"200": done}}
    if parameters:
        operation["parameters"] = parameters
    sent = {"application/json": body, "multipart/form-data": form}
    if taken := {kind: {"schema": schema} for kind, schema in sent.items() if schema is not None}:
        operation["requestBody"] = {"required": True, "content": taken}
    return operation


def _closed(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {**_open(properties, *required), "additionalProperties": False}


def _open(properties: dict[str, Any], *required: str) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": list(required)}


def _kept(kind: str, properties: dict[str, Any], *or_else: str) -> dict[str, Any]:
    """One of OpenAI's objects, as the provider tells it; ``or_else``: other types that may stand in its place."""
    known = _open({"id": _TEXT, "object": {"const": kind}, **properties}, "id", "object")
    return {**known, "type": ["object", *or_else]} if or_else else known


def _list(item: dict[str, Any]) -> dict[str, Any]:
    properties = {
        "object": {"const": "list"},
        "data": {"type": "array", "items": item},
        "first_id": _MAYBE_TEXT,
        "last_id": _MAYBE_TEXT,
        "has_more": {"type": "boolean"},
    }
    return _open(properties, *properties)


def _page(most: int) -> list[dict[str, Any]]:
    limit = {"type": "integer", "minimum": 1, "maximum": most}
    return [_in_query("after", {**_TEXT, "description": "The last id of the page before."}), _in_query("limit", limit)]


def _in_query(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    return {"name": name, "in": "query", "required": False, "schema": schema}


def _in_path(name: str) -> dict[str, Any]:
    return {"name": name, "in": "path", "required": True, "schema": _TEXT}
