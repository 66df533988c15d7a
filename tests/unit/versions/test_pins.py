"""Which names may change under our feet."""

from __future__ import annotations

import pytest

from lockgate.versions.model import ModelRef
from lockgate.versions.pins import floating

HOSTED, OLLAMA, LOCAL_SERVER = "https://api.openai.com/v1", "http://127.0.0.1:11434/v1", "http://127.0.0.1:8000/v1"


@pytest.mark.parametrize(
    ("kind", "url", "name", "pinned"),
    [
        ("openai", HOSTED, "gpt-4o", False),
        ("openai", HOSTED, "gpt-4o-mini-2024-07-18", True),
        ("openai", HOSTED, "gpt-4-0613", True),
        ("openai", HOSTED, "gpt-4-1106-preview", True),
        ("openai", HOSTED, "o3", False),
        ("openai", HOSTED, "chatgpt-4o-latest", False),
        ("anthropic", "https://api.anthropic.com/v1", "claude-3-5-sonnet-20240620", True),
        ("anthropic", "https://api.anthropic.com/v1", "claude-3-5-sonnet-latest", False),
        ("anthropic", "https://api.anthropic.com/v1", "claude-3.5-sonnet", False),
        ("openai", "https://example.test/v1", "gemini-1.5-pro-002", True),
        ("openai", OLLAMA, "llama3.1:70b", False),
        ("openai", OLLAMA, "llama3.1", False),
        ("openai", OLLAMA, "llama3.1@sha256:aa", True),
        ("openai", LOCAL_SERVER, "qwen2.5-coder-0.5b-instruct", True),
        ("openai", LOCAL_SERVER, "qwen:latest", False),
        ("local", "", "qwen2.5-coder-0.5b-instruct", True),
    ],
)
def test_a_date_pins_a_hosted_name_and_nothing_pins_a_tag(kind: str, url: str, name: str, pinned: bool) -> None:
    assert (floating(kind, url, ModelRef(provider="p", name=name)) is None) is pinned


def test_a_revision_pins_any_name() -> None:
    assert floating("openai", OLLAMA, ModelRef(provider="p", name="llama3.1:70b", revision="sha256:aa")) is None
