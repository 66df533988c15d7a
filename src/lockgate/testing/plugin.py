"""The pytest plugin: ``--mock-llm``, ``--real-llm``, and fixtures for tests of agents.

Loaded by every pytest run where Lockgate is installed, so it imports nothing but pytest until a fixture is used.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from lockgate.testing.agents import AgentProject, TestedAgent
    from lockgate.testing.mocking import MockLlm


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("lockgate", "tests of agents")
    group.addoption(
        "--mock-llm",
        action="store_true",
        help="Call no model: answer from mock_llm and cassettes, and fail a test that has neither.",
    )
    group.addoption(
        "--real-llm", action="store_true", help="Call the configured models, and record what they answer as cassettes."
    )
    parser.addini("lockgate_cassettes", "where cassettes are kept", default="tests/cassettes")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "golden(agent): one test a case of the agent file's golden set, as the fixture golden_case"
    )
    if config.getoption("--mock-llm") and config.getoption("--real-llm"):
        raise pytest.UsageError("--mock-llm and --real-llm exclude each other: choose one")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    marker = metafunc.definition.get_closest_marker("golden")
    if marker is None or "golden_case" not in metafunc.fixturenames:
        return
    from lockgate.errors import LockgateError
    from lockgate.testing.golden import golden_cases

    try:
        cases = golden_cases(metafunc.config.rootpath, *marker.args, **marker.kwargs)
    except LockgateError as failure:  # no case, no test: that must not look like success
        pytest.fail(str(failure), pytrace=False)
    metafunc.parametrize("golden_case", cases, ids=[case.case.id for case in cases])


@pytest.fixture
def mock_llm() -> Iterator[MockLlm]:
    """``mock_llm(responses=["…"])`` answers model calls as scripted, until its ``with`` block or the test ends."""
    from lockgate.testing.mocking import MockLlm

    mocking = MockLlm()
    yield mocking
    mocking.close()


@pytest.fixture(scope="session")
def _lockgate_project(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[AgentProject]:
    from lockgate.testing.agents import AgentProject

    project = AgentProject(request.config.rootpath, tmp_path_factory.mktemp("lockgate"))
    yield project
    project.close()


@pytest.fixture
def lockgate_agent(
    request: pytest.FixtureRequest, mock_llm: MockLlm, _lockgate_project: AgentProject
) -> Iterator[Callable[..., TestedAgent]]:
    """``lockgate_agent("agents/triage.v1.yaml")`` loads an agent; its ``run(input)`` gives the run's result."""
    from lockgate.testing.agents import TestedAgent

    option = request.config.getoption
    loaded: list[TestedAgent] = []

    def load(ref: str | Path | None = None, *, environment: str = "dev") -> TestedAgent:
        version = _lockgate_project.load(None if ref is None else str(ref))
        loaded.append(
            TestedAgent(
                _lockgate_project,
                version,
                environment=environment,
                mode="real" if option("--real-llm") else "mock" if option("--mock-llm") else "default",
                mocking=mock_llm,
                cassette=_cassette(request, len(loaded)),
            )
        )
        return loaded[-1]

    yield load
    for agent in loaded:
        agent.save()


def _cassette(request: pytest.FixtureRequest, number: int) -> Path:
    """``tests/cassettes/<test file>/<test>.json``; a test's second agent has a file of its own."""
    config = request.config
    folder = config.rootpath / str(config.getini("lockgate_cassettes"))
    module = request.path.relative_to(config.rootpath) if request.path.is_relative_to(config.rootpath) else request.path
    parts = [part for part in module.with_suffix("").parts if part not in ("/", "tests")]
    test = re.sub(r"[^\w.-]+", "_", request.node.name).strip("_")
    return folder.joinpath(*parts, f"{test}.json" if number == 0 else f"{test}.{number + 1}.json")
