"""Which of two answers is better: asked twice, the second time in the other order."""

from __future__ import annotations

from typing import Any, NamedTuple

from lockgate.evals.scorers.judge import PROMPT, Ask, messages_of, unscored
from lockgate.evals.scorers.sample import Mark, as_json

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"reason": {"type": "string"}, "better": {"type": "string", "enum": ["first", "second", "tie"]}},
    "required": ["reason", "better"],
    "additionalProperties": False,
}
_PROMPT = PROMPT.rpartition("Reply with JSON")[0] + (
    'Reply with JSON: {"reason": one short sentence, "better": "first", "second" or "tie"}.'
)
_VALUES = {"first": 1.0, "tie": 0.5, "second": 0.0}


class Preference(NamedTuple):
    """1: the left answer is better, 0: the right one, 0.5: a tie, or it changed with the order (``by_position``)."""

    mark: Mark
    by_position: bool = False
    placed: tuple[float, float] | None = None
    """How good the left answer was found when it stood first, and when it stood second."""


async def prefer(
    ask: Ask, question: str, input: str, left: str, right: str, *, prompt: str | None = None
) -> Preference:
    """Ask in both orders. A verdict that follows the order is a tie, and counts as position bias.

    Source: MT-Bench (Zheng et al. 2023, arXiv 2306.05685), section 3.4.
    """
    verdicts = []
    for first, second in ((left, right), (right, left)):
        material = {"input": input, "first": first, "second": second}
        reply = await ask(messages_of(prompt or _PROMPT, question, material), SCHEMA)
        try:
            data = as_json(reply.text)
        except ValueError:
            return Preference(unscored(f"the judge did not answer in JSON: {reply.text[:80]!r}"))
        better = data.get("better") if isinstance(data, dict) else None
        if not isinstance(better, str) or better not in _VALUES:
            return Preference(unscored(f"the judge's verdict {better!r} is not on the menu"))
        verdicts.append((_VALUES[better], str(data.get("reason", ""))))
    (straight, reason), (swapped, _) = verdicts[0], verdicts[1]
    placed = (straight, 1 - swapped)
    if straight == 1 - swapped:
        return Preference(Mark(straight, reason[:500]), placed=placed)
    return Preference(Mark(0.5, "the verdict changed with the order"), by_position=True, placed=placed)
