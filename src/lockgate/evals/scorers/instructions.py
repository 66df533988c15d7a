"""policy_compliance and prompt_adherence: an answer against rules it was given."""

from __future__ import annotations

import json

from lockgate.evals.scorers.judge import Ask, itemize, share, unscored
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text, input_text, skip

PROMPTS = {
    "policy_compliance": (
        "The material has a policy. List its rules that apply to this input and answer, one item a rule. The verdict "
        "is true when the answer (and what the agent did) keeps the rule, and false when it breaks it."
    ),
    "prompt_adherence": (
        "Go through the instructions, one item an instruction, in their order. The verdict is true when the answer "
        "follows it, or it does not apply here, and false when the answer does not follow it."
    ),
}


def policy_compliance(*, ask: Ask, policy: str, prompt: str | None = None) -> Scorer:
    """The share of a policy's applicable rules that the answer keeps. ``policy`` is a text (in a rubric: or its path).

    Skipped where no rule applies.

    Range: 0..1. Needs: a judge. Source: our own wording; RAGAS's and DeepEval's rule-by-rule verdicts.
    """

    async def score(sample: Sample) -> Mark:
        calls = [{"name": call.name, "arguments": call.arguments} for call in sample.result.tools_used]
        material = {
            "policy": policy,
            "input": input_text(sample.input),
            "answer": as_text(sample.output),
            "tool_calls": json.loads(json.dumps(calls, default=str)),
        }
        found = await itemize(ask, prompt, PROMPTS["policy_compliance"], material)
        if isinstance(found, Mark):
            return found
        return share(found, "broken") if found else skip("no rule of the policy applies")

    return score


def prompt_adherence(*, ask: Ask, instructions: list[str], prompt: str | None = None) -> Scorer:
    """The share of ``instructions`` that the answer follows.

    Range: 0..1. Needs: a judge. Source: DeepEval's prompt alignment.
    """

    async def score(sample: Sample) -> Mark:
        material = {
            "instructions": instructions,
            "input": input_text(sample.input),
            "answer": as_text(sample.output),
        }
        found = await itemize(ask, prompt, PROMPTS["prompt_adherence"], material)
        if isinstance(found, Mark):
            return found
        if len(found) != len(instructions):
            return unscored(f"the judge gave {len(found)} verdicts on {len(instructions)} instructions")
        return share(found, "not followed")

    return score
