"""answer_relevance: the answer is about the question."""

from __future__ import annotations

from lockgate.evals.scorers.judge import Ask, itemize, share
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text, input_text

PROMPTS = {
    "answer_relevance": (
        "Take the answer apart into its statements, one item a statement. The verdict is true when the statement "
        "helps to answer the input, and false when it is beside the point, empty, or evades the question."
    ),
}


def answer_relevance(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """The share of the answer's statements that help to answer the input; an empty answer is 0.

    Range: 0..1. Needs: a judge. Source: DeepEval's answer relevancy; as in RAGAS's, evasion counts for nothing.
    """

    async def score(sample: Sample) -> Mark:
        answer = as_text(sample.output)
        if not answer.strip():
            return Mark(0.0, "the answer is empty")
        found = await itemize(
            ask, prompt, PROMPTS["answer_relevance"], {"input": input_text(sample.input), "answer": answer}
        )
        if isinstance(found, Mark):
            return found
        return share(found, "beside the point") if found else Mark(0.0, "the answer states nothing")

    return score
