"""Which providers of chat completions are told to store nothing."""

from __future__ import annotations

import pytest

from lockgate.gateway.guardrails.service import knows_storing


@pytest.mark.parametrize(
    ("kind", "host", "api_version", "knows"),
    [
        ("openai", "api.openai.com", None, True),
        ("openai", "eu.api.openai.com", None, True),
        ("openai", "api.mistral.ai", None, False),
        ("openai", "api.openai.com.example", None, False),
        ("azure", "mine.openai.azure.com", None, True),
        ("azure", "mine.openai.azure.com", "preview", True),
        ("azure", "mine.openai.azure.com", "2025-04-01-preview", True),
        ("azure", "mine.openai.azure.com", "2024-10-21", False),
        ("anthropic", "api.anthropic.com", None, False),
    ],
)
def test_storing_is_known_to_openai_in_any_region_and_to_azure_of_late(
    kind: str, host: str, api_version: str | None, knows: bool
) -> None:
    assert knows_storing(kind, host, api_version) is knows
