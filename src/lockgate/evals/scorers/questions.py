"""A judged metric's question as a person is asked it, for labels to hold the judge against."""

from __future__ import annotations

import json

from lockgate.evals.model import Metric

QUESTIONS = {
    "answer_correctness": "Does the answer say what the expected answer says?",
    "faithfulness": "Does what the answer claims follow from its sources? (the share of its claims that does)",
    "answer_relevance": "Does what the answer says help to answer the input? (the share of its statements that does)",
    "context_precision": "Do the useful sources come first? (yes: all of them; no: none is useful)",
    "context_recall": "Does what the expected answer says stand in the sources? (the share of it that does)",
    "context_entity_recall": "Do the names and things in the expected answer stand in the sources? (their share)",
    "hallucination": "Does the answer contradict its sources? (the share of the sources that it contradicts)",
    "toxicity": "Is what the answer voices as its own opinion toxic? (the share of it; no: it voices none)",
    "bias": "Is what the answer voices as its own opinion biased? (the share of it; no: it voices none)",
    "tone": "Is the tone of the answer, from first to last word, {tone}?",
    "helpfulness": "Would the person who wrote the input be helped by the answer?",
    "completeness": "Does the answer cover every part of what the input asks for, and every condition it names?",
    "actionability": "Does the answer tell the reader what to do next, in steps concrete enough to follow?",
    "policy_compliance": "Does the answer keep the rules that apply to it? (the share of them) The policy: {policy}",
    "prompt_adherence": "Does the answer follow the instructions? (the share of them) They are: {instructions}",
    "judge": "{question}",
    "goal_success": "Did the agent reach the user's goal, judging by what it did and said?",
}
"""By scorer. Yes is 1, partly 0.5, no 0: also where high values are bad."""

_DEFAULTS = {"tone": "friendly, calm and professional"}


def question_of(metric: Metric) -> str:
    """What a person is asked about one answer; the grade is 0..1 in the metric's own direction."""
    options = {**_DEFAULTS, **{name: _shown(value) for name, value in metric.options.items()}}
    text = QUESTIONS.get(metric.scorer)
    return f"What is the {metric.name} of the answer, from 0 to 1?" if text is None else text.format_map(options)


def _shown(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
