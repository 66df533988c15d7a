"""What a call weighs before it is made."""

from __future__ import annotations

import msgspec

from lockgate.versions.diff import BehaviourDiff, weights
from lockgate.versions.estimate import Weight, tokens, weigh
from lockgate.versions.model import AgentVersion, ModelRef

VERSION = AgentVersion(
    agent="a",
    file_version=1,
    behaviour_digest="",
    model=ModelRef(provider="p", name="m", max_tokens=10),
    system_prompt="You are a refund clerk.",
)


def test_english_is_about_a_token_a_word() -> None:
    text = "You are a support assistant. Answer in JSON, with the order number 123456."
    assert 14 <= tokens(text) <= 20


def test_a_call_weighs_its_prompt_and_costs_its_longest_answer() -> None:
    found = weigh(VERSION, lambda model, given, answered: given * 1.0 + answered * 100.0)
    assert (found.prompt_tokens, found.tool_tokens, found.max_usd) == (6, 0, 1006.0)


def test_a_diff_says_how_tokens_and_cost_move() -> None:
    old = Weight(prompt_tokens=100, tool_tokens=5, max_usd=0.001)
    diff = BehaviourDiff(
        before="a", after="b", before_digest="", after_digest="", same_behaviour=False, changes=[], before_weight=old
    )
    new = msgspec.structs.replace(diff, after_weight=Weight(prompt_tokens=150, tool_tokens=5, max_usd=0.0015))
    assert weights(new) == [
        "prompt: about 100 → 150 tokens (+50)",
        "a model call, at most: 0.001000 → 0.001500 USD (+0.000500, +50%), before the user's own text",
    ]
    unknown = msgspec.structs.replace(diff, after_weight=Weight(prompt_tokens=100, tool_tokens=5, max_usd=None))
    assert weights(unknown) == ["cost: no price is known for one of the models"]
    assert weights(msgspec.structs.replace(diff, after_weight=old)) == []
