"""A known secret is taken out of what somebody says who was sent it, whole or in chunks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.project.secrets.masking import MASK, Mask, without

SECRET = 'sk-"planted/canary\\1'
FORMS = [SECRET, json.dumps(SECRET)[1:-1], json.dumps(SECRET)[1:-1].replace("/", "\\/"), "sk-%22planted%2Fcanary%5C1"]


def through(chunks: list[bytes], secret: str = SECRET) -> list[bytes]:
    mask = Mask(secret).stream()
    return [*(mask.feed(chunk) for chunk in chunks), mask.finish()]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_secret_is_masked_wherever_the_chunks_part(form: str) -> None:
    data = f"before {form} after".encode()
    for at in range(len(data)):
        assert b"".join(through([data[:at], data[at:]])) == f"before {MASK} after".encode()
    assert b"".join(through([data[at : at + 1] for at in range(len(data))])) == without(data, SECRET)


def test_chunks_without_it_pass_as_they_are_and_at_once() -> None:
    chunks = [b'data: {"delta": "hello"}\n\n', b"", b"data: [DONE]\n\n"]
    passed = through(chunks)
    assert passed == [*chunks, b""]
    assert passed[0] is chunks[0]


def test_only_what_could_be_its_beginning_waits() -> None:
    assert through([b"I ask", b" nobody"], "k nobility") == [b"I as", b"k nobody", b""]
    assert through([b"I ask"], "k nobility") == [b"I as", b"k"]


def test_a_placeholder_is_no_secret() -> None:
    assert not Mask(None)
    assert not Mask("ollama")
    assert without(b"ollama", "ollama") == b"ollama"


def test_of_several_the_one_that_another_begins_with_leaves_nothing_of_the_longer_one() -> None:
    short, longer = "planted-1", "planted-1-and-more"
    data = f"{short} {longer} none".encode()
    mask = Mask(short, None, longer).stream()
    assert mask.feed(data[:20]) + mask.feed(data[20:]) + mask.finish() == b"[redacted] [redacted] none"
    assert without(data, short, longer) == b"[redacted] [redacted] none"


@given(st.text("ab-x", min_size=8, max_size=12), st.lists(st.text("ab-x \n", max_size=9), max_size=12))
def test_a_stream_in_any_chunks_is_masked_as_a_whole_would_be(secret: str, texts: list[str]) -> None:
    chunks = [text.encode() for text in texts]
    masked = b"".join(through(chunks, secret))
    assert secret.encode() not in masked
    if secret.encode() not in b"".join(chunks):
        assert masked == b"".join(chunks)
