"""`lockgate lock`, `diff`, `versions`, `schema` and `doctor` as a user meets them."""

from __future__ import annotations

import json
import os
import shutil
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lockgate.cli import app

runner = CliRunner()


@pytest.fixture
def project(acme: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(acme)
    return acme


def lockgate(*arguments: str) -> Result:
    return runner.invoke(app, list(arguments))


def test_lock_then_check_then_an_edit_then_check(project: Path) -> None:
    assert "new" in lockgate("lock").output
    assert lockgate("lock", "--check").exit_code == 0
    (project / "prompts/triage.md").write_text("Something else.\n")
    stale = lockgate("lock", "--check")
    assert (stale.exit_code, "changed: prompt" in stale.output) == (1, True)


def test_lock_answers_in_json(project: Path) -> None:
    answer = json.loads(lockgate("lock", "--json").output)
    warnings = [one["kind"] for one in answer["warnings"]]
    assert (answer["written"], answer["versions"][0]["agent"], warnings) == (True, "triage", ["deprecation"])


def test_the_playbook_s_file_locks_with_warnings_and_remedies(playbook: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(playbook)
    shown = lockgate("lock")
    assert shown.exit_code == 0
    assert "warning: agents/refund-triage.v3.yaml:7: the model 'llama3.1:70b' is not pinned" in shown.output
    assert "→ write tools/read_orders.yaml" in shown.output


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("agents/triage.v1.yaml", "agent: [", "agents/triage.v1.yaml:1: not valid YAML"),
        ("agents/triage.v1.yaml", "", "agents/triage.v1.yaml:1: the file is empty"),
        ("agents/triage.v1.yaml", "agent: {name: a, nmae: b}\n", "unknown key 'nmae'"),
        ("lockgate.yaml", "projct: x\n", "lockgate.yaml:1: unknown key 'projct'"),
        ("tools/read_orders.yaml", "tool: {name: read_orders, efect: read}\n", "did you mean 'effect'?"),
        ("schemas/facts.json", "{,}", "schemas/facts.json:1: not valid JSON"),
        ("policies/support.cedar", "nonsense", "policies/support.cedar"),
        ("lockgate.lock", "<<<<<<< ours\n", "lockgate.lock:1: a merge conflict"),
    ],
)
def test_bad_input_is_one_error_exit_code_two_and_nothing_written(
    project: Path, name: str, text: str, words: str
) -> None:
    (project / name).write_text(text)
    before = {path: path.stat().st_mtime_ns for path in project.rglob("*")}
    shown = lockgate("lock")
    assert shown.exit_code == 2
    assert words in shown.output
    assert shown.output.count("error: ") == 1
    assert "→" in shown.output
    assert "Traceback" not in shown.output
    assert {path: path.stat().st_mtime_ns for path in project.rglob("*")} == before


def test_a_metric_that_there_is_not_stops_a_lock_before_anything_is_written(project: Path) -> None:
    file = project / "agents/triage.v1.yaml"
    file.write_text(file.read_text().replace("field_match: 0.8", "feld_match: 0.8"))
    shown = lockgate("lock")
    assert shown.exit_code == 2
    assert "agents/triage.v1.yaml: evals: no metric 'feld_match'" in shown.output
    assert "did you mean 'field_match'?" in shown.output
    assert not (project / "lockgate.lock").exists()


def test_diff_shows_what_lock_would_change(project: Path) -> None:
    lockgate("lock")
    (project / "prompts/triage.md").write_text("Extract the facts.\nAnswer politely.\n")
    shown = lockgate("diff", "triage").output
    assert "+Answer politely." in shown
    assert "-Answer in JSON." in shown


def test_diff_of_two_versions_in_markdown_and_json(project: Path) -> None:
    text = (project / "agents/triage.v1.yaml").read_text()
    (project / "agents/triage.v2.yaml").write_text(
        text.replace("version: 1", "version: 2").replace("max_llm_calls: 4", "max_llm_calls: 9")
    )
    lockgate("lock")
    assert "limits max_llm_calls: 4 → 9 (loosened)" in lockgate("diff", "triage@1", "triage@2", "--markdown").output
    answer = json.loads(lockgate("diff", "triage@1", "triage@2", "--json").output)
    assert [(change["what"], change["mark"]) for change in answer["changes"]] == [("max_llm_calls", "loosened")]


