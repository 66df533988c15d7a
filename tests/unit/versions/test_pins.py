"""Which names may change under our feet."""

from __future__ import annotations

from datetime import date

import pytest

from lockgate.project.model import FloatingAllowance
from lockgate.versions.model import ModelRef
from lockgate.versions.pins import allowed, floating, floating_image

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


@pytest.mark.parametrize(
    ("name", "pinned"),
    [
        ("claude-opus-4-8", True),
        ("claude-sonnet-4-6", True),
        ("claude-sonnet-5-5", True),
        ("claude-sonnet-4-5", False),
        ("claude-opus-4-1", False),
        ("claude-sonnet-4-0", False),
    ],
)
def test_anthropic_s_dateless_names_are_snapshots_from_4_6_on(name: str, pinned: bool) -> None:
    model = ModelRef(provider="anthropic", name=name)
    assert (floating("anthropic", "https://api.anthropic.com/v1", model) is None) is pinned


def test_an_image_is_pinned_by_its_digest_alone() -> None:
    assert floating_image("ghcr.io/acme/agent:v3@sha256:" + "a" * 64) is None
    assert floating_image("ghcr.io/acme/agent:v3") is not None
    assert floating_image("ghcr.io/acme/agent@sha256:abc") is not None


def test_a_floating_name_is_allowed_by_name_until_its_day() -> None:
    rules = [FloatingAllowance(model="openai/gpt-4o", by="maria", until="2027-01-31")]
    model = ModelRef(provider="openai", name="gpt-4o")
    found = allowed(rules, model, date(2027, 1, 31))
    assert found is not None
    assert found.by == "maria"
    assert allowed(rules, model, date(2027, 2, 1)) is None
    assert allowed(rules, ModelRef(provider="other", name="gpt-4o"), date(2027, 1, 1)) is None
    assert allowed([FloatingAllowance(model="*", by="maria")], model, date(2099, 1, 1)) is not None
