"""``oci://HOST[:PORT]/REPOSITORY[:TAG][@sha256:…]``: where a version is in a registry. Pure."""

from __future__ import annotations

import re

import msgspec

from lockgate.errors import InputError

SCHEME = "oci://"
_HOST = r"(?P<host>(?:[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?)"
_STEP = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"{_HOST}/(?P<repository>{_STEP}(?:/{_STEP})*)(?::(?P<tag>[A-Za-z0-9_][A-Za-z0-9._-]{{0,127}}))?"
    r"(?:@(?P<digest>sha256:[0-9a-f]{64}))?"
)


class Reference(msgspec.Struct, frozen=True, kw_only=True):
    """A repository, and perhaps what in it."""

    host: str
    repository: str
    tag: str | None = None
    digest: str | None = None

    @property
    def plain(self) -> bool:
        """Whether the host is this machine, where registries speak plain HTTP."""
        name = self.host if self.host.startswith("[") else self.host.partition(":")[0]
        return name == "localhost" or name.startswith("127.") or self.host.startswith("[::1]")

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"{SCHEME}{self.host}/{self.repository}{tag}" + (f"@{self.digest}" if self.digest else "")


def parse(text: str) -> Reference:
    """Raises :class:`InputError` for anything else, a URL with credentials above all: those are not repeated."""
    rest = text.removeprefix(SCHEME)
    if "@" in rest.partition("/")[0]:
        raise InputError(
            "credentials stand in the address (not shown)", remedy="use docker's config.json, or --username"
        )
    match = _REFERENCE.fullmatch(rest)
    if match is None or not text.startswith(SCHEME):
        raise InputError(f"{text!r} names no place in a registry", remedy="write oci://registry.example/team/agent:v3")
    return Reference(**match.groupdict())
