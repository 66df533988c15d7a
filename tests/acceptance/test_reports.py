"""`lockgate eval --html --junit --log` and `report`, from the shell's side, on a fake model server."""

from __future__ import annotations

import json
import threading
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from tests.acceptance.commands import call
from tests.conftest import write_files

from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, Reply

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
        write_files(tmp_path, files)
        monkeypatch.chdir(tmp_path)
        call("lock")
        yield tmp_path


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


class Forge(BaseHTTPRequestHandler):
    """GitHub's comments of one pull request, or its refusal."""

    bodies: ClassVar[list[str]] = []
    refuses: ClassVar[bool] = False

    def do_GET(self) -> None:
        self.answer([{"id": n, "body": body} for n, body in enumerate(self.bodies)])

    def do_POST(self) -> None:
        self.keep(len(self.bodies))

    def do_PATCH(self) -> None:
        self.keep(int(self.path.rpartition("/")[2]))

    def keep(self, number: int) -> None:
        said = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["body"]
        self.bodies[number:] = [said, *self.bodies[number + 1 :]]
        self.answer({"id": number})

    def answer(self, data: object) -> None:
        body = json.dumps(data).encode()
        self.send_response(403 if self.refuses else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def forge(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Forge]]:
    monkeypatch.setattr(Forge, "bodies", [])
    monkeypatch.setattr(Forge, "refuses", False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Forge) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        given = {"GITHUB_REPOSITORY": "me/shop", "GITHUB_TOKEN": "t", "LOCKGATE_PR_NUMBER": "7"}
        for name, value in (given | {"GITHUB_API_URL": f"http://127.0.0.1:{server.server_port}"}).items():
            monkeypatch.setenv(name, value)
        monkeypatch.delenv("GITLAB_CI", raising=False)
        monkeypatch.delenv("GITHUB_EVENT_PATH", raising=False)
        yield Forge
        server.shutdown()


def test_a_comment_never_keeps_a_verdict_that_this_run_did_not_reach(project: Path, forge: type[Forge]) -> None:
    call("eval", "--agent", "triage@1", "--comment")
    assert "pass" in forge.bodies[0]
    file = project / "g.jsonl"
    file.write_text(file.read_text() + "{broken\n")
    call("eval", "--agent", "triage@1", "--comment", exit_code=2)
    assert len(forge.bodies) == 1
    assert "no verdict" in forge.bodies[0]
    assert "g.jsonl:41" in forge.bodies[0]


def test_a_comment_that_is_refused_hides_no_verdict_and_is_none(project: Path, forge: type[Forge]) -> None:
    forge.refuses = True
    shown = call("eval", "--agent", "triage@1", "--comment", exit_code=4)
    assert shown.startswith("pass")
    assert "may the token write comments" in shown
    shown = call("eval", "--agent", "triage@1", "--threshold", "field_match=1", "--comment", exit_code=1)
    assert shown.startswith("FAIL")
