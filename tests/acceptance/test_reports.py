"""`lockgate eval --html --junit --log` and `report`, from the shell's side, on a fake model server."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, Reply

runner = CliRunner()

AGENT = """\
agent:
  name: triage
  version: {0}
  owner: support
  model: {{provider: fake, name: m-2026-01-01}}
  system_prompt: prompts/v{0}.md
  evals: {{dataset: g.jsonl, thresholds: {{field_match: {{min: 0.8, margin: 0.1}}}}}}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    turns: dict[str, int] = {}

    def answer(request: ModelRequest) -> Reply:
        word = request.last_user
        turns[word] = turns.get(word, 0) + 1
        return Reply(text=json.dumps({"word": "" if word == "w3" and turns[word] % 2 else word}))  # one flaky case

    cases = [{"id": f"c{n}<b>", "input": f"w{n}", "expected_output": {"word": f"w{n}"}} for n in range(40)]
    with FakeModelServer(answer) as server:
        files = {
            "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
            "prices: prices.yaml\n",
            "prices.yaml": "fake: {m-2026-01-01: {input: 1.0, output: 2.0}}\n",
            "g.jsonl": "".join(json.dumps(case) + "\n" for case in cases),
            **{f"prompts/v{n}.md": f"Say it, {n}.\n" for n in (1, 2)},
            **{f"agents/triage.v{n}.yaml": AGENT.format(n) for n in (1, 2)},
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        monkeypatch.chdir(tmp_path)
        call("lock")
        yield tmp_path


def call(*arguments: str, exit_code: int = 0) -> str:
    shown = runner.invoke(app, list(arguments))
    assert shown.exit_code == exit_code, shown.output + repr(shown.exception)
    return shown.output


def test_every_report_is_written_beside_the_scorecard_with_every_case(project: Path) -> None:
    call("eval", "--agent", "triage@1", "--html", "o/r.html", "--junit", "o/r.xml", "--log", "o/r.eval")
    html = Path("o/r.html").read_text()
    assert "c39&lt;b&gt;" in html
    assert "c39<b>" not in html
    names = {case.get("name") for case in ET.parse("o/r.xml").iter("testcase")}
    assert {f"c{n}<b>" for n in range(40)} <= names
    assert "<li>field_match <b>1</b>" in html
    with zipfile.ZipFile("o/r.eval") as log:
        first = json.loads(log.read("samples/c0<b>_epoch_1.json"))
    assert first["scores"]["field_match"]["value"] == 1.0


def test_scorecards_say_how_far_the_verdict_can_be_trusted(project: Path) -> None:
    call("eval", "--agent", "triage@2", "--baseline", "triage@1", "--trials", "2", "--whole", "--self-check")
    for form in ("text", "markdown"):
        shown = " ".join(call("report", "--format", form).split())
        assert "smallest loss seen 8 times in 10: field_match 0." in shown, form
        assert "self-check: an equal version blocked in" in shown, form
        assert "(sd 0." in shown, form


def test_a_comment_outside_a_ci_job_is_a_usage_error(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("GITHUB_REPOSITORY", raising=False)
    monkeypatch.delenv("GITLAB_CI", raising=False)
    call("eval", "--agent", "triage@1")
    assert "GITHUB_REPOSITORY" in call("report", "--comment", exit_code=2)


def test_a_log_is_no_text_for_the_screen(project: Path) -> None:
    call("eval", "--agent", "triage@1")
    assert "give --output" in call("report", "--format", "inspect", exit_code=2)
