"""A panel of judges: each grades alone, the median counts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from statistics import median
from typing import Any

from lockgate.errors import LockgateError
from lockgate.evals.scorers.judge import Ask, JudgeReply, unscored
from lockgate.evals.scorers.sample import Mark, Sample, Scorer


def panel_of(make: Callable[..., Scorer], options: dict[str, Any], members: int) -> Scorer:
    """The scorer with ``members`` judges. Fewer than half with a usable answer: unscored.

    Source: panels of LLM evaluators (Verga et al. 2024, arXiv 2404.18796), with the median instead of the mean.
    """
    scorers = [make(**{**options, "ask": _member(options["ask"], number)}) for number in range(members)]

    async def score(sample: Sample) -> Mark:
        marks = await asyncio.gather(*(_mark(scorer, sample) for scorer in scorers))
        values = [mark.value for mark in marks if mark.value is not None]
        if not values and all(mark.status == "skipped" for mark in marks):
            return marks[0]
        if len(values) * 2 < members:
            why = next((mark.reason for mark in marks if mark.value is None), "")
            return unscored(f"{members - len(values)} of {members} judges gave no usable answer: {why}")
        said = ", ".join("–" if mark.value is None else f"{mark.value:g}" for mark in marks)
        worst = min(marks, key=lambda mark: 2.0 if mark.value is None else mark.value)
        return Mark(float(median(values)), f"panel {said}. {worst.reason}"[:500])

    return score


async def _mark(scorer: Scorer, sample: Sample) -> Mark:
    try:
        found = scorer(sample)
        return found if isinstance(found, Mark) else await found
    except LockgateError as failure:
        return unscored(failure.message)


def _member(ask: Ask, number: int) -> Ask:
    async def one(messages: list[dict[str, str]], schema: dict[str, Any], *, member: int = 0) -> JudgeReply:
        return await ask(messages, schema, member=number)

    return one
