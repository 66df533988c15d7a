"""faithfulness and hallucination: what an answer claims, against its sources."""

from __future__ import annotations

from lockgate.evals.scorers.judge import Ask, itemize, share, sources_of, unscored
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text, input_text, skip

PROMPTS = {
    "faithfulness": (
        "List every factual claim that the answer makes, one item a claim. The verdict is true when the claim follows "
        "from the sources or the input, and false when it does not, even if it is true in the world."
    ),
    "hallucination": (
        "Go through the sources, one item a source, in their order. The verdict is true when the answer contradicts "
        "that source, and false when it agrees with it or does not speak of it."
    ),
}


def faithfulness(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """The share of the answer's claims that follow from its sources: contexts, what tools returned, the input.

    An answer without a claim is skipped: there is nothing to be unfaithful in.

    Range: 0..1. Needs: a judge; contexts, or a run that called tools. Source: RAGAS's faithfulness (Es et al. 2023).
    """

    async def score(sample: Sample) -> Mark:
        sources = sources_of(sample)
        if not sources:
            return unscored("there are no sources: the case has no contexts, and no tool returned anything")
        material = {"input": input_text(sample.input), "sources": sources, "answer": as_text(sample.output)}
        claims = await itemize(ask, prompt, PROMPTS["faithfulness"], material)
        if isinstance(claims, Mark):
            return claims
        return share(claims, "not supported") if claims else skip("the answer makes no claim")

    return score


def hallucination(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """The share of sources that the answer contradicts.

    Range: 0..1, lower is better. Needs: a judge; contexts, or a run that called tools.
    Source: DeepEval's hallucination metric.
    """

    async def score(sample: Sample) -> Mark:
        sources = sources_of(sample)
        if not sources:
            return unscored("there are no sources: the case has no contexts, and no tool returned anything")
        found = await itemize(
            ask, prompt, PROMPTS["hallucination"], {"sources": sources, "answer": as_text(sample.output)}
        )
        if isinstance(found, Mark):
            return found
        if len(found) != len(sources):
            return unscored(f"the judge gave {len(found)} verdicts on {len(sources)} sources")
        return share(found, "contradicted", bad=True)

    return score
