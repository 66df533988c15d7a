"""``lockgate keys`` from the shell's side."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from lockgate.cli import app


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    (tmp_path / "lockgate.yaml").write_text("project: test\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    return CliRunner()


def create(shell: CliRunner, *options: str) -> Result:
    return shell.invoke(app, ["keys", "create", "--tenant", "acme", *options])


def test_a_key_is_shown_once_and_recognised_by_its_id_from_then_on(shell: CliRunner) -> None:
    made = json.loads(create(shell, "--env", "prod", "--role", "admin", "--agent", "triage", "--json").output)
    assert made["key"].startswith("lgk_")
    assert (made["roles"], made["agents"], made["models"]) == (["admin"], ["triage"], None)
    listed = shell.invoke(app, ["keys", "list", "--json"]).output
    assert made["key"] not in listed
    assert json.loads(listed)[0]["id"] == made["id"]


def test_for_people_the_key_stands_alone_on_its_line(shell: CliRunner) -> None:
    first, second = create(shell).output.splitlines()
    assert first.startswith("lgk_")
    assert " " not in first
    assert "cannot be shown again" in second


def test_a_list_shows_what_each_may_and_whether_it_is_good(shell: CliRunner) -> None:
    create(shell, "--name", "desk", "--model", "openai/gpt-4o", "--expires", "30d")
    revoked = json.loads(create(shell, "--json").output)["id"]
    assert shell.invoke(app, ["keys", "revoke", revoked]).exit_code == 0
    lines = shell.invoke(app, ["keys", "list"]).output.splitlines()
    assert "openai/gpt-4o" in lines[1]
    assert "good until 20" in lines[1]
    assert lines[2].rstrip().endswith("revoked")


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (("--env", "nope"), "no environment 'nope'"),
        (("--expires", "soon"), "--expires is 'soon'"),
        (("--expires", "0d"), "--expires is '0d'"),
    ],
)
def test_a_wrong_flag_makes_no_key(shell: CliRunner, options: tuple[str, ...], named: str) -> None:
    failed = create(shell, *options)
    assert failed.exit_code == 2
    assert named in failed.output + str(failed.exception)
    assert json.loads(shell.invoke(app, ["keys", "list", "--json"]).output) == []


def test_revoking_an_unknown_key_says_where_ids_are(shell: CliRunner) -> None:
    failed = shell.invoke(app, ["keys", "revoke", "key_x"])
    assert failed.exit_code == 2
    assert "lockgate keys list" in failed.output


@pytest.mark.parametrize("broken", ["project: [test\n", "project: test\nlimitz: {}\n"])
def test_a_key_is_revoked_and_listed_and_rotated_while_the_projects_file_has_a_mistake(
    shell: CliRunner, tmp_path: Path, broken: str
) -> None:
    made = [json.loads(create(shell, "--json").output)["id"] for _ in range(2)]
    (tmp_path / "lockgate.yaml").write_text(broken)
    revoked = shell.invoke(app, ["keys", "revoke", made[0]])
    assert (revoked.exit_code, revoked.stdout) == (0, f"{made[0]} is revoked.\n")
    assert "warning: the project's file has a mistake" in revoked.stderr
    assert "lockgate.yaml:" in revoked.stderr
    assert shell.invoke(app, ["keys", "rotate", made[1], "--grace", "0s"]).exit_code == 0
    listed = json.loads(shell.invoke(app, ["keys", "list", "--json"]).stdout)
    assert {key["id"]: key["revoked_at"] is not None for key in listed} == {made[0]: True, made[1]: False}


def test_where_no_project_is_no_key_is_looked_for(shell: CliRunner, tmp_path: Path) -> None:
    (tmp_path / "lockgate.yaml").unlink()
    failed = shell.invoke(app, ["keys", "list"])
    assert failed.exit_code == 2
    assert "no lockgate.yaml in" in failed.stderr


def test_a_database_of_another_kind_is_one_error_without_its_password(
    shell: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCKGATE_CONTROL_URL", "mysql://root:hunter2@db/x")
    failed = shell.invoke(app, ["keys", "list"])
    assert failed.exit_code == 2
    assert "error: the control database is at 'mysql://root:***@db/x'" in failed.stderr
    assert "set LOCKGATE_CONTROL_URL to postgresql://" in failed.stderr
