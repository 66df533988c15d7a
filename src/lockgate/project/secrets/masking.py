"""Takes a known secret out of text. Pure."""

from __future__ import annotations

MASK = "[redacted]"

SHORTEST_SECRET = 8
"""Characters. Shorter ones are the placeholders of local servers (``none``, ``ollama``), and parts of other words."""


def without(data: bytes, secret: str | None) -> bytes:
    """``data`` with :data:`MASK` for this very secret, also where JSON or a URL escapes it.

    For what somebody who was sent the secret says: it may repeat it, and it need not look like one.
    """
    if secret is None or len(secret) < SHORTEST_SECRET:
        return data
    for form in _forms(secret):
        data = data.replace(form, MASK.encode())
    return data


class StreamMask:
    """:func:`without` for data that comes in chunks, the secret perhaps across their borders.

    A chunk in which nothing of it stands is given back as it is.
    """

    def __init__(self, secret: str) -> None:
        self._secret = secret
        self._forms = _forms(secret)
        self._held = b""

    @classmethod
    def of(cls, secret: str | None) -> StreamMask | None:
        """None where there is no secret, or one too short to be one."""
        return None if secret is None or len(secret) < SHORTEST_SECRET else cls(secret)

    def feed(self, chunk: bytes) -> bytes:
        """What may be passed on now."""
        data = self._held + chunk if self._held else chunk
        if any(form in data for form in self._forms):
            data = without(data, self._secret)
        waits = max(_overlap(data, form) for form in self._forms)
        if not waits:
            self._held = b""
            return data
        self._held = data[-waits:]
        return data[:-waits]

    def finish(self) -> bytes:
        """What was held back, at the end."""
        rest, self._held = self._held, b""
        return rest


def _forms(secret: str) -> list[bytes]:
    """The secret as it stands, as JSON may escape it, and as a URL does."""
    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    return [form.encode() for form in {secret, escaped, escaped.replace("/", "\\/"), _in_url(secret)}]


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
