"""Addresses inside a request that the upstream would fetch: none of them may lead into a private network. Pure.

An upstream on the same network (vLLM, llama.cpp …) fetches the image that a client names; so a client could read what
only that machine can reach. What a public name points to is looked up elsewhere (``gateway.names``).
"""

from __future__ import annotations

import ipaddress
import re
import socket
import unicodedata
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from lockgate.errors import InputError
from lockgate.gateway.protocols.model import Request

_KEYS = frozenset(("url", "image_url", "file_url", "video_url", "audio_url", "input_audio"))
_PRIVATE_NAMES = re.compile(r"(^|\.)(localhost|local|internal|intranet|lan|home|corp|localdomain)\.?$", re.IGNORECASE)
_DEEPEST = 32
_NAT64 = int(ipaddress.IPv6Address("64:ff9b::")) >> 32


def check_links(request: Request, *, fetched_here: bool = False) -> set[str]:
    """:class:`InputError` for an address that is no public web address and no ``data:`` of the request's own.

    Returns the public names that are to be fetched from. ``fetched_here``: a library in this process would fetch them.
    Then there are only ``data:`` addresses: what a name points to when it is fetched nobody can check before.
    """
    names: set[str] = set()
    for name in ("messages", "input", "documents", "system", "tools", "mcp_servers"):
        if name in request.fields:
            value = request.decoded(name)
            for url in _servers(value) if name in ("tools", "mcp_servers") else _links(value, 0):
                problem = trouble_with(url)
                if problem is None and fetched_here and url[:5].lower() != "data:":
                    problem = "which this machine would fetch"
                if problem is not None:
                    raise InputError(
                        f"{name!r} holds the address {url[:120]!r}, {problem}",
                        remedy="send the content itself, or set `private_urls: true` at the provider",
                    )
                if host := _host(url):
                    names.add(host)
    return names


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
    return "which is in a private network" if is_inside(host) else None


def is_inside(host: str) -> bool:
    """Whether a host, by its name or IP address, is in a private network."""
    host = unicodedata.normalize("NFKC", host).replace("\N{IDEOGRAPHIC FULL STOP}", ".")  # as readers of URLs do
    address = address_of(host)
    if address is not None:
        return not is_public(address)
    return "." not in host or _PRIVATE_NAMES.search(host) is not None


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it, and the IPv4 address that it may carry (mapped, NAT64, 6to4, Teredo), is one of the internet."""
    inner: ipaddress.IPv4Address | None = None
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if address.teredo is not None:
            inner = address.teredo[1]
        if int(address) >> 32 in (0, _NAT64):
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return (address if inner is None else inner).is_global


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The IP address written as the host, also in the odd ways C libraries take: ``0x7f.1``, ``2130706433``."""
    try:
        return ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        pass
    try:
        return ipaddress.IPv4Address(socket.inet_aton(host.rstrip(".")))
    except (OSError, UnicodeError):
        return None


def _host(url: str) -> str | None:
    """The name in a web address; None where there is none, or an IP address."""
    host = urlsplit(url.strip()).hostname
    return host if host and address_of(host) is None else None


def _servers(value: Any) -> Iterator[str]:
    """The MCP servers that a provider is to call."""
    for item in value if isinstance(value, list) else ():
        if isinstance(item, dict):
            for key in ("server_url", "url"):
                if isinstance(item.get(key), str):
                    yield item[key]


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
