"""context_precision, context_recall, context_entity_recall: what was retrieved, against the expected answer."""

from __future__ import annotations

from typing import Any

from lockgate.evals.scorers.judge import Ask, itemize, share, sources_of, unscored
from lockgate.evals.scorers.sample import NO_EXPECTED, Mark, Sample, Scorer, as_text, input_text, skip

PROMPTS = {
    "context_precision": (
        "Go through the contexts, one item a context, in their order. The verdict is true when that context was useful "
        "for arriving at the expected answer to the input, and false when it was not."
    ),
    "context_recall": (
        "Take the expected answer apart into its statements, one item a statement. The verdict is true when the "
        "statement can be attributed to the contexts, and false when it cannot."
    ),
    "context_entity_recall": (
        "List the distinct entities of the expected answer (people, places, organisations, products, dates, amounts), "
        "one item an entity. The verdict is true when the entity also stands in the contexts, and false when not."
    ),
}


def context_precision(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """Whether useful contexts come first: the mean of precision@k over the places k of useful ones; none useful is 0.

    Contexts are the case's, or what tools returned, in order.

    Range: 0..1. Needs: a judge, expected_output; contexts, or a run that called tools.
    Source: RAGAS's context precision with reference: Σ precision@k·useful(k) / Σ useful(k).
    """

    async def score(sample: Sample) -> Mark:
        material = _material(sample)
        if isinstance(material, Mark):
            return material
        found = await itemize(ask, prompt, PROMPTS["context_precision"], material)
        if isinstance(found, Mark):
            return found
        if len(found) != len(material["contexts"]):
            return unscored(f"the judge gave {len(found)} verdicts on {len(material['contexts'])} contexts")
        return Mark(average_precision([useful for _, useful in found]))

    return score


def context_recall(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """The share of the expected answer's statements that can be attributed to the contexts.

    Range: 0..1. Needs: a judge, expected_output; contexts, or a run that called tools. Source: RAGAS's context recall.
    """
    return _recall("context_recall", "not in the contexts", ask, prompt)


def context_entity_recall(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """The share of the expected answer's entities that stand in the contexts.

    Range: 0..1. Needs: a judge, expected_output; contexts, or a run that called tools.
    Source: RAGAS's context entity recall.
    """
    return _recall("context_entity_recall", "not in the contexts", ask, prompt)


def average_precision(useful: list[bool]) -> float:
    """Σ precision@k·useful(k) / Σ useful(k); 0 when none is useful."""
    hits, total = 0, 0.0
    for place, one in enumerate(useful, 1):
        if one:
            hits += 1
            total += hits / place
    return total / hits if hits else 0.0


def _recall(name: str, wrong: str, ask: Ask, prompt: str | None) -> Scorer:
    async def score(sample: Sample) -> Mark:
        material = _material(sample)
        if isinstance(material, Mark):
            return material
        found = await itemize(ask, prompt, PROMPTS[name], material)
        if isinstance(found, Mark):
            return found
        return share(found, wrong) if found else skip("the judge found nothing to recall in the expected answer")

    return score


def _material(sample: Sample) -> dict[str, Any] | Mark:
    if sample.case is None or sample.case.expected_output is None:
        return NO_EXPECTED
    contexts = list(sample.case.contexts or ()) or sources_of(sample)
    if not contexts:
        return unscored("there are no contexts, and no tool returned anything")
    return {
        "input": input_text(sample.input),
        "contexts": contexts,
        "expected_answer": as_text(sample.case.expected_output),
    }
