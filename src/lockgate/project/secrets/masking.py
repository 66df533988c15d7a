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
    escaped = secret.replace("\\", "\\\\").replace('"', '\\"')
    for form in {secret, escaped, escaped.replace("/", "\\/"), _in_url(secret)}:
        data = data.replace(form.encode(), MASK.encode())
    return data


def _in_url(secret: str) -> str:
    return "".join(one if one.isalnum() or one in "-._~" else f"%{ord(one):02X}" for one in secret)
