"""How stores on the network are asked: one bounded request, no redirects, and errors without what was sent or came."""

from __future__ import annotations

import http.client
import ipaddress
import os
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import msgspec

from lockgate.errors import Unavailable

TIMEOUT = 5.0
MAX_ANSWER = 1_000_000


def ask(
    store: str,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    plain: bool = False,
    cafile: str | None = None,
    timeout: float = TIMEOUT,
) -> tuple[int, Any]:
    """``(status, JSON)``; None for a body that is no JSON. Plain HTTP only to this machine, or where ``plain``."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host:
        raise Unavailable(f"{store} has the address {url!r}, which is none", remedy="write https://HOST:PORT")
    if parts.scheme == "http" and not (plain or _here(host)):
        raise Unavailable(f"{store} at {host!r} would get its token without TLS", remedy="use https://")
    connection: http.client.HTTPConnection
    if parts.scheme == "https":
        context = ssl.create_default_context(cafile=cafile)
        connection = http.client.HTTPSConnection(host, parts.port, timeout=timeout, context=context)
    else:
        connection = http.client.HTTPConnection(host, parts.port, timeout=timeout)
    try:
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        connection.request(method, target, body=body, headers={"accept": "application/json", **(headers or {})})
        answer = connection.getresponse()
        data = answer.read(MAX_ANSWER)
    except (OSError, http.client.HTTPException, ValueError) as failure:
        reason = getattr(failure, "strerror", None) or type(failure).__name__
        raise Unavailable(
            f"{store} at {host!r} does not answer: {reason}", remedy="check its address and that it runs"
        ) from None
    finally:
        connection.close()
    try:
        return answer.status, msgspec.json.decode(data) if data else None
    except msgspec.DecodeError:
        return answer.status, None


def refused(store: str, name: str, status: int) -> Unavailable:
    """The error for a status that is no success; what the store said is left out: it may repeat what it was sent."""
    what = {401: "does not know this token", 403: "does not let this token read", 404: "has no"}.get(status)
    if what is None:
        return Unavailable(f"{store} answered {status} for {name!r}", remedy="look into its log; try again")
    if status == 404:
        return Unavailable(f"{store} has no secret {name!r}", remedy="create it, or correct the reference")
    return Unavailable(f"{store} {what} {name!r} ({status})", remedy="renew the token, or give it the right to read")


def needed(store: str, *names: str) -> str:
    """The first of these environment variables that is set."""
    for name in names:
        if os.environ.get(name):
            return os.environ[name]
    raise Unavailable(f"{store} needs {' or '.join(names)} in the environment", remedy=f"export {names[0]}=…")


def pick(store: str, name: str, data: Any, field: str) -> str:
    """One field of a secret; without ``field``, of a secret that has only one."""
    if isinstance(data, dict):
        if not field and len(data) == 1:
            field = next(iter(data))
        value = data.get(field) if field else None
        if isinstance(value, str) and value:
            return value
        if value is not None and value != "" and not isinstance(value, dict | list):
            return str(value)
        have = ", ".join(sorted(map(str, data))) or "none"
        which = f"no field {field!r}" if field else "several fields, and the reference names none"
        raise Unavailable(f"{store}: the secret {name!r} has {which} (it has {have})", remedy="write …#FIELD")
    raise Unavailable(f"{store}: the secret {name!r} has no fields that can be read", remedy="leave out #FIELD")


def _here(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
