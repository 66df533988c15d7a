"""What the guardrails find and miss, on texts of our own writing, and what they take: microseconds for each kB of text.

    python benchmarks/guardrails.py [--misses]

The sets are in ``tests/data/guardrails``. They were written by the same people as the checks, so the figures say how
the checks do on what we thought of, not on the world: measure on your own texts before you rely on one.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockgate.gateway.guardrails import canaries, injection, personal, rules, secrets
from lockgate.gateway.guardrails.model import Detector
from lockgate.gateway.guardrails.policy import DEFAULT_THRESHOLD
from lockgate.gateway.guardrails.windows import Window, findings, redacted

SETS = Path(__file__).parent.parent / "tests" / "data" / "guardrails"


def read(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (SETS / f"{name}.jsonl").read_text().splitlines()]


def detection(name: str, detectors: list[Detector]) -> tuple[Counter[str], list[str]]:
    """Found, missed and invented findings, and clean texts with and without any; and the lines that went wrong."""
    counts: Counter[str] = Counter()
    wrong = []
    for row in read(name):
        expected, found = Counter(row["kinds"]), Counter(one.kind for one in findings(row["text"], detectors))
        counts["found"] += (expected & found).total()
        counts["missed"] += (expected - found).total()
        counts["invented"] += (found - expected).total()
        if not expected:
            counts["clean"] += 1
            counts["clean and hit"] += bool(found)
        if expected != found:
            wrong.append(f"{row['text'][:70]!r}: expected {dict(expected)}, found {dict(found)}")
    return counts, wrong


def injections() -> tuple[Counter[str], list[str]]:
    counts: Counter[str] = Counter()
    wrong = []
    for row in read("injection"):
        score = injection.score(row["text"], untrusted=row["role"] == "tool")
        said = score.value >= DEFAULT_THRESHOLD
        counts["found" if said else "missed"] += row["injection"]
        if not row["injection"]:
            counts["clean"] += 1
            counts["clean and hit"] += said
        if said != row["injection"]:
            wrong.append(f"{row['text'][:90]!r}: {score.value} {score.marks}")
    return counts, wrong


PROSE = (
    "Thank you for writing to us. Your order 4711 was handed to the carrier on Tuesday, 12 March 2024, and ought to "
    "arrive within three working days. If it does not, answer to this message and we shall look into it at once. "
    "The invoice over 129.90 EUR is attached; returns are free for 30 days, as long as the item is unused. "
)
HITS = (
    "Write to alice@example.com or call +49 30 901820; the card was 4111 1111 1111 1111, key sk-abcdefghijklmnop1234. "
)


def micros_a_kb(check: Callable[[str], object], text: str, seconds: float = 0.2) -> float:
    best = float("inf")
    for _ in range(3):
        rounds, began = 0, time.perf_counter()
        while time.perf_counter() - began < seconds / 3:
            check(text)
            rounds += 1
        best = min(best, (time.perf_counter() - began) / rounds)
    return best * 1e6 / (len(text) / 1024)


def in_pieces(detectors: list[Detector]) -> Callable[[str], object]:
    def run(text: str) -> None:
        window = Window(detectors)
        for place in range(0, len(text), 4):
            window.feed(text[place : place + 4])
        window.finish()

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--misses", action="store_true", help="print what went wrong")
    parser.add_argument("--quick", action="store_true", help="detection only, no timing")
    options = parser.parse_args()
    found = {
        "personal data": detection("personal", personal.detectors()),
        "secrets": detection("secrets", secrets.detectors()),
        "prompt injection": injections(),
    }
    print(f"{'':<18} {'there are':>9} {'found':>6} {'missed':>14} {'clean texts':>12} {'hit wrongly':>16}")
    for name, (counts, wrong) in found.items():
        there = counts["found"] + counts["missed"]
        print(
            f"{name:<18} {there:>9} {counts['found']:>6} {counts['missed']:>5} ({counts['missed'] / there:6.1%})"
            f" {counts['clean']:>12} {counts['clean and hit']:>7} ({counts['clean and hit'] / counts['clean']:6.1%})"
        )
        if options.misses:
            print(*(f"    {line}" for line in wrong), sep="\n")
    if options.quick:
        return
    prose = (PROSE * 30)[:8192]
    hits = ((PROSE + HITS) * 30)[:8192]
    topics = [rules.Topics(list(rules.BUILT_IN.values()))]
    pii, keys, both = personal.detectors(), secrets.detectors(), [*personal.detectors(), *secrets.detectors()]
    checks: dict[str, Callable[[str], object]] = {
        "pii": lambda text: redacted(text, pii),
        "secrets": lambda text: redacted(text, keys),
        "injection": injection.score,
        "topics (8 rules)": lambda text: redacted(text, topics),
        "canary": lambda text: redacted(text, [canaries.Canaries(["lgc-00112233445566778899"])]),
        "pii + secrets, a stream of pieces of 4": in_pieces(both),
    }
    print(f"\n{'µs a kB':<42} {'prose':>8} {'with findings':>14}")
    for name, check in checks.items():
        print(f"{name:<42} {micros_a_kb(check, prose):>8.1f} {micros_a_kb(check, hits):>14.1f}")


if __name__ == "__main__":
    main()
