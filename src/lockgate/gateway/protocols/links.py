"""Addresses inside a request that the upstream would fetch: none of them may lead into a private network. Pure.

An upstream on the same network (vLLM, llama.cpp …) fetches the image that a client names; so a client could read what
only that machine can reach. Names are not resolved here: what a public name points to is the upstream's to check.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from lockgate.errors import InputError
from lockgate.gateway.protocols.model import Request

_KEYS = frozenset(("url", "image_url", "file_url", "video_url", "audio_url", "input_audio"))
_PRIVATE_NAMES = re.compile(r"(^|\.)(localhost|local|internal|intranet|lan|home|corp|localdomain)\.?$", re.IGNORECASE)
_DEEPEST = 32


def check_links(request: Request, *, fetched_here: bool = False) -> None:
    """:class:`InputError` for an address that is no public web address and no ``data:`` of the request's own.

    ``fetched_here``: a library in this process would fetch it. Then there are only ``data:`` addresses: what a name
    points to when it is fetched nobody can check before.
    """
    for name in ("messages", "input", "documents", "system"):
        if name in request.fields:
            for url in _links(request.decoded(name), 0):
                problem = trouble_with(url)
                if problem is None and fetched_here and url[:5].lower() != "data:":
                    problem = "which this machine would fetch"
                if problem is not None:
                    raise InputError(
                        f"{name!r} holds the address {url[:120]!r}, {problem}",
                        remedy="send the content itself, or set `private_urls: true` at the provider",
                    )


def trouble_with(url: str) -> str | None:
    """Why an upstream should not fetch this; None when it may."""
    if url[:5].lower() == "data:":
        return None
    try:
        parts = urlsplit(url.strip())
        host = parts.hostname
    except ValueError:
        return "which is no address"
    if parts.scheme.lower() not in ("http", "https") or not host:
        return "which is no web address"
    if "\\" in url or any(character <= " " for character in url.strip()):
        return "which readers understand in different ways"
    if parts.username is not None:
        return "which carries a password"
    address = _address(host)
    if address is not None:
        mapped = getattr(address, "ipv4_mapped", None)
        return None if (mapped or address).is_global else "which is in a private network"
    if _PRIVATE_NAMES.search(host) or "." not in host:
        return "which names a machine of a private network"
    return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address written as the host, also in the odd ways C libraries take: ``0x7f.1``, ``2130706433``."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeError):
        return None


def _links(value: Any, depth: int) -> Iterator[str]:
    if depth > _DEEPEST:
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if key in _KEYS and isinstance(item, str):
                yield item
            elif key != "input" or value.get("type") != "tool_use":  # what a model asked a tool for is not fetched
                yield from _links(item, depth + 1)
    elif isinstance(value, list):
        for item in value:
            yield from _links(item, depth + 1)
