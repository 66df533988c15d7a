from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def in_the_project(monkeypatch):
    """Tools run in the project's folder; so do their tests."""
    monkeypatch.chdir(Path(__file__).parents[1])
