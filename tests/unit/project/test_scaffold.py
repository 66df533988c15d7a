"""A scaffolded project is complete, has its own names in it, and is written whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.project.scaffold import AGENTS, TEMPLATES, scaffold
from lockgate.project.service import load_project
from lockgate.project.yamlfile import read_yaml

every_template = pytest.mark.parametrize("template", AGENTS)


@every_template
def test_a_template_has_every_part_of_a_project(template: str, tmp_path: Path) -> None:
    agent = AGENTS[template]
    files = {path.as_posix() for path in scaffold("shop", template, tmp_path / "shop")}
    assert {
        "lockgate.yaml",
        "prices.yaml",
        "requirements.txt",
        "CODEOWNERS",
        "README.md",
        ".gitignore",
        ".github/workflows/agent-ci.yml",
        f"agents/{agent}.v1.yaml",
        f"prompts/{agent}.v1.md",
        f"evals/golden/{agent}.jsonl",
        f"evals/rubrics/{agent}.yaml",
        "tests/eval/test_golden.py",
        "tests/integration/test_agent.py",
    } <= files
    for folder in ("schemas/", "policies/", "tools/", "tests/unit/test_"):
        assert any(path.startswith(folder) for path in files), folder


@every_template
def test_what_is_returned_is_what_is_there(template: str, tmp_path: Path) -> None:
    written = scaffold("shop", template, tmp_path / "shop")
    there = [path.relative_to(tmp_path / "shop") for path in (tmp_path / "shop").rglob("*") if path.is_file()]
    assert written == sorted(there)
    assert [path.name for path in tmp_path.iterdir()] == ["shop"]  # nothing is left beside it


@every_template
def test_no_placeholder_is_left(template: str, tmp_path: Path) -> None:
    for path in scaffold("shop", template, tmp_path / "shop"):
        text = f"{path}\n{(tmp_path / 'shop' / path).read_text()}"
        assert "__NAME__" not in text
        assert "__AGENT__" not in text


def test_every_template_folder_can_be_asked_for() -> None:
    assert {path.name for path in TEMPLATES.iterdir() if path.is_dir()} == {"common", *AGENTS}


@pytest.mark.parametrize("name", ["shop", "true", "null", "123", "1.0", "0x1F", "1e3", "a.b_c-d"])
def test_a_name_stays_text_whatever_yaml_makes_of_it(name: str, tmp_path: Path) -> None:
    scaffold(name, "support", tmp_path / name)
    assert load_project(tmp_path / name).config.project == name


@pytest.mark.parametrize("name", ["", "-x", ".", "../x", "a b", "a/b", "a\n", 'a"', "ä", "@x"])
def test_a_bad_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a project name"):
        scaffold(name, "support", tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("template", "said"), [("suport", "did you mean 'support'"), ("zzz", "choose one of support")])
def test_an_unknown_template_is_refused(template: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        scaffold("shop", template, tmp_path / "new")
    assert repr(template) in caught.value.message
    assert said in str(caught.value.remedy)
    assert list(tmp_path.iterdir()) == []


def test_common_is_no_template(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no template 'common'"):
        scaffold("shop", "common", tmp_path / "new")


@pytest.mark.parametrize("taken", ["lockgate.yaml", "tests/conftest.py", ".github/workflows/agent-ci.yml"])
def test_a_file_that_exists_is_kept_and_nothing_is_written(taken: str, tmp_path: Path) -> None:
    (tmp_path / taken).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / taken).write_text("mine")
    with pytest.raises(InputError) as caught:
        scaffold("shop", "support", tmp_path)
    assert taken in caught.value.message
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_dangling_link_counts_as_taken(tmp_path: Path) -> None:
    (tmp_path / "lockgate.yaml").symlink_to("nowhere")
    with pytest.raises(InputError, match="exists already"):
        scaffold("shop", "support", tmp_path)


@pytest.mark.parametrize("taken", ["", "tools"])
def test_a_file_where_a_folder_belongs_is_refused(taken: str, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    place = folder / taken
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        scaffold("shop", "support", folder)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [place]


def test_a_folder_with_other_files_takes_the_project_in(tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    (tmp_path / "tools" / "mine.py").write_text("mine")
    scaffold("shop", "support", tmp_path)
    assert (tmp_path / "tools" / "mine.py").read_text() == "mine"
    assert (tmp_path / "tools" / "support.py").exists()


@pytest.mark.parametrize("exists", [False, True])
def test_a_disk_that_fails_in_the_middle_leaves_nothing(
    exists: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "shop"
    if exists:
        folder.mkdir()
        (folder / "mine").write_text("mine")
    done: list[Any] = []
    rename = os.rename

    def failing(source: Any, target: Any) -> None:
        if len(done) == (3 if exists else 0):
            raise OSError(28, "No space left on device")
        done.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(InputError, match="No space left"):
        scaffold("shop", "support", folder)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == (["mine"] if exists else [])
    assert len(done) == (3 if exists else 0)


def test_compiled_files_of_an_installation_are_not_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in ("common/lockgate.yaml", "support/tools/a.py"):
        (tmp_path / "templates" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "templates" / path).write_text("")
    compiled = tmp_path / "templates" / "support" / "tools" / "__pycache__" / "a.pyc"
    compiled.parent.mkdir()
    compiled.write_bytes(b"\xff\x00")
    monkeypatch.setattr("lockgate.project.scaffold.TEMPLATES", tmp_path / "templates")
    assert scaffold("shop", "support", tmp_path / "shop") == [Path("lockgate.yaml"), Path("tools/a.py")]


@every_template
def test_the_workflow_gates_comments_and_asks_before_production(template: str, tmp_path: Path) -> None:
    scaffold("shop", template, tmp_path / "shop")
    jobs = read_yaml(tmp_path / "shop/.github/workflows/agent-ci.yml").data["jobs"]
    order = [jobs[name].get("needs") for name in ("test", "gate", "shadow", "production")]
    assert order == [None, "test", "gate", "shadow"]
    steps = [step for name in ("test", "gate") for step in jobs[name]["steps"]]
    runs = [str(step.get("run")) for step in steps]
    wanted = ["tests/unit", "--mock-llm", "lock --check", "lockgate eval", "lockgate cost-gate", "gh api"]
    places = [next(number for number, run in enumerate(runs) if part in run) for part in wanted]
    assert places == sorted(places)
    assert steps[places[-1]]["if"].startswith("always()")  # a red gate is explained too
    assert jobs["production"]["environment"] == "production"
    assert all("main" in jobs[name]["if"] for name in ("shadow", "production"))


@every_template
def test_on_gitlab_the_same_steps_gate_and_ask_before_production(template: str, tmp_path: Path) -> None:
    scaffold("shop", template, tmp_path / "shop", ci="gitlab")
    assert not (tmp_path / "shop/.github").exists()
    pipeline = read_yaml(tmp_path / "shop/.gitlab-ci.yml").data
    assert pipeline["stages"] == [pipeline[job]["stage"] for job in ("test", "gate", "shadow", "production")]
    script = "\n".join([*pipeline["test"]["script"], *pipeline["gate"]["script"]])
    wanted = ["tests/unit", "--mock-llm", "lock --check", f"lockgate eval --agent {AGENTS[template]}", "cost-gate"]
    places = [script.index(part) for part in wanted]
    assert places == sorted(places)
    assert "--comment" in script
    assert pipeline["production"]["rules"][0]["when"] == "manual"
    assert all(job in (*pipeline["stages"], "shadow") or "script" not in pipeline[job] for job in pipeline)


def test_a_project_can_do_without_a_workflow_and_knows_no_other(tmp_path: Path) -> None:
    files = scaffold("shop", "support", tmp_path / "shop", ci="none")
    assert not [path for path in files if path.parts[0].startswith(".git") and path.name != ".gitignore"]
    with pytest.raises(InputError, match="no CI server 'travis'"):
        scaffold("other", "support", tmp_path / "other", ci="travis")


@every_template
def test_golden_cases_are_few_and_clustered(template: str, tmp_path: Path) -> None:
    scaffold("shop", template, tmp_path / "shop")
    lines = (tmp_path / "shop" / "evals/golden" / f"{AGENTS[template]}.jsonl").read_text().splitlines()
    cases = [json.loads(line) for line in lines]
    assert 4 <= len(cases) <= 12
    assert all(case["cluster"] and case["tags"] for case in cases)
