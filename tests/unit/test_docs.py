"""The documentation is true: generated pages are fresh, links lead somewhere, commands and examples are real."""

from __future__ import annotations

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import jsonschema_rs
import pytest

from lockgate.cli import COMMANDS
from lockgate.project.yamlfile import read_yaml
from lockgate.tools.policy import Policy
from lockgate.versions.cli import json_schema

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
WRITTEN = [page for page in PAGES if page.name not in ("cli.md",)]
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def load_generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


generate = load_generator()


def shown(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return [text for found, text in _BLOCK.findall(page.read_text("utf-8")) if found == language]


def anchors(page: Path) -> list[str]:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    return [generate._anchor(heading) for heading in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("name", generate.PAGES)
def test_a_generated_page_is_fresh(name: str) -> None:
    assert generate._read(name) == generate.PAGES[name](), "run: python docs/generate.py"


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs/cli.md").read_text("utf-8")
    missing = [path for path, _ in generate.commands() if f"# lockgate {path}\n" not in page]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_link_leads_somewhere(page: Path) -> None:
    broken = []
    for target in _LINK.findall(_BLOCK.sub("", page.read_text("utf-8"))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_no_two_headings_share_an_anchor_that_is_linked(page: Path) -> None:
    linked = {target[1:] for target in _LINK.findall(page.read_text("utf-8")) if target.startswith("#")}
    found = anchors(page)
    assert [anchor for anchor in linked if found.count(anchor) > 1] == []


def test_every_decision_is_in_the_index() -> None:
    folder = ROOT / "docs/decisions"
    index = (folder / "README.md").read_text("utf-8")
    assert [
        page.name for page in folder.glob("*.md") if page.name != "README.md" and f"({page.name})" not in index
    ] == []


def test_every_dependency_is_accounted_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    wanted = [
        *project["dependencies"],
        *(name for extra in project["optional-dependencies"].values() for name in extra),
    ]
    names = {re.split(r"[\[<>=; ]", entry)[0] for entry in wanted} - {"lockgate"}
    page = (ROOT / "docs/decisions/dependencies.md").read_text("utf-8")
    assert names == set(re.findall(r"^\| ([a-z][\w.-]*) \| \d", page, re.MULTILINE))


def test_a_page_that_the_code_names_exists() -> None:
    named = {
        match
        for file in (ROOT / "src").rglob("*.py")
        for match in re.findall(r"``(docs/[\w/.-]+\.md)``", file.read_text("utf-8"))
    }
    assert named
    assert [page for page in sorted(named) if not (ROOT / page).exists()] == []


def commands_in(page: Path) -> list[list[str]]:
    """The lockgate commands of a page's shell blocks, as lists of words."""
    found = []
    for text in [*blocks(page, "sh"), *blocks(page, "bash"), *blocks(page, "console")]:
        for line in text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            for start, word in enumerate(words):
                if word == "lockgate" or word.endswith("/lockgate"):
                    end = next((at for at in range(start, len(words)) if words[at] in ("|", "&&", ";", ">")), None)
                    found.append(words[start + 1 : end])
    return found


@pytest.mark.parametrize("page", WRITTEN, ids=shown)
def test_every_command_in_a_page_parses(page: Path) -> None:
    from typer.main import get_command

    from lockgate.cli import app

    wrong = []
    for words in commands_in(page):
        try:
            parse(get_command(app), words)
        except Exception as error:  # whatever the parser raises is the finding
            wrong.append(f"lockgate {shlex.join(words)}: {error}")
    assert wrong == []


@pytest.mark.parametrize("words", [["nope"], ["trace", "--nope"], ["triage", "promote"], ["triage", "nope", "x"]])
def test_a_command_that_is_wrong_would_be_found(words: list[str]) -> None:
    from typer.main import get_command

    from lockgate.cli import app

    with pytest.raises(Exception, match=r"(?i)no such|missing"):
        parse(get_command(app), words)


def parse(command: Any, words: list[str]) -> None:
    """Parse as the shell would, without running anything."""
    context = command.make_context("lockgate", list(words), resilient_parsing=False)
    while hasattr(command, "resolve_command"):
        rest = [*context._protected_args, *context.args]
        name, command, rest = command.resolve_command(context, rest)
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("page", PAGES, ids=shown)
def test_every_command_named_in_running_text_exists(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text("utf-8"))
    named = re.findall(r"`lockgate ([a-z][a-z-]*)", text)
    assert [name for name in named if name not in COMMANDS] == []


def test_every_policy_in_the_docs_is_one() -> None:
    found = [text for page in PAGES for text in blocks(page, "cedar")]
    assert found
    for text in found:
        Policy({"docs.cedar": text})


@pytest.mark.parametrize("kind", generate.EXAMPLES)
def test_every_example_of_a_file_fits_its_schema(kind: str, tmp_path: Path) -> None:
    (tmp_path / "example.yaml").write_text(generate.EXAMPLES[kind], "utf-8")
    jsonschema_rs.validate(json_schema(kind), read_yaml(tmp_path / "example.yaml").data)


def test_the_generator_says_which_page_is_stale(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any) -> None:
    monkeypatch.setattr(generate, "DOCS", tmp_path)
    monkeypatch.setattr(generate, "PAGES", {"a.md": lambda: "fresh"})
    assert generate.main(["--check"]) == 1
    assert "a.md is stale" in capsys.readouterr().err
    assert generate.main([]) == 0
    assert (tmp_path / "a.md").read_text() == "fresh"
    assert generate.main(["--check"]) == 0
