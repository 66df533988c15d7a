"""Asks a running gateway to run an agent: what ``lockgate run`` does without ``--local``."""

from __future__ import annotations

import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPException
from pathlib import Path

import msgspec

from lockgate.errors import (
    InputError,
    LimitExceeded,
    LockgateError,
    NotFound,
    Refused,
    Unauthenticated,
    Unavailable,
)
from lockgate.results import RunResult

TIMEOUT = 3600.0
"""Seconds a run may take; its own limits end it long before."""


def gateway_url(home: Path) -> str | None:
    """Where the gateway of this project says it listens; None when none is up."""
    try:
        return str(msgspec.json.decode((home / "run" / "gateway.json").read_bytes())["url"])
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        return None


def run_remote(url: str, key: str, agent: str, text: str, *, session: str | None = None) -> RunResult:
    """One run. A failed or suspended one is a result too; raises what the gateway refused or could not do."""
    if urllib.parse.urlsplit(url).scheme not in ("http", "https"):
        raise InputError(f"{url!r} is not the URL of a gateway", remedy="give one such as http://127.0.0.1:8700")
    request = urllib.request.Request(  # noqa: S310
        f"{url.rstrip('/')}/api/v1/agents/{urllib.parse.quote(agent, safe='')}/runs",
        data=msgspec.json.encode({"input": text} | ({"session": session} if session else {})),
        headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:  # noqa: S310
            return msgspec.json.decode(response.read(), type=RunResult)
    except urllib.error.HTTPError as error:
        with error:
            raise refusal(error.code, error.read(65536)) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Unavailable(
            f"the gateway at {url} does not answer: {reason}", remedy="lockgate up, or --local"
        ) from error
    except msgspec.DecodeError as error:
        raise Unavailable(
            f"{url} answered with something else than a run: {error}", remedy="is it a gateway?"
        ) from error


def refusal(status: int, body: bytes) -> LockgateError:
    """A gateway's problem details as an error of ours."""
    try:
        problem = msgspec.json.decode(body)
        detail, limit = str(problem["detail"]), str(problem.get("limit", ""))
    except (msgspec.DecodeError, UnicodeError, LookupError, TypeError, AttributeError):
        detail, limit = f"HTTP {status}: {body[:200].decode('utf-8', 'replace')}", ""
    match status:
        case 400 | 422:
            return InputError(detail)
        case 401:
            return Unauthenticated(detail, remedy="check LOCKGATE_API_KEY; `lockgate keys list` shows what is valid")
        case 403:
            return Refused(detail)
        case 404:
            return NotFound(detail)
        case 429:
            return LimitExceeded(detail, limit=limit)
        case _:
            return Unavailable(detail)
