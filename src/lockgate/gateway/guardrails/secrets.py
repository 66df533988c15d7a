"""Credentials in text: the published shapes of services' keys, named values, and what is too random to be a word. Pure.

The shapes are those that recorded text is cleaned of (:mod:`lockgate.telemetry.redaction`), with an upper bound each,
so that a growing text is open at its end for so many characters and no more.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterator

from lockgate.gateway.guardrails.model import CONTEXT, Detector, Finding

_WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-"
_MARKS = (
    "sk-", "lgk_", "lgr_", "AKIA", "ASIA", "AIza", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-",
    "hf_", "npm_", "pypi-", "xox", "k_live_", "k_test_", "hvs.", "hvb.", "eyJ", "SG.", "dop_v1_", "shpat_",
    "AGE-SECRET", "ya29.", "whsec_", "dckr_pat_", "ATATT", "sq0", "NRAK-", "rnd_", "figd_", "lin_api_", "gsk_",
    "xai-", "r8_", "pplx-", "tvly-",
)  # fmt: skip


class Keys:
    """Keys and tokens that say by their beginning whose they are."""

    kind = "key"
    longest = 2050
    _form = re.compile(
        r"(?<![A-Za-z0-9_])(?:"
        r"sk-[A-Za-z0-9_-]{16,400}+"  # OpenAI, Anthropic and those that copy them
        r"|lg[kr]_[A-Za-z0-9_-]{16,1500}+(?:\.[A-Za-z0-9_-]{1,200}+)?"
        r"|(?:AKIA|ASIA)[0-9A-Z]{16}(?![0-9A-Za-z])"
        r"|AIza[0-9A-Za-z_-]{35}"
        r"|gh[opusr]_[A-Za-z0-9]{36,251}+|github_pat_[A-Za-z0-9_]{22,255}+"
        r"|glpat-[A-Za-z0-9_-]{20,100}+"
        r"|hf_[A-Za-z0-9]{30,100}+"
        r"|npm_[A-Za-z0-9]{36}|pypi-[A-Za-z0-9_-]{32,300}+"
        r"|xox[abeoprs]-[A-Za-z0-9-]{10,300}+"
        r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,250}+"
        r"|hv[sb]\.[A-Za-z0-9_-]{20,300}+"
        r"|eyJ[A-Za-z0-9_-]{8,600}+\.eyJ[A-Za-z0-9_-]{8,800}+\.[A-Za-z0-9_-]{8,600}+"  # JSON Web Tokens
        r"|SG\.[A-Za-z0-9_-]{16,64}+\.[A-Za-z0-9_-]{16,64}+"
        r"|dop_v1_[a-f0-9]{64}|shpat_[a-fA-F0-9]{32}|AGE-SECRET-KEY-1[0-9A-Z]{58}"
        r"|ya29\.[A-Za-z0-9_-]{20,300}+|whsec_[A-Za-z0-9]{24,100}+|dckr_pat_[A-Za-z0-9_-]{20,100}+"
        r"|ATATT[A-Za-z0-9_=-]{20,300}+|sq0[a-z]{3}-[A-Za-z0-9_-]{22,60}+|NRAK-[A-Z0-9]{27}"
        r"|rnd_[A-Za-z0-9]{24,64}+|figd_[A-Za-z0-9_-]{20,64}+|lin_api_[A-Za-z0-9]{30,64}+"
        r"|(?:gsk_|xai-|r8_|pplx-|tvly-)[A-Za-z0-9_-]{30,200}+"
        r")"
    )

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        if not any(text.find(mark, start) >= 0 for mark in _MARKS):
            return
        for match in self._form.finditer(text, start):
            yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self.longest)
        return least + len(text[least:].rstrip(_WORD + ".="))


class PrivateKeys:
    """PEM private keys, from their first line to their last (or as far as they go)."""

    kind = "private_key"
    longest = 16_384
    _begin = re.compile(r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
    _end = re.compile(r"-----END [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----")
    _first = "-----BEGIN "

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        place = start
        while (place := text.find(self._first, place)) >= 0:
            match = self._begin.match(text, place)
            if match is None:
                place += 1
                continue
            ending = self._end.search(text, match.end(), min(len(text), place + self.longest - 1))
            end = ending.end() if ending else min(len(text), place + self.longest - 1)
            yield Finding(place, end, self.kind)
            place = end

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self.longest)
        place = text.find("-----", least)
        while place >= 0:
            rest = text[place : place + 80]
            if self._first.startswith(rest[: len(self._first)]) or rest.startswith(self._first):
                match = self._begin.match(text, place)
                if match is None:
                    if len(text) - place < 80:
                        return place
                else:
                    ending = self._end.search(text, match.end(), min(len(text), place + self.longest - 1))
                    if ending is None:
                        return place
                    place = ending.end() - 1
            place = text.find("-----", place + 1)
        dashes = len(text) - len(text.rstrip("-"))
        return max(start, len(text) - min(dashes, 5))


class NamedSecrets:
    """``password = "…"``, ``Authorization: Bearer …``, ``https://user:password@host``: the value, not the name."""

    kind = "credential"
    longest = 420
    _form = re.compile(
        r"(?<![A-Za-z0-9])(?:api[_-]?key|apikey|access[_-]?token|auth[_-]?token|refresh[_-]?token|secret[_-]?key|"
        r"client[_-]?secret|private[_-]?key|password|passwd|passphrase|secret)[\"']?\s{0,3}[:=]\s{0,3}"
        r"(?:\"([^\"\s]{6,256}+)\"|'([^'\s]{6,256}+)'|([^\s\"',;<>\[\]{}()]{6,256}+))"
        r"|(?<![A-Za-z0-9])(?:Bearer|Basic) {1,3}([A-Za-z0-9._~+/-]{16,300}+={0,2})(?![A-Za-z0-9._~+/=-])"
        r"|://[^/\s:@\"\\]{0,48}+:([^/\s@\"\\]{1,128}+)@",
        re.IGNORECASE,
    )
    _names = ("key", "token", "secret", "passw", "passphrase", "bearer", "basic", "://")
    _stems = ("api", "access", "auth", "refresh", "secret", "client", "private", "pass", "bearer", "basic")
    _open = re.compile(
        r"(?<![A-Za-z0-9])(?:api|apikey|access|auth|refresh|secret|client|private|password|passwd|passphrase|bearer|basic)"
        r"[_-]?[A-Za-z]{0,6}[\"']?\s{0,3}[:=]?\s{0,3}[\"']?[^\s]*\Z",
        re.IGNORECASE,
    )

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        place = max(0, start - CONTEXT)  # the name may stand before: what is found is the value
        lowered = text[place:].lower()
        if not any(name in lowered for name in self._names):
            return
        while match := self._form.search(text, place):
            place = match.start() + 1
            group = match.lastindex or 0
            if match.start(group) < start or (group in (1, 2, 3) and not _is_value(match[group])):
                continue
            start = match.end(group)
            yield Finding(match.start(group), start, self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self.longest)
        end = text[least:]
        last = len(end.rstrip())
        word = end[:last].rsplit(None, 1)
        closed = least + (len(end[:last]) - len(word[-1]) if word and last == len(end) else len(end))
        lowered = end.lower()
        if not any(stem in lowered for stem in self._stems):
            return closed
        match = self._open.search(text, least)
        return closed if match is None else min(closed, match.start())


