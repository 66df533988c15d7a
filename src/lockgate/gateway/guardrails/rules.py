"""Rules about what a text may be about: words and phrases, and how many of them it takes. Pure.

Words, not patterns: any number of them costs one look at each word of a text. ``prescri*`` is any word that begins so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

import msgspec

from lockgate.gateway.guardrails.model import Detector, Finding

_TOKEN = re.compile(r"\w+(?:'\w+)*")
_LONGEST_WORD = 64


class Rule(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One topic: ``any`` are words and phrases that name it, ``least`` how many different ones it takes."""

    name: str
    any: tuple[str, ...]
    least: int = 1
    unless: tuple[str, ...] = ()  # words that show another meaning


BUILT_IN: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            name="self_harm",
            any=(
                "kill myself", "killing myself", "end my life", "ending my life", "suicidal", "commit suicide",
                "want to die", "hurt myself", "harm myself", "cut myself", "take my own life", "better off dead",
            ),
        ),
        Rule(
            name="weapons",
            any=(
                "pipe bomb", "build a bomb", "make a bomb", "nerve agent", "sarin", "ricin", "homemade explosive*",
                "improvised explosive*", "molotov cocktail*", "ghost gun*", "untraceable gun*", "mustard gas",
                "dirty bomb", "detonator*",
            ),
            unless=("history", "museum", "novel", "film", "movie"),
        ),
        Rule(
            name="violence",
            any=(
                "kill you", "kill him", "kill her", "kill them all", "shoot up", "beat you up", "going to murder",
                "slit your throat", "mass shooting", "i will hurt you", "burn your house",
            ),
        ),
        Rule(
            name="drugs",
            any=(
                "cook meth*", "synthesize meth*", "synthesise meth*", "buy cocaine", "make crack", "fentanyl recipe",
                "grow shrooms", "extract dmt", "lsd synthesis",
            ),
        ),
        Rule(
            name="malware",
            any=(
                "write ransomware", "create ransomware", "build a keylogger", "write a keylogger", "make a virus",
                "undetectable malware", "ddos script", "phishing kit", "reverse shell payload", "steal cookies",
                "credential stealer", "write malware", "create malware",
            ),
        ),
        Rule(
            name="medical_advice",
            any=("diagnos*", "prescri*", "dosage", "milligram*", "medication*", "symptom*", "antibiotic*"),
            least=2,
        ),
        Rule(
            name="legal_advice",
            any=("sue", "lawsuit", "liable", "attorney*", "litigation", "plaintiff", "defendant", "custody", "felony"),
            least=2,
        ),
        Rule(
            name="financial_advice",
            any=("invest in", "buy shares", "stock tip*", "crypto*", "day trading", "short selling", "portfolio"),
            least=2,
        ),
    )
}  # fmt: skip


class Topics:
    """Finds where texts speak of what the rules name. A finding's kind is its rule's name.

    A rule that asks for several words, or that has exceptions, is a matter of the whole text: :func:`broken` decides.
    """

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._exact: dict[str, list[tuple[tuple[str, ...], str]]] = {}
        self._prefixes: list[tuple[str, tuple[str, ...], str]] = []
        self._most = 1
        for rule in rules:
            for phrase in rule.any:
                parts = tuple(phrase.casefold().split())
                self._most = max(self._most, len(parts))
                if parts[0].endswith("*"):
                    self._prefixes.append((parts[0][:-1], parts, rule.name))
                else:
                    self._exact.setdefault(parts[0], []).append((parts, rule.name))
        self._firsts = (*self._exact, *(prefix for prefix, _, _ in self._prefixes))
        self._starts = tuple(prefix for prefix, _, _ in self._prefixes)
        self.longest = self._most * (_LONGEST_WORD + 3) + 2

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        folded = text[start:].casefold()
        if not any(first in folded for first in self._firsts):
            return
        tokens = [(match[0].casefold(), match.start(), match.end()) for match in _TOKEN.finditer(text, start)]
        if tokens and tokens[0][1] == start and _goes_on(text, start):
            tokens = tokens[1:]  # the end of a word that began before
        floor = start
        for number, (word, first, _) in enumerate(tokens):
            if first < floor:
                continue
            best: Finding | None = None
            for parts, name in self._candidates(word):
                end = _matches(tokens, number, parts, text)
                if end and (best is None or end > best.end):
                    best = Finding(first, end, name)
            if best is not None:
                floor = best.end
                yield best

    def tail(self, text: str, start: int = 0) -> int:
        least = max(start, len(text) - self.longest)
        end = text[least:]
        starts = [match.start() for match in _TOKEN.finditer(end)]
        if not starts:
            return len(text)
        # As many words as a phrase may still lack, but only where one of them can begin a phrase.
        for place in starts[-self._most :] if self._most > 1 else starts[-1:]:
            match = _TOKEN.match(end, place)
            assert match is not None
            word = match[0].casefold()
            if end[match.end() :] in ("", "'"):  # it may go on
                return least + place
            if any(len(parts) > 1 for parts, _ in self._candidates(word)):
                return least + place
        return len(text)

    def _candidates(self, word: str) -> Iterator[tuple[tuple[str, ...], str]]:
        yield from self._exact.get(word, ())
        if self._starts and word.startswith(self._starts):
            for prefix, parts, name in self._prefixes:
                if word.startswith(prefix):
                    yield parts, name


def _goes_on(text: str, place: int) -> bool:
    """Whether a word that began before goes on here."""
    before = text[max(0, place - 2) : place]
    before = before.removesuffix("'") if len(before) > 1 else before
    return bool(before) and (before[-1].isalnum() or before[-1] == "_")


def _matches(tokens: Sequence[tuple[str, int, int]], number: int, parts: tuple[str, ...], text: str) -> int:
    """Where the phrase ends that begins at a token; 0 when it does not. Its words stand in one sentence."""
    if number + len(parts) > len(tokens):
        return 0
    previous = tokens[number][1]
    for part, (word, first, end) in zip(parts, tokens[number : number + len(parts)], strict=True):
        if end - first > _LONGEST_WORD or first - previous > 3:
            return 0
        if part != word and not (part.endswith("*") and word.startswith(part[:-1])):
            return 0
        if any(mark in ".!?;:\n" for mark in text[previous:first]):
            return 0
        previous = end
    return previous


def topics(rules: Sequence[Rule]) -> Detector:
    """The detector of some rules."""
    return Topics(rules)


def broken(text: str, rules: Sequence[Rule], topics: Topics) -> dict[str, list[Finding]]:
    """The rules that a whole text breaks, each with where."""
    found: dict[str, list[Finding]] = {}
    for finding in topics.scan(text):
        found.setdefault(finding.kind, []).append(finding)
    lowered = text.casefold() if any(rule.unless for rule in rules) and found else ""
    result = {}
    for rule in rules:
        hits = found.get(rule.name, [])
        if not hits or any(word.casefold() in lowered for word in rule.unless):
            continue
        if len({text[hit.start : hit.end].casefold() for hit in hits}) >= rule.least:
            result[rule.name] = hits
    return result
