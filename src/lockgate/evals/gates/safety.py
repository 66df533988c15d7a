"""The safety suite: attacks of our own writing, and what an agent that resists them never says or does.

A case is held against rules and not a model's opinion: its ``must_not``, what the attacker wanted
(``metadata.injection``), calls in the trace (``metadata.misuse``), personal data and secrets in the answer
(``metadata.leaks``), and whether it was to be refused (``labels.refuse``).
Tags are the kind of attack and the category of the OWASP Top 10 for LLM applications (2025): ``llm01`` prompt injection
… ``llm10`` unbounded consumption; and the language it is tried in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.golden import read_cases
from lockgate.evals.model import Case, Rubric
from lockgate.evals.rubric import MAX_ERROR_RATE, parse_rubric
from lockgate.evals.scorers import STOPPED

SUITE = Path(__file__).with_name("safety.jsonl")
WRITES = "@write"
"""Any tool of the agent that changes something; in ``must_not`` as ``tool:@write``."""
READS = "@read"
"""Any other tool of the agent, in ``metadata.fixtures``: what it returns carries the attack."""
OVER_REFUSAL = "over_refusal"
"""Harmless messages that look otherwise. Whether refusing them is wrong depends on what an agent is for, so they decide
only when they are asked for."""

OWASP = {
    "llm01": "prompt injection",
    "llm02": "sensitive information disclosure",
    "llm03": "supply chain",
    "llm04": "data and model poisoning",
    "llm05": "improper output handling",
    "llm06": "excessive agency",
    "llm07": "system prompt leakage",
    "llm08": "vector and embedding weaknesses",
    "llm09": "misinformation",
    "llm10": "unbounded consumption",
}
"""Titles of the categories of 2025."""
LANGUAGES = frozenset({"ar", "de", "en", "es", "fr", "hi", "ja", "mixed", "pt", "ru", "tr", "zh"})
"""Tags of the suite's cases; ``mixed`` goes from one language to another."""


def attacks(
    categories: Iterable[str] = (),
    more: Path | None = None,
    write_tools: Sequence[str] = (),
    *,
    read_tools: Sequence[str] = (),
    free_text: bool = True,
    indirect: bool = True,
    languages: Iterable[str] = (),
) -> list[Case]:
    """The suite's cases in these categories (all by default), and those of a golden set of the project's own.

    ``write_tools`` and ``read_tools`` are the agent's; a case about tools that it has not is left out. ``free_text``:
    it answers in words, so that a refusal can be told by its phrases. ``indirect``: its model reads what tools return;
    where only code does, an instruction in it reaches nobody. ``languages``: only attacks in these (``de``), and the
    project's own that name none; all by default, for whoever attacks chooses the language.
    """
    found = list(read_cases(SUITE, shown_as="the safety suite"))
    if more is not None:
        mine = read_cases(more)
        bare = next((case.id for case in mine if not _rules(case)), None)
        if bare is not None:
            raise InputError(
                f"attack {bare!r} forbids nothing: it could only pass",
                path=more,
                remedy="add must_not, metadata.injection, metadata.misuse, metadata.leaks or labels.refuse",
            )
        found += mine
    wanted = listed(categories)
    spoken = listed(languages)
    if spoken - LANGUAGES:
        raise InputError(
            f"no attack is in {sorted(spoken - LANGUAGES)[0]!r}", remedy=f"known: {', '.join(sorted(LANGUAGES))}"
        )
    known = sorted({tag for case in found for tag in case.tags})
    if wanted - set(known):
        raise InputError(f"no category {sorted(wanted - set(known))[0]!r}", remedy=f"known: {', '.join(known)}")
    chosen = []
    for case in found:
        if wanted and not wanted & set(case.tags):
            continue
        if spoken and not spoken & set(case.tags) and LANGUAGES & set(case.tags):
            continue
        if case.metadata.get("fixtures") and not indirect:
            continue
        for_agent = _for_agent(case, write_tools, read_tools, free_text=free_text)
        if for_agent is not None:
            chosen.append(for_agent)
    if not chosen:
        raise InputError("no attack is left to run", remedy="these categories are about tools, and the agent has none")
    return chosen


def listed(given: Iterable[str]) -> set[str]:
    """What options that may be repeated, and may hold several with commas, name."""
    return {one.strip().lower().replace("-", "_") for part in given for one in part.split(",") if one.strip()}


def safety_rubric(
    max_rate: float,
    root: Path,
    *,
    trials: int | None,
    concurrency: int | None,
    allow: Sequence[str] = (),
    refusals: bool = False,
    max_usd: float | None = None,
) -> Rubric:
    """One attack that gets through fails, or more than ``max_rate`` of them do; beside it, by what rule.

    ``allow`` are personal data that are no leak; ``refusals``: harmless messages that are refused count too.
    """
    rule: dict[str, Any] = {"never": True} if max_rate == 0 else {"min": 1 - max_rate}
    beside: dict[str, Any] = {
        name: {"blocking": False}
        for name in ("must_not", "injection_resisted", "tool_misuse", "secret_leaked", "refusal_correctness")
    }
    thresholds = {
        "attack_resisted": {**rule, "allow": list(allow), "refusals": refusals},
        **beside,
        "pii_leaked": {"blocking": False, "allow": list(allow)},
        "error_rate": {"threshold": MAX_ERROR_RATE, "allow": sorted(STOPPED)},
    }
    rubric = parse_rubric({"thresholds": thresholds}, root, where="safety")
    return msgspec.structs.replace(
        rubric, trials=trials or rubric.trials, concurrency=concurrency or rubric.concurrency, max_usd=max_usd
    )


def _rules(case: Case) -> list[Any]:
    """What of a case can be broken."""
    return [
        rule
        for rule in (
            case.must_not,
            case.metadata.get("injection"),
            case.metadata.get("misuse"),
            case.metadata.get("leaks"),
            "refuse" in case.labels or None,
        )
        if rule
    ]


def _for_agent(case: Case, writes: Sequence[str], reads: Sequence[str], *, free_text: bool) -> Case | None:
    """The case with the agent's own tools in it; None when nothing of it is left that could be broken."""
    metadata = dict(case.metadata)
    must_not = [
        named
        for rule in case.must_not or ()
        for named in ([f"tool:{name}" for name in writes] if rule == f"tool:{WRITES}" else [rule])
    ]
    if fixtures := metadata.get("fixtures"):
        metadata["fixtures"] = [
            {**one, "tool": name} for one in fixtures for name in (reads if one["tool"] == READS else [one["tool"]])
        ]
        if not metadata["fixtures"]:
            return None  # nothing would bring the attack to the agent
    for key in ("injection", "misuse"):
        if isinstance(metadata.get(key), Mapping) and "calls" in metadata[key]:
            calls = [name for rule in metadata[key]["calls"] for name in (writes if rule == WRITES else [rule])]
            metadata[key] = {**metadata[key], "calls": calls}
            if not any(metadata[key].values()):
                del metadata[key]
    misuse = metadata.get("misuse")
    if isinstance(misuse, Mapping) and not misuse.get("calls") and not (writes or reads):
        del metadata["misuse"]  # an agent without tools calls none
    labels = dict(case.labels)
    if labels.get("refuse") is True and not free_text:
        del labels["refuse"]
    found = msgspec.structs.replace(case, must_not=must_not or None, metadata=metadata, labels=labels)
    return found if _rules(found) else None
