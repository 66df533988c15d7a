"""How an error looks over HTTP: the OpenAI error object on ``/v1``, Anthropic's on ``/v1/messages``, RFC 9457 problem
details elsewhere. Pure."""

from __future__ import annotations

from math import ceil
from typing import Any

import msgspec

from lockgate.errors import (
    ApprovalPending,
    Blocked,
    Expired,
    Killed,
    LimitExceeded,
    LockgateError,
    RunFailed,
    UpstreamError,
)

Response = tuple[int, list[tuple[str, str]], bytes]
"""Status, headers, body."""

_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "invalid_request_error",
    413: "invalid_request_error",
    422: "run_failed",
    429: "rate_limit_error",
}
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}
_PENDING_ON_V1 = 409  # a client of chat completions takes any 2xx for an answer


def openai_error(error: LockgateError, *, details: dict[str, Any] | None = None) -> Response:
    """``{"error": {message, type, param, code}}``, with what a program needs besides: a run id, a limit's name."""
    status = _PENDING_ON_V1 if isinstance(error, ApprovalPending) else error.status
    body = {
        "message": _text(error),
        "type": "approval_pending" if isinstance(error, ApprovalPending) else _TYPES.get(status, "server_error"),
        "param": error.limit if isinstance(error, LimitExceeded) else None,
        "code": error.code,
        **_extra(error),
        **(details or {}),
    }
    headers = [("content-type", "application/json"), *_retry_headers(error)]
    return status, headers, msgspec.json.encode({"error": body})


def anthropic_error(error: LockgateError, *, request_id: str, details: dict[str, Any] | None = None) -> Response:
    """``{"type": "error", "error": {type, message}, "request_id"}``; ``code`` is the same stable word as elsewhere."""
    status = _PENDING_ON_V1 if isinstance(error, ApprovalPending) else error.status
    body = {
        "type": ANTHROPIC_TYPES.get(status, "api_error"),
        "message": _text(error),
        "code": error.code,
        **_extra(error),
        **(details or {}),
    }
    headers = [("content-type", "application/json"), *_retry_headers(error)]
    return status, headers, msgspec.json.encode({"type": "error", "error": body, "request_id": request_id})


def problem(error: LockgateError, *, instance: str, details: dict[str, Any] | None = None) -> Response:
    """``application/problem+json``; ``code`` is the same stable word as on ``/v1``."""
    body = {
        "type": "about:blank",
        "title": error.code.replace("_", " ").capitalize(),
        "status": error.status,
        "detail": _text(error),
        "instance": instance,
        "code": error.code,
        **_extra(error),
        **(details or {}),
    }
    headers = [("content-type", "application/problem+json"), *_retry_headers(error)]
    return error.status, headers, msgspec.json.encode(body)


def _text(error: LockgateError) -> str:
    return f"{error.message} ({error.remedy})" if error.remedy else error.message


def _extra(error: LockgateError) -> dict[str, Any]:
    if isinstance(error, LimitExceeded):
        return {"limit": error.limit} | ({"reason": error.reason} if error.reason else {})
    if isinstance(error, Blocked):
        return {"guard": error.guard, "side": error.side}
    if isinstance(error, Expired):
        return {"what": error.what, "expired_at": error.at}
    if isinstance(error, Killed):
        return {"what": error.what}
    if isinstance(error, ApprovalPending):
        return {"run_id": error.run_id, "approval_id": error.approval_id}
    if isinstance(error, RunFailed):
        return {"error_type": error.error_type}
    if isinstance(error, UpstreamError):
        return {"sent": error.sent}
    return {}


def _retry_headers(error: LockgateError) -> list[tuple[str, str]]:
    if isinstance(error, LimitExceeded):
        if error.retry_after is None:
            return [("x-should-retry", "false")]
        return [("retry-after", str(max(1, ceil(error.retry_after))))]
    if isinstance(error, ApprovalPending):
        return [("x-should-retry", "false")]
    if error.status == 503:
        asked = error.retry_after if isinstance(error, UpstreamError) else None
        return [("retry-after", str(max(1, ceil(asked or 0.0))))]
    return []
