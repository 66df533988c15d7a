"""The pytest plugin: ``--mock-llm``, ``--real-llm``, and fixtures for tests of agents.

Loaded by every pytest run where Lockgate is installed, so it imports nothing but pytest.
"""

from __future__ import annotations

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lockgate")
    group.addoption("--mock-llm", action="store_true", help="Answer model calls from cassettes or scripted responses.")
    group.addoption("--real-llm", action="store_true", help="Call the configured models, and record cassettes.")
