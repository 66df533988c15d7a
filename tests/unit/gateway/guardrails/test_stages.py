"""JSON that is checked piece by piece: what is in it, and what is too deep in it to be found."""

from __future__ import annotations

import pytest

from lockgate.errors import Refused
from lockgate.gateway.guardrails.stages import DEEPEST, within_json


def nested(levels: int) -> str:
    return '{"a":' * levels + '"secret"' + "}" * levels


def hide(text: str) -> str:
    return text.replace("secret", "[hidden]")


def test_a_string_is_found_at_every_level_that_is_looked_into() -> None:
    assert "[hidden]" in within_json(nested(DEEPEST), hide)


@pytest.mark.parametrize("levels", [DEEPEST + 1, 700, 100_000])  # the interpreter itself gives up on the last
@pytest.mark.parametrize("bracket", ["{}", "[]"])
def test_what_lies_deeper_does_not_pass_unchecked(levels: int, bracket: str) -> None:
    text = nested(levels) if bracket == "{}" else "[" * levels + '"secret"' + "]" * levels
    with pytest.raises(Refused, match=f"more than {DEEPEST} levels deep"):
        within_json(text, hide)