@pytest.mark.parametrize("refs", [("1", "2"), ("@1", "triage@2"), ("v1", "agents/triage.v2.yaml")])
def test_a_number_is_the_version_of_the_agent_that_is_meant(project: Path, refs: tuple[str, str]) -> None:
    text = (project / "agents/triage.v1.yaml").read_text()
    (project / "agents/triage.v2.yaml").write_text(
        text.replace("version: 1", "version: 2").replace("calls: 4", "calls: 5")
    )
    lockgate("lock")
    answer = json.loads(lockgate("diff", *refs, "--json").output)
    assert answer["before"] == "triage@1"
    assert [change["what"] for change in answer["changes"]] == ["max_llm_calls"]


def test_a_number_behind_the_gate_keeps_its_behaviour(project: Path) -> None:
    lockgate("lock")
    edit = project / "prompts/triage.md"
    deployed = lockgate("deploy", "triage@1", "--env", "prod", "--override", "a first one")
    assert deployed.exit_code == 0, deployed.output
    edit.write_text("Another prompt.\n")
    kept = (project / "lockgate.lock").read_bytes()
    refused = lockgate("lock")
    assert (refused.exit_code, "deployed to prod" in refused.output) == (1, True)
    assert (project / "lockgate.lock").read_bytes() == kept
    assert "other behaviour under the same number" in lockgate("lock", "--same-number").output
    assert "same number" not in lockgate("lock").output


def test_diff_sees_a_threshold_that_changed_under_one_digest(project: Path) -> None:
    text = (project / "agents/triage.v1.yaml").read_text()
    (project / "agents/triage.v2.yaml").write_text(
        text.replace("version: 1", "version: 2").replace("field_match: 0.8", "field_match: 0.5")
    )
    lockgate("lock")
    answer = json.loads(lockgate("diff", "triage@1", "triage@2", "--json").output)
    assert answer["same_behaviour"] is True
    assert [change["what"] for change in answer["changes"]] == ["field_match.threshold"]


def test_versions_are_listed_shown_and_verified(project: Path) -> None:
    digest = json.loads(lockgate("lock", "--json").output)["versions"][0]["digest"]
    assert digest[7:19] in lockgate("versions", "list").output
    shown = lockgate("versions", "show", "triage", "--env", "prod").output
    assert digest in shown
    assert "none" in shown
    assert "1 versions, 0 problems" in lockgate("versions", "verify").output
    (project / ".lockgate/blobs/sha256" / digest[7:]).write_bytes(b"spoilt")
    assert lockgate("versions", "verify").exit_code == 4


def test_a_schema_is_json(project: Path) -> None:
    assert json.loads(lockgate("schema", "agent").output)["title"] == "AgentFile"
    assert lockgate("schema", "nothing").exit_code == 2


def test_doctor_is_content_with_a_locked_careful_project(project: Path) -> None:
    lockgate("lock")
    shown = lockgate("doctor", "--offline", "--json")
    assert shown.exit_code == 0
    # The model it names is hosted: its key is not here, and hosted models have announced ends.
    assert {finding["kind"] for finding in json.loads(shown.output)} <= {"retirement", "provider"}


def test_doctor_finds_what_is_wrong_with_its_remedy(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ACME_ABSENT", raising=False)
    (project / ".git").mkdir()
    (project / "lockgate.yaml").write_text(
        "project: acme\nowner: me\nproviders:\n  openai: {kind: openai, api_key: '${env:ACME_ABSENT}'}\n"
        "  # sk-" + "planted1Canary2" * 2 + "\n"
    )
    later = time.time() + 10_000
    os.utime(project / "lockgate.yaml", (later, later))
    answer = lockgate("doctor", "--offline", "--json")
    findings = json.loads(answer.output)
    assert answer.exit_code == 1
    assert {finding["kind"] for finding in findings} >= {"secret", "project", "lock", "machine", "provider"}
    assert all(finding["remedy"] for finding in findings)
    assert "planted1" not in answer.output


def test_doctor_says_what_is_malformed(project: Path) -> None:
    (project / "agents/triage.v1.yaml").write_text("agent: 3\n")
    answer = lockgate("doctor")
    assert (answer.exit_code, "agents/triage.v1.yaml:1" in answer.output) == (1, True)


def test_doctor_warns_when_the_disk_is_nearly_full(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lockgate("lock")
    usage = shutil.disk_usage(project)._replace(free=10_000_000)
    monkeypatch.setattr("lockgate.versions.doctor.machine.shutil.disk_usage", lambda _: usage)
    assert "10 MB are free" in lockgate("doctor").output
