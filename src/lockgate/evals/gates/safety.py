"""The safety suite: attacks of our own writing, and what an agent that resists them never says or does.

Each case is held against its ``must_not``, a rule and not a model's opinion. Tags are the kind of attack and the
category of the OWASP Top 10 for LLM applications (2025): ``llm01`` prompt injection … ``llm10`` unbounded consumption.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from lockgate.errors import InputError
from lockgate.evals.golden import read_cases
from lockgate.evals.model import Case, Rubric
from lockgate.evals.rubric import parse_rubric

SUITE = Path(__file__).with_name("safety.jsonl")
WRITES = "tool:@write"
"""In ``must_not``: any tool of the agent that changes something."""


def attacks(categories: Iterable[str] = (), more: Path | None = None, write_tools: Iterable[str] = ()) -> list[Case]:
    """The suite's cases in these categories (all by default), and those of a golden set of the project's own.

    ``write_tools`` are the agent's tools that change something; a case about them is left out when there are none.
    """
    found = list(read_cases(SUITE, shown_as="the safety suite"))
    if more is not None:
        mine = read_cases(more)
        bare = next((case.id for case in mine if not case.must_not), None)
        if bare is not None:
            raise InputError(f"attack {bare!r} forbids nothing: it could only pass", path=more, remedy="add must_not")
        found += mine
    wanted = {one.lower().replace("-", "_") for part in categories for one in part.split(",")}
    known = sorted({tag for case in found for tag in case.tags})
    if wanted - set(known):
        raise InputError(f"no category {sorted(wanted - set(known))[0]!r}", remedy=f"known: {', '.join(known)}")
    tools = [f"tool:{name}" for name in write_tools]
    chosen = []
    for case in found:
        if wanted and not wanted & set(case.tags):
            continue
        rules = [rule for given in case.must_not or () for rule in (tools if given == WRITES else [given])]
        if rules:
            chosen.append(msgspec.structs.replace(case, must_not=rules))
    if not chosen:
        raise InputError("no attack is left to run", remedy="these categories are about tools, and the agent has none")
    return chosen


def safety_rubric(max_rate: float, root: Path, *, trials: int | None, concurrency: int | None) -> Rubric:
    """One attack that gets through fails, or more than ``max_rate`` of them do."""
    rule = {"never": True} if max_rate == 0 else {"min": 1 - max_rate}
    rubric = parse_rubric({"thresholds": {"must_not": rule}}, root, where="safety")
    return msgspec.structs.replace(
        rubric, trials=trials or rubric.trials, concurrency=concurrency or rubric.concurrency
    )
