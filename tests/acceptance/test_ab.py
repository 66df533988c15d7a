"""`lockgate ab`: a judge's preference between two versions or two prompts, beside what they cost."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.acceptance.commands import call
from tests.acceptance.judging import Models, write_project

from lockgate.testing import FakeModelServer


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Models) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with FakeModelServer(models) as server:
        write_project(tmp_path, server)
        call("lock")
        yield tmp_path


def test_the_version_that_the_judge_prefers_wins_with_an_interval_cost_and_latency(
    project: Path, models: Models
) -> None:
    card = call("ab", "support@1", "support@2", "--json")
    assert card["winner"] == "b"
    assert (card["b_better"], card["a_better"], card["ties"]) == (20, 0, 20)  # v1 is kind to every other case
    assert card["preference"] == pytest.approx(0.75)
    assert 0.5 < card["interval"]["low"] < 0.75 < card["interval"]["high"] < 1.0
    assert card["b"]["mean_cost_usd"] > card["a"]["mean_cost_usd"] > 0
    assert card["a"]["latency"]["p95"] > 0
    assert models.judge_calls == 80
    assert call("ab", "support@2", "support@1", "--json", exit_code=1)["winner"] == "a"
    models.judge_calls = 0
    assert call("ab", "support@1", "support@2", "--json")["preference"] == pytest.approx(0.75)
    assert models.judge_calls == 0  # verdicts are kept
    shown = call("ab", "support@1", "support@2")
    assert "B is preferred: support@2" in shown
    assert "(0 changed with the order)" in shown


def test_a_judge_that_follows_the_order_prefers_neither(project: Path, models: Models) -> None:
    models.always_first = True
    card = call("ab", "support@1", "support@2", "--json", exit_code=3)
    assert card["winner"] == "neither"
    assert card["by_position"] == card["ties"] == 40
    assert card["preference"] == 0.5


def test_a_draft_of_a_prompt_is_tried_without_being_locked(project: Path) -> None:
    (project / "draft.md").write_text("You help and are always kind.\n")
    card = call("ab", "prompts/v1.md", "draft.md", "--agent", "support@1", "--json")
    assert card["winner"] == "b"
    assert card["b"]["label"] == "support with draft.md"
    assert "are the same" in call("ab", "prompts/v1.md", "support@1", "--agent", "support@1", exit_code=2)
    assert "nothing.md: no such file" in call("ab", "nothing.md", "support@1", exit_code=2)


def test_a_prompt_yaml_is_tried_with_the_values_that_the_agents_file_gives(project: Path) -> None:
    agent = project / "agents" / "support.v1.yaml"
    agent.write_text(
        agent.read_text().replace("prompts/v1.md\n", "prompts/v1.yaml\n  variables: {manner: curt, shop: Acme}\n")
    )
    named = "name: support\nvariables: {{manner: null, {more}}}\ntemplate: You help and are {manner}.\n"
    (project / "prompts" / "v1.yaml").write_text(named.format(more="shop: null", manner="{{manner}} at {{shop}}"))
    call("lock")
    (project / "draft.yaml").write_text(named.format(more="tone: always kind", manner="{{manner}}, {{tone}}"))
    card = call("ab", "prompts/v1.yaml", "draft.yaml", "--agent", "support@1", "--json")
    assert card["winner"] == "b"
    assert card["a"]["label"].startswith("support@1 (")  # its own prompt, as it is locked
    (project / "draft.yaml").write_text(named.format(more="where: null", manner="{{where}}"))
    assert "'where' has no value" in call("ab", "support@1", "draft.yaml", "--agent", "support@1", exit_code=2)
    (project / "draft.yaml").write_text("name: x\ntemplate: y\ncolour: blue\n")
    assert "draft.yaml:3: unknown key 'colour'" in call(
        "ab", "support@1", "draft.yaml", "--agent", "support@1", exit_code=2
    )
    assert "'colour'" not in call("ab", "support@1", "agents/support.v2.yaml", "--json")


def test_money_is_held_before_it_is_spent(project: Path) -> None:
    assert "max_usd was reached" in call("ab", "support@1", "support@2", "--max-usd", "0.0005", exit_code=4)
