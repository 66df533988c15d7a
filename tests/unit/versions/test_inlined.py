"""Things shaped like credentials, found by line."""

from __future__ import annotations

import pytest

from lockgate.versions.inlined import secret_lines

KEY = "sk-" + "planted1Canary2" * 2


@pytest.mark.parametrize(
    "value",
    [KEY, "AKIA" + "ABCDEFGH12345678", "ghp_" + "a1" * 18, "hvs." + "a1b2" * 6, "-----BEGIN RSA PRIVATE KEY-----"],
)
def test_a_credential_is_found_on_its_line(value: str) -> None:
    assert secret_lines(f"model: x\nkey: {value}\n") == [2]


@pytest.mark.parametrize(
    "value",
    [
        "${env:OPENAI_API_KEY}",
        "sk-xxxxxxxxxxxxxxxxxxxxxxxx",
        "ask-someone-about-the-refund",
        "sk-…",
        "sha256:" + "0" * 64,
    ],
)
def test_references_placeholders_and_words_are_not(value: str) -> None:
    assert secret_lines(f"key: {value}") == []
