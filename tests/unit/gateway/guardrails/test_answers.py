"""Whole answers through the checks."""

from __future__ import annotations

import json

from lockgate.gateway.guardrails.answers import checked_body


def test_an_answer_in_which_nothing_changes_keeps_its_bytes() -> None:
    body = b'{ "choices": [{"message": {"content": "caf\xc3\xa9"}}] }'
    assert checked_body("chat", body, str) is body


def test_an_answer_with_half_of_a_surrogate_pair_can_be_changed() -> None:
    body = b'{"choices": [{"message": {"content": "a \\ud83d secret"}}]}'
    checked = checked_body("chat", body, lambda text: text.replace("secret", "[x]"))
    assert json.loads(checked)["choices"][0]["message"]["content"] == "a \ud83d [x]"
