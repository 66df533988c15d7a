"""What comes of a request to the outside that fails, and whether it may have left this machine."""

from __future__ import annotations

import aiohttp
from aiohttp import http
from yarl import URL

from lockgate.errors import UpstreamError

FAILURES = (aiohttp.ClientError, http.HttpProcessingError, TimeoutError, OSError, ValueError)
"""What aiohttp raises, and what reads and writes its connections."""


def before_headers(failure: Exception, url: URL, timeout: float, *, connected: bool = True) -> UpstreamError:
    """No answer came within ``timeout`` seconds, or none that can be read. ``connected``: whether anything was sent."""
    place = f"{url.host}:{url.port}" if url.host else str(url)
    if isinstance(failure, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError)):
        return UpstreamError(f"{place} cannot be reached: {_reason(failure)}", sent=False)
    if isinstance(failure, (aiohttp.InvalidURL, ValueError)):
        return UpstreamError(f"{place} cannot be asked: {failure}", sent=False)
    if not connected:
        return UpstreamError(f"{place} cannot be reached: {_reason(failure)}", sent=False)
    if isinstance(failure, TimeoutError):
        return UpstreamError(f"{place} did not answer within {timeout:g} seconds", sent=True)
    return UpstreamError(f"{place} closed the connection without an answer: {_reason(failure)}", sent=True)


def after_headers(failure: Exception) -> UpstreamError:
    """An answer began, and did not come to its end."""
    if isinstance(failure, UpstreamError):
        return failure
    if isinstance(failure, TimeoutError):
        return UpstreamError("the answer stopped coming", sent=True)
    return UpstreamError(f"the answer broke off: {_reason(failure)}", sent=True)


def _reason(failure: BaseException) -> str:
    if isinstance(failure, http.HttpProcessingError):
        return "what it said is no HTTP"
    if isinstance(failure, aiohttp.ClientPayloadError):
        return "the connection closed before its end"
    if isinstance(failure, aiohttp.ServerDisconnectedError):
        return "it hung up"
    if isinstance(failure, aiohttp.ClientConnectorError) and not isinstance(failure, aiohttp.ClientSSLError):
        return failure.strerror or str(failure)  # the whole of it names the address once more
    return str(failure) or type(failure).__name__
