"""Takes known secrets out of text. Pure."""

from __future__ import annotations

from collections.abc import Iterable

MASK = "[redacted]"

SHORTEST_SECRET = 8
"""Characters. Shorter ones are the placeholders of local servers (``none``, ``ollama``), and parts of other words."""


class Mask:
    """Takes these very secrets out of data, also where JSON or a URL escapes them. False where there is none to take.

    For what somebody who was sent them says: it may repeat them, and they need not look like secrets.
    """

    __slots__ = ("forms",)

    def __init__(self, *secrets: str | None) -> None:
        self.forms = _forms(secrets)

    def __bool__(self) -> bool:
        return bool(self.forms)

    def without(self, data: bytes) -> bytes:
        """``data`` with :data:`MASK` for the secrets."""
        for form in self.forms:
            data = data.replace(form, MASK.encode())
        return data

    def stream(self) -> StreamMask:
        return StreamMask(self)


def without(data: bytes, *secrets: str | None) -> bytes:
    """``data`` with :data:`MASK` for these secrets."""
    return Mask(*secrets).without(data)


class StreamMask:
    """:meth:`Mask.without` for data that comes in chunks, a secret perhaps across their borders.

    A chunk in which nothing of them stands is given back as it is.
    """

    def __init__(self, mask: Mask) -> None:
        self._mask = mask
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now."""
        data = self._held + chunk if self._held else chunk
        passed: list[bytes] = []
        while True:
            begun = max((_overlap(data, form) for form in self._mask.forms), default=0)
            sure = len(data) - begun  # what follows may be one's beginning
            found = [(at, form) for form in self._mask.forms if 0 <= (at := data.find(form)) < sure]
            if not found:
                break
            at, form = min(found, key=lambda one: one[0])  # of those that begin there, the longest comes first
            passed += (data[:at], MASK.encode())
            data = data[at + len(form) :]
        self._held = data[sure:]
        return b"".join((*passed, data[:sure])) if passed else data[:sure]

    def finish(self) -> bytes:
        """What was held back, at the end."""
        rest, self._held = self._held, b""
        return self._mask.without(rest)


def _forms(secrets: Iterable[str | None]) -> list[bytes]:
    """Each secret as it stands, as JSON may escape it, and as a URL does; one that another begins with, after it."""
    forms: set[str] = set()
    for secret in secrets:
        if secret is not None and len(secret) >= SHORTEST_SECRET:
            escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
            forms |= {secret, escaped, escaped.replace("/", "\\/"), _in_url(secret)}
    return [form.encode() for form in sorted(forms, key=lambda form: (-len(form), form))]


def _overlap(data: bytes, form: bytes) -> int:
    """How many bytes at the end of ``data`` are the beginning of ``form``."""
    at = max(0, len(data) - len(form) + 1)
    while (at := data.find(form[:1], at)) >= 0:
        if form.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0


def _in_url(secret: str) -> str:
    return "".join(one if one.isalnum() or one in "-._~" else f"%{ord(one):02X}" for one in secret)
