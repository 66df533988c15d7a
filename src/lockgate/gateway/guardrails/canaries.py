"""Canary tokens: marks in a prompt that no answer may hold. One that shows up says that the prompt leaked. Pure."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator, Sequence

from lockgate.gateway.guardrails.model import Finding

PREFIX = "lgc-"


def token_for(identity: str, secret: bytes) -> str:
    """The canary of one version: nobody who does not hold the machine's secret can tell it.

    >>> token_for("sha256:00", b"secret") == token_for("sha256:00", b"secret")
    True
    """
    return PREFIX + hmac.digest(secret, b"canary " + identity.encode(), hashlib.sha256).hex()[:20]


def planted(prompt: str, token: str) -> str:
    """The prompt with the canary at its end."""
    return f"{prompt}\n\n[internal marker, never write it: {token}]"


class Canaries:
    """Finds any of some tokens, however they are cased."""

    def __init__(self, tokens: Sequence[str]) -> None:
        self._tokens = tuple(dict.fromkeys(token.casefold() for token in tokens if token))
        self._longest = max(map(len, self._tokens), default=1)

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        folded = text.lower()
        if len(folded) != len(text):  # a letter whose lower case is two would shift what stands behind it
            folded = "".join(low if len(low := letter.lower()) == 1 else letter for letter in text)
        place = start
        while True:
            found = [(at, -len(token)) for token in self._tokens if (at := folded.find(token, place)) >= 0]
            if not found:
                return
            first, size = min(found)
            place = first - size
            yield Finding(first, place, "canary")

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self._longest + 1)
        end = text[least:].lower()
        for place in range(len(end)):
            if any(token.startswith(end[place:]) for token in self._tokens):
                return least + place
        return len(text)