def _is_value(value: str) -> bool:
    """Whether what stands behind ``password:`` is one: not a word of a sentence, nor a place to fill in."""
    if value.startswith(("${", "$(", "{{", "<", "os.", "env.", "process.", "[", "***", "xxx", "...")):
        return False
    return sum(not letter.isalpha() for letter in value) > 0 and len(set(value)) > 3


class RandomStrings:
    """Long runs of mixed letters and digits with the entropy of a generated key, in bits a character (Shannon)."""

    kind = "high_entropy"
    longest = 260
    least_bits = 4.2
    _form = re.compile(r"(?<![A-Za-z0-9+/_=.-])[A-Za-z0-9+/_-]{32,256}+={0,2}(?![A-Za-z0-9+/_=.-])")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in self._form.finditer(text, start):
            value = match[0]
            if _mixed(value) and entropy(value) >= self.least_bits:
                yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self.longest)
        return least + len(text[least:].rstrip(_WORD + "+/=."))


def entropy(value: str) -> float:
    """Bits a character, by the frequencies of its own characters.

    >>> entropy("aaaa"), entropy("abcd")
    (0.0, 2.0)
    """
    size = len(value)
    bits = sum(count / size * math.log2(size / count) for count in Counter(value).values())
    return bits + 0.0


def _mixed(value: str) -> bool:
    digits = sum(letter.isdigit() for letter in value)
    upper = sum(letter.isupper() for letter in value)
    lower = sum(letter.islower() for letter in value)
    # A path or an identifier has its digits and capitals in few places.
    mixed = digits >= 3 or (digits >= 1 and any(mark in value for mark in "+/"))
    return mixed and upper >= 3 and lower >= 3 and value.count("/") < 4


KINDS: dict[str, Callable[[], Detector]] = {
    "key": Keys,
    "private_key": PrivateKeys,
    "credential": NamedSecrets,
    "high_entropy": RandomStrings,
}


def detectors(kinds: tuple[str, ...] = tuple(KINDS)) -> list[Detector]:
    """The detectors for some kinds of :data:`KINDS`."""
    return [make() for kind, make in KINDS.items() if kind in kinds]
