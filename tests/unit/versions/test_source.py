"""An agent file and all it names, read into one version; one good error for whatever is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.project.service import load_project
from lockgate.versions.source import AgentSource, agent_files, read_agent

AGENT = "agents/triage.v1.yaml"


def read(root: Path, name: str = AGENT) -> AgentSource:
    return read_agent(root / name, load_project(root))


def edit(root: Path, old: str, new: str, name: str = AGENT) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def kinds(source: AgentSource) -> list[str]:
    return [finding.kind for finding in source.warnings]


def test_a_careful_project_has_no_warnings(acme: Path) -> None:
    source = read(acme)
    assert source.warnings == []
    assert source.version.tool("issue_refund") is not None
    assert [tool.name for tool in source.version.tools] == ["read_orders", "issue_refund", "decide"]
    assert sorted(source.code) == ["tools/decide.py", "tools/orders.py"]
    assert (source.settings.owner, source.settings.daily_usd) == ("support-team", 50.0)
    assert source.settings.evals["thresholds"] == {"field_match": 0.8, "cost_usd": {"max": 0.05}}
    assert source.settings.rollout == {"phases": [{"weight": 5.0, "min": 3600.0}], "warm": 86400.0}


def test_the_playbook_s_file_reads_with_warnings_only(playbook: Path) -> None:
    source = read(playbook, "agents/refund-triage.v3.yaml")
    assert sorted(kinds(source)) == ["contract", "contract", "evals", "knowledge", "owner", "pin"]
    assert {str(finding).partition(": ")[0] for finding in source.warnings if finding.kind == "contract"} == {
        "agents/refund-triage.v3.yaml:13",
        "agents/refund-triage.v3.yaml:12",
    }
    assert all(finding.remedy for finding in source.warnings)
    assert source.version.limits.max_tokens_per_run == 4000
    assert source.version.retrieval == {"knowledge_base": "kb/support-policies@2026-05-21", "digest": None}


@pytest.mark.parametrize(
    ("old", "new", "line", "words"),
    [
        ("prompts/triage.md", "prompts/absent.md", 5, "prompts/absent.md: no such file"),
        ("provider: openai", "provider: opanai", 4, "did you mean 'openai'?"),
        ("schemas/facts.json", "schemas/absent.json", 10, "schemas/absent.json: no such file"),
        ("policies/support.cedar", "../x.cedar", 11, "not a path inside the project"),
        ("evals/golden/triage.jsonl", "evals/golden/x.jsonl", 13, "no such file"),
        ("handler: decide", "handler: read_orders", 9, "has effect 'read', not 'pure'"),
        ("handler: decide", "handler: absent", 9, "has no Python function"),
        ("    - read_orders\n", "    - read_orders\n    - read_orders\n", 8, "'read_orders' stands twice"),
        ("  system_prompt: prompts/triage.md\n", "", 1, "needs a system_prompt"),
        ("version: 1", "version: one", 3, "agent.version is 'one'"),
        ("  tools:", "  framework: {kind: langgraph}\n  tools:", 6, "needs an entrypoint"),
        ("temperature: 0.1", "temperature: 9", 4, "less than or equal to 2"),
    ],
)
def test_what_is_wrong_is_one_error_with_file_line_and_remedy(
    acme: Path, old: str, new: str, line: int, words: str
) -> None:
    edit(acme, old, new)
    with pytest.raises(InputError) as caught:
        read(acme)
    assert (caught.value.path, caught.value.line) == (AGENT, line)
    assert words in str(caught.value)
    assert caught.value.remedy


def test_an_error_inside_a_named_file_points_into_that_file(acme: Path) -> None:
    (acme / "schemas" / "facts.json").write_text('{\n"type": }')
    with pytest.raises(InputError) as caught:
        read(acme)
    assert (caught.value.path, caught.value.line) == ("schemas/facts.json", 2)


@pytest.mark.parametrize(
    ("old", "new", "kind"),
    [
        ("gpt-4o-mini-2024-07-18", "gpt-4o", "pin"),
        ("{name: issue_refund, approval: required}", "issue_refund", "approval"),
        ("- read_orders", "- write_orders", "contract"),
        ("thresholds:", "judge: {provider: openai, name: gpt-4o-2024-08-06}, thresholds:", "judge"),
    ],
)
def test_what_falls_short_of_good_practice_is_a_warning(acme: Path, old: str, new: str, kind: str) -> None:
    edit(acme, old, new)
    assert kinds(read(acme)) == [kind]


def test_a_misspelt_tool_is_an_error_that_names_the_known_one(acme: Path) -> None:
    edit(acme, "- read_orders", "- read_order")
    with pytest.raises(InputError, match="there is no tool 'read_order'") as caught:
        read(acme)
    assert (caught.value.path, caught.value.line) == (AGENT, 7)
    assert "did you mean 'read_orders'?" in caught.value.remedy


def test_a_tool_that_something_else_brings_is_said_so(acme: Path) -> None:
    edit(acme, "- read_orders", "- {name: read_order, contract: none}")
    source = read(acme)
    assert kinds(source) == []
    assert source.version.tools[0].name == "read_order"
    edit(acme, "name: read_order,", "name: read_orders,")
    with pytest.raises(InputError, match=r"the tool 'read_orders' has a contract: tools/read_orders\.yaml"):
        read(acme)


def test_a_side_effect_that_is_meant_to_go_unapproved_is_said_so(acme: Path) -> None:
    edit(acme, "approval: required", "approval: none")
    assert kinds(read(acme)) == []


def test_a_small_golden_set_warns(acme: Path) -> None:
    (acme / "evals/golden/triage.jsonl").write_text('{"id": "c1", "input": "x"}\n\n')
    assert "1 cases" in read(acme).warnings[0].message


def test_owners_come_from_the_file_then_codeowners_then_the_project(acme: Path) -> None:
    assert read(acme).settings.owner == "support-team"
    (acme / "CODEOWNERS").write_text("agents/ @triage-team\n")
    assert read(acme).settings.owner == "@triage-team"
    edit(acme, "  version: 1\n", "  version: 1\n  owner: me\n")
    assert read(acme).settings.owner == "me"


@pytest.mark.parametrize("name", [AGENT, "prompts/triage.md", "tools/orders.py"])
def test_a_planted_secret_is_found_and_not_repeated(acme: Path, name: str) -> None:
    canary = "sk-" + "planted1Canary2" * 2
    (acme / name).write_text((acme / name).read_text() + f"# {canary}\n")
    (found,) = read(acme).warnings
    assert (found.kind, found.path) == ("secret", name)
    assert canary not in str(found)


def test_a_prompt_file_that_was_written_for_something_else_warns(acme: Path) -> None:
    (acme / "prompts" / "p.yaml").write_text("name: p\ntemperature: 0.3\ntemplate: hello\n")
    edit(acme, "prompts/triage.md", "prompts/p.yaml")
    source = read(acme)
    assert (source.version.system_prompt, kinds(source)) == ("hello", ["prompt"])


def test_an_empty_prompt_is_refused(acme: Path) -> None:
    (acme / "prompts" / "triage.md").write_text(" \n")
    with pytest.raises(InputError, match=r"prompts/triage\.md:1: the prompt is empty"):
        read(acme)


def test_a_rubric_file_is_read_into_the_settings(acme: Path) -> None:
    (acme / "r.yaml").write_text("dimensions:\n  tone: {min: 0.7, blocking: false}\nnever: [injection]\n")
    edit(acme, "thresholds:", "rubric: r.yaml, thresholds:")
    assert read(acme).settings.evals["rubric"] == {
        "dimensions": {"tone": {"min": 0.7, "blocking": False}},
        "never": ["injection"],
    }


def test_a_knowledge_snapshot_that_is_here_is_part_of_the_version(acme: Path) -> None:
    edit(acme, "  budgets:", "  retrieval: {knowledge_base: kb/refunds@1}\n  budgets:")
    (acme / "kb" / "refunds@1").mkdir(parents=True)
    (acme / "kb" / "refunds@1" / "a.md").write_text("one")
    first = read(acme).version.retrieval
    (acme / "kb" / "refunds@1" / "a.md").write_text("two")
    assert first != read(acme).version.retrieval
    assert first is not None
    assert first["digest"].startswith("sha256:")


def test_a_dependency_lock_is_named_by_its_digest(acme: Path) -> None:
    (acme / "uv.lock").write_text("a==1\n")
    assert list(read(acme).version.dependencies) == ["uv.lock"]


def test_only_files_below_agents_are_agents(acme: Path) -> None:
    (acme / "agents" / ".draft.yaml").write_text("x")
    (acme / "agents" / "deep").mkdir()
    (acme / "agents" / "deep" / "b.yml").write_text("x")
    assert [path.relative_to(acme).as_posix() for path in agent_files(acme)] == ["agents/deep/b.yml", AGENT]
