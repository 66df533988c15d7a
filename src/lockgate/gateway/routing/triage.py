"""Whether a request is easy: by its tags, by its length, or by what the cheaper model says of it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import msgspec

from lockgate.gateway.protocols.model import Request
from lockgate.versions.model import ModelRef

Tier = Literal["triage", "model"]

QUESTION = (
    "You sort requests for a team of two assistants, a quick one and an expert. Say EASY when the quick one can answer "
    "correctly: short, common, one step, nothing at stake. Say HARD when it is long, unusual or ambiguous, needs "
    "several steps, arithmetic or judgement, or when a mistake would hurt. Answer with one word: EASY or HARD."
)
TAGS = "x-lockgate-tags"
"""A header: the tags of a request."""
SHOWN = 6000
"""Characters of a request that the cheaper model is shown."""


class Routing(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent file says of it; see :class:`lockgate.versions.spec.TriageSpec`."""

    easy_below: int | None = None
    hard_above: int | None = None
    easy_tags: tuple[str, ...] = ()
    hard_tags: tuple[str, ...] = ()
    ask: bool = True
    question: str | None = None


class Decision(NamedTuple):
    """Which of the two models, and by which rule (``tag``, ``tokens``, ``classifier``, ``default``)."""

    tier: Tier
    by: str


def by_rule(routing: Routing, tags: Sequence[str], tokens: int) -> Decision | None:
    """What the rules say; None when it is to be asked. Where two rules differ, the dearer model wins.

    >>> by_rule(Routing(easy_below=100), [], 40)
    Decision(tier='triage', by='tokens')
    """
    if any(tag in routing.hard_tags for tag in tags):
        return Decision("model", "tag")
    if routing.hard_above is not None and tokens > routing.hard_above:
        return Decision("model", "tokens")
    if any(tag in routing.easy_tags for tag in tags):
        return Decision("triage", "tag")
    if routing.easy_below is not None and tokens < routing.easy_below:
        return Decision("triage", "tokens")
    return None if routing.ask else Decision("model", "default")


def by_word(said: str) -> Decision:
    """What the cheaper model meant: only a plain EASY is one.

    >>> by_word(" easy."), by_word("It is not easy")
    (Decision(tier='triage', by='classifier'), Decision(tier='model', by='classifier'))
    """
    word = said.strip().strip("\"'*.`").casefold()
    return Decision("triage" if word.startswith("easy") else "model", "classifier")


def classification(routing: Routing, model: str, texts: Sequence[str]) -> dict[str, Any]:
    """The request that asks the cheaper model: the last text, and what fits of those before it."""
    shown = "\n\n".join(texts)[-SHOWN:]
    return {
        "model": model,
        "messages": [
            {"role": "system", "content": routing.question or QUESTION},
            {"role": "user", "content": f"<request>\n{shown}\n</request>\nEASY or HARD?"},
        ],
        "max_tokens": 4,
        "temperature": 0,
    }


def tags_of(header: str | None, more: Sequence[str] = ()) -> list[str]:
    """The tags in ``x-lockgate-tags``, words with commas between; and ``more``, those of the run."""
    return [*more, *(tag.strip() for tag in header.split(",") if tag.strip())] if header else list(more)


def with_parameters(request: Request, model: ModelRef) -> Request:
    """The request with the cheaper model's own parameters, where it has any."""
    given: dict[str, Any] = {
        name: value
        for name, value in (("temperature", model.temperature), ("top_p", model.top_p), ("seed", model.seed))
        if value is not None
    }
    for name in ("max_tokens", "max_completion_tokens", "max_output_tokens"):
        if name in request.fields and request.max_tokens is not None:
            given[name] = min(request.max_tokens, model.max_tokens)
    return request.replaced(**given) if given else request
