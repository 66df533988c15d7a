"""The kill switch reaches what asks models without a gateway: evaluations, judges, local runs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate import offswitch
from lockgate.bootstrap import App
from lockgate.errors import Killed
from lockgate.evals.model import Case, JudgeSettings
from lockgate.project.service import load_project
from lockgate.settings.model import Scope
from lockgate.testing import FakeClock, FakeModelServer

PROJECT = """
project: shop
prices: prices.yaml
providers: {{fast: {{kind: openai, base_url: "{url}"}}}}
environments: {{dev: {{}}, prod: {{}}}}
"""
AGENT = """
agent:
  name: triage
  version: 1
  model: {provider: fast, name: m-1, fallbacks: [{provider: fast, name: m-2}]}
  system_prompt: triage.md
"""


@pytest.fixture
def model() -> Iterator[FakeModelServer]:
    with FakeModelServer("ok") as server:
        yield server


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: FakeModelServer) -> Iterator[App]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.setattr(offswitch, "_LOOK", 0.0)
    (tmp_path / "agents").mkdir()
    (tmp_path / "lockgate.yaml").write_text(PROJECT.format(url=model.base_url))
    (tmp_path / "prices.yaml").write_text("fast: {'*': {input: 1.0, output: 2.0}}\n")
    (tmp_path / "triage.md").write_text("You sort mail.\n")
    (tmp_path / "agents/triage.v1.yaml").write_text(AGENT)
    opened = App(load_project(tmp_path), FakeClock())
    opened.versions.lock()
    yield opened
    opened.control.close()


def kill(app: App, **scope: str) -> None:
    app.settings.set("kill", True, Scope(**scope), actor="cli:ann", reason="pays twice")


def trial(app: App, environment: str = "prod", meanwhile: dict[str, str] | None = None) -> str:
    async def once() -> str:
        async with app.subject(app.versions.find("triage@1"), environment) as subject:
            if meanwhile is not None:
                kill(app, **meanwhile)
            result = await subject(Case(id="a", input="hi"), 0)
            return str(result.output)

    return asyncio.run(once())


@pytest.mark.parametrize(
    "scope", [{"agent": "triage"}, {"model": "fast/m-1"}, {"model": "fast/*"}, {"environment": "prod"}]
)
@pytest.mark.parametrize("midway", [False, True])
def test_a_version_that_is_switched_off_is_not_evaluated(
    app: App, model: FakeModelServer, scope: dict[str, str], midway: bool
) -> None:
    if not midway:
        kill(app, **scope)
    with pytest.raises(Killed, match="pays twice") as refused:
        trial(app, meanwhile=scope if midway else None)
    assert refused.value.exit_code == offswitch.COULD_NOT_EVALUATE
    assert "lockgate settings unset kill" in str(refused.value.remedy)
    assert [asked for asked in model.requests if asked.model == "m-1"] == []


def test_a_switch_of_something_else_does_not_matter(app: App) -> None:
    for scope in ({"agent": "other"}, {"environment": "dev"}, {"tenant": "acme"}, {"model": "slow/*"}):
        kill(app, **scope)
    assert trial(app) == "ok"


def test_a_judge_that_is_switched_off_is_not_asked(app: App, model: FakeModelServer) -> None:
    async def judged() -> None:
        async with app.judge(JudgeSettings(model="fast:m-1"), "prod") as ask:
            await ask([{"role": "user", "content": "good?"}], {})
            kill(app, model="fast/m-1")
            await ask([{"role": "user", "content": "good?"}], {})

    with pytest.raises(Killed):
        asyncio.run(judged())
    assert len(model.requests) == 1
    with pytest.raises(Killed):
        asyncio.run(judged())
    assert len(model.requests) == 1
