"""What an agent file names: read, checked, and never from outside the project."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.versions import contracts


def refusal(*arguments: object, by: object) -> InputError:
    with pytest.raises(InputError) as caught:
        by(*arguments)  # type: ignore[operator]
    return caught.value


@pytest.mark.parametrize("name", ["/etc/passwd", "../x.md", "prompts/../../x.md", "prompts\\x.md"])
def test_paths_stay_inside_the_project(tmp_path: Path, name: str) -> None:
    wrong = refusal(tmp_path, name, by=contracts.inside)
    assert repr(name) in wrong.message


def test_a_link_out_of_the_project_is_refused_and_one_inside_is_not(tmp_path: Path) -> None:
    (tmp_path / "p").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "p" / "here").write_text("x")
    (tmp_path / "p" / "out").symlink_to(tmp_path / "secret")
    (tmp_path / "p" / "in").symlink_to("here")
    assert contracts.inside(tmp_path / "p", "in").read_text() == "x"
    assert "a link out of the project" in refusal(tmp_path / "p", "out", by=contracts.inside).message


def test_a_file_is_found_whatever_unicode_form_the_disk_keeps(tmp_path: Path) -> None:
    (tmp_path / unicodedata.normalize("NFD", "café.md")).write_text("x")
    assert contracts.inside(tmp_path, "café.md").read_text() == "x"


def test_a_prompt_is_text_or_the_template_of_a_prompt_file(acme: Path) -> None:
    (acme / "prompts" / "p.yaml").write_text("name: p\nversion: 2.3\nmodel: gpt-4o\ntemplate: |\n  Be kind.\n")
    assert contracts.read_prompt(acme, "prompts/triage.md")[0] == "Extract the facts.\nAnswer in JSON.\n"
    assert contracts.read_prompt(acme, "prompts/p.yaml")[0] == "Be kind.\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"type": "objct"}', "not a JSON Schema"),
        ("[]", "not a JSON Schema"),
        ('{"properties": {"a": {"$ref": "other.json"}}}', "leads out of the file"),
        ('{"properties": {"a": {"$ref": "http://example.test/s.json"}}}', "leads out of the file"),
        ('{"$ref": "#/$defs/absent"}', "not a JSON Schema"),
        ('{"properties": {"a": {"pattern": "("}}}', "not a JSON Schema"),
    ],
)
def test_a_bad_schema_is_found_when_it_is_locked(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "s.json").write_text(text)
    assert words in refusal(tmp_path, "s.json", by=contracts.read_schema).message


def test_a_schema_may_be_yaml_and_then_its_errors_have_lines(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("type: object\nproperties:\n  a: {type: string}\n  b: {type: strng}\n")
    wrong = refusal(tmp_path, "s.yaml", by=contracts.read_schema)
    assert (wrong.line, "properties/b/type" in wrong.message) == (4, True)


def test_a_policy_that_is_not_cedar_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.cedar").write_text("permit(principal, action resource);")
    assert refusal(tmp_path, "a.cedar", by=contracts.read_policy).path == "a.cedar"


@pytest.mark.parametrize(
    ("contract", "line", "words"),
    [
        ("tool: {name: other}\n", 1, "called 'other', its file 'act.yaml'"),
        ("tool:\n  name: act\n  effect: writes\n", 3, "'writes'"),
        ("tool:\n  name: act\n  input:\n    type: array\n", 4, "arguments are an object"),
        ("tool:\n  name: act\n  input:\n    properties:\n      a: {type: x}\n", 5, "not a JSON Schema"),
        ("tool:\n  name: act\n  python: tools/none.py:act\n", 3, "no file 'tools/none.py'"),
        ("tool:\n  name: act\n  python: tools/orders.py:absent\n", 3, "it has read_orders, issue_refund"),
        ("tool:\n  name: act\n  python: ../x.py:act\n", 3, "not a path inside the project"),
    ],
)
def test_a_bad_contract_is_an_error_with_its_line(acme: Path, contract: str, line: int, words: str) -> None:
    path = acme / "tools" / "act.yaml"
    path.write_text(contract)
    with pytest.raises(InputError) as caught:
        contracts.read_contract(acme, path, approval=None)
    assert (caught.value.path, caught.value.line) == ("tools/act.yaml", line)
    assert words in str(caught.value)


def test_a_syntax_error_in_a_tool_is_found_without_running_it(acme: Path) -> None:
    (acme / "tools" / "orders.py").write_text("raise SystemExit\ndef read_orders(:\n")
    with pytest.raises(InputError) as caught:
        contracts.read_contract(acme, acme / "tools" / "read_orders.yaml", approval=None)
    assert (caught.value.path, caught.value.line) == ("tools/orders.py", 2)


def test_the_agent_s_word_on_approval_goes_before_the_contract_s(acme: Path) -> None:
    path = acme / "tools" / "act.yaml"
    for said, asked, needed in (("required", None, True), ("none", "required", True), ("required", "none", False)):
        path.write_text(f"tool: {{name: act, approval: {said}}}\n")
        assert contracts.read_contract(acme, path, approval=asked).approval is needed


def test_code_is_every_python_file_below_a_tool_s_folder(acme: Path) -> None:
    for name in ("deep/more.py", "deep/notes.txt", ".hidden/x.py", "__pycache__/x.py", "env/pyvenv.cfg", "env/x.py"):
        path = acme / "tools" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x = 1\r\n")
    found = contracts.collect_code(acme, acme / "tools")
    assert sorted(found) == ["tools/decide.py", "tools/deep/more.py", "tools/orders.py"]
    assert found["tools/deep/more.py"] == b"x = 1\n"


def test_code_in_the_root_does_not_pull_in_everything_below_it(acme: Path) -> None:
    (acme / "main.py").write_text("x = 1\n")
    assert list(contracts.collect_code(acme, acme)) == ["main.py"]


def test_a_linked_code_file_that_leads_out_is_refused(acme: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.py").write_text("key = 1\n")
    os.symlink(tmp_path / "secret.py", acme / "tools" / "linked.py")
    assert "link out of the project" in refusal(acme, acme / "tools", by=contracts.collect_code).message


def test_a_linked_folder_of_code_is_refused_and_one_of_data_is_not(acme: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    os.symlink(tmp_path / "lib", acme / "tools" / "lib", target_is_directory=True)
    (tmp_path / "lib/data.json").write_text("{}")
    assert contracts.collect_code(acme, acme / "tools")
    (tmp_path / "lib/secret.py").write_text("key = 1\n")
    assert (
        "'tools/lib' is a link to a folder with code"
        in refusal(acme, acme / "tools", by=contracts.collect_code).message
    )


def test_an_entrypoint_brings_its_package_or_its_module(acme: Path) -> None:
    (acme / "support").mkdir()
    for name in ("__init__.py", "graph.py"):
        (acme / "support" / name).write_text("app = 1\n")
    (acme / "single.py").write_text("app = 1\n")
    assert sorted(contracts.entrypoint_code(acme, "support.graph:app")) == ["support/__init__.py", "support/graph.py"]
    assert list(contracts.entrypoint_code(acme, "single:app")) == ["single.py"]
    assert "'absent.py'" in (refusal(acme, "absent:app", by=contracts.entrypoint_code).remedy or "")


def test_a_rubric_file_may_be_wrapped(acme: Path) -> None:
    for text in ("dimensions: {a: 0.8}\n", "rubric: {dimensions: {a: 0.8}}\n"):
        (acme / "r.yaml").write_text(text)
        assert contracts.read_rubric(acme, "r.yaml").dimensions["a"].threshold == 0.8
