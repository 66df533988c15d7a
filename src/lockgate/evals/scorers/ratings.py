"""tone, helpfulness, completeness, actionability: graded in three steps, with the steps spelled out."""

from __future__ import annotations

from lockgate.evals.scorers.judge import Ask, verdict
from lockgate.evals.scorers.sample import Mark, Sample, Scorer

PROMPTS = {
    "tone": "Is the tone of the answer, from first to last word, {tone}? (partly: with lapses)",
    "helpfulness": (
        "Would the person who wrote the input be helped by the answer? (yes: it moves them to what they want; "
        "partly: some use, but they must ask again; no: no use, or misleading)"
    ),
    "completeness": (
        "Does the answer cover every part of what the input asks for, and every condition it names? "
        "(partly: the main part, not all; no: the main part is missing)"
    ),
    "actionability": (
        "Does the answer tell the reader what to do next, in steps concrete enough to follow without asking again? "
        "(partly: steps, but vague or with gaps; no: none)"
    ),
}


def tone(*, ask: Ask, tone: str = "friendly, calm and professional", prompt: str | None = None) -> Scorer:
    """Whether the answer has the wanted ``tone``: yes 1, partly 0.5, no 0.

    Range: 0, 0.5 or 1. Needs: a judge. Source: our own wording.
    """
    return _rating(PROMPTS["tone"].format(tone=tone), ask, prompt)


def helpfulness(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """Whether the answer helps who asked: yes 1, partly 0.5, no 0.

    Range: 0, 0.5 or 1. Needs: a judge. Source: our own wording, after the helpfulness of HHH (Askell et al. 2021).
    """
    return _rating(PROMPTS["helpfulness"], ask, prompt)


def completeness(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """Whether every part of the question is answered: yes 1, partly 0.5, no 0. Sees the expected answer, where one is.

    Range: 0, 0.5 or 1. Needs: a judge. Source: our own wording.
    """
    return _rating(PROMPTS["completeness"], ask, prompt)


def actionability(*, ask: Ask, prompt: str | None = None) -> Scorer:
    """Whether the answer says what to do next: yes 1, partly 0.5, no 0.

    Range: 0, 0.5 or 1. Needs: a judge. Source: our own wording.
    """
    return _rating(PROMPTS["actionability"], ask, prompt)


def _rating(question: str, ask: Ask, prompt: str | None) -> Scorer:
    async def score(sample: Sample) -> Mark:
        return await verdict(ask, prompt, question, sample, with_expected=True)

    return score
