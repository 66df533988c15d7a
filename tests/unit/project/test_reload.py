"""lockgate.yaml is followed: what is operational is taken, what is broken is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.project import lastgood
from lockgate.project.reload import ProjectFile
from lockgate.project.service import load_project, resolve_provider

BEGAN = """
project: shop
providers:
  fast: {kind: openai, base_url: "http://one/v1", timeout: 5}
environments:
  dev: {}
  prod: {agents: {triage: {version: 1, budgets: {daily_usd: 5}}}}
"""


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    (tmp_path / "lockgate.yaml").write_text(BEGAN)
    return tmp_path


def edit(root: Path, old: str, new: str) -> None:
    path = root / "lockgate.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_an_edit_is_in_force_for_everybody_who_holds_the_project(root: Path) -> None:
    project = load_project(root)
    file = ProjectFile(project)
    assert not file.refresh()
    assert not file.refresh()
    edit(root, "daily_usd: 5", "daily_usd: 50")
    edit(root, "timeout: 5}", "timeout: 70}")
    assert file.refresh()
    assert project.config.environments["prod"].agents["triage"].budgets.daily_usd == 50
    assert resolve_provider(project, "fast", "prod").timeout == 70
    assert not file.refresh()


def test_a_broken_file_leaves_the_last_good_one_in_force(root: Path) -> None:
    project = load_project(root)
    file = ProjectFile(project)
    edit(root, "daily_usd: 5", "daily_usd: much")
    assert not file.refresh()
    assert file.problem is not None
    assert "lockgate.yaml:7" in file.problem
    assert project.config.environments["prod"].agents["triage"].budgets.daily_usd == 5
    edit(root, "daily_usd: much", "daily_usd: 6")
    assert file.refresh()
    assert file.problem is None


def test_a_file_that_is_gone_leaves_the_last_good_one_in_force(root: Path) -> None:
    project = load_project(root)
    file = ProjectFile(project)
    (root / "lockgate.yaml").unlink()
    assert not file.refresh()
    assert file.problem is not None
    assert project.config.project == "shop"


def test_a_providers_address_is_followed_too(root: Path) -> None:
    project = load_project(root)
    file = ProjectFile(project)
    edit(root, '"http://one/v1", timeout: 5', '"http://two/v1", timeout: 9')
    assert file.refresh()
    found = resolve_provider(project, "fast", "prod", "triage")
    assert (found.base_url, found.timeout) == ("http://two/v1", 9)


def test_an_environments_own_file_is_followed_too(root: Path) -> None:
    (root / "prod.yaml").write_text("agents: {triage: {version: 1, budgets: {daily_usd: 5}}}\n")
    edit(root, "prod: {agents: {triage: {version: 1, budgets: {daily_usd: 5}}}}", "prod: {file: prod.yaml}")
    project = load_project(root)
    file = ProjectFile(project)
    (root / "prod.yaml").write_text("agents: {triage: {version: 1, budgets: {daily_usd: 7}}}\n")
    assert file.refresh()
    assert project.config.environments["prod"].agents["triage"].budgets.daily_usd == 7


def test_who_starts_while_the_file_is_broken_goes_by_the_last_good_one(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ProjectFile(load_project(root))
    edit(root, "daily_usd: 5", "daily_usd: much")
    with pytest.raises(InputError):
        load_project(root)
    began = load_project(root, last_good=True)
    assert began.config.environments["prod"].agents["triage"].budgets.daily_usd == 5
    file = ProjectFile(began)
    assert "'much'" in str(file.problem)
    monkeypatch.setenv(lastgood.ENVIRONMENT, "1")
    assert load_project(root).problem == file.problem
    edit(root, "daily_usd: much", "daily_usd: 6")
    assert file.refresh()
    assert file.problem is None
    edit(root, "daily_usd: 6", "daily_usd: more")
    assert load_project(root).config.environments["prod"].agents["triage"].budgets.daily_usd == 6


def test_without_a_good_file_a_broken_one_is_an_error(root: Path) -> None:
    edit(root, "daily_usd: 5", "daily_usd: much")
    with pytest.raises(InputError):
        load_project(root, last_good=True)
