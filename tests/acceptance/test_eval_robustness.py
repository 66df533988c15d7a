"""Bad input and bad luck, each in a real process: every one ends in a stated outcome, and none in a green gate."""

from __future__ import annotations

import json
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import write_files

from lockgate.testing import FakeModelServer, ModelRequest, Reply, hanging

CASES = 60

AGENT = """agent:
  name: triage
  version: 1
  model: {provider: fake, name: m-2026-01-01}
  system_prompt: prompts/v1.md
  EXTRA
  evals: {dataset: g.jsonl, timeout: 60s, whole: true, concurrency: 8, thresholds: {THRESHOLDS}}
"""
TOOL = "tool: {name: decide, effect: pure, python: tools/decide.py:decide, input: {type: object}, timeout: 60s}\n"
HANDLER = "handler: decide\n  tools: [decide]"


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    def answer(request: ModelRequest) -> Reply:
        return Reply(text=json.dumps({"word": request.last_user}))

    with FakeModelServer(answer) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, server: FakeModelServer) -> Path:
    cases = [{"id": f"c{n}", "input": f"w{n}", "expected_output": {"word": f"w{n}"}} for n in range(CASES)]
    write_files(
        tmp_path,
        {
            "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
            "prices: prices.yaml\n",
            "prices.yaml": "fake: {m-2026-01-01: {input: 1.0, output: 2.0}}\n",
            "g.jsonl": "".join(json.dumps(case) + "\n" for case in cases),
            "prompts/v1.md": "Say it.\n",
            "agents/triage.v1.yaml": agent(),
        },
    )
    return tmp_path


def agent(thresholds: str = "field_match: 0.8", extra: str = "owner: me") -> str:
    return AGENT.replace("EXTRA", extra).replace("THRESHOLDS", thresholds)


def start(project: Path, *arguments: str, **options: Any) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "lockgate", "eval", "--agent", "agents/triage.v1.yaml", *arguments]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=project, **pipes, **options)


def ended(process: subprocess.Popen[str], seconds: float = 120) -> tuple[int, str]:
    """Exit code and all that was said, well before the test's own patience ends."""
    try:
        out, err = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise
    return process.returncode, out + err


def evaluated(project: Path, *arguments: str) -> tuple[int, str]:
    return ended(start(project, *arguments))


def test_ctrl_c_stops_at_once_and_the_same_command_goes_on(project: Path, server: FakeModelServer) -> None:
    server.latency = 0.2
    process = start(project)
    server.wait_for_requests(20)
    process.send_signal(signal.SIGINT)
    code, said = ended(process)
    assert code not in (0, 1, 3)
    assert "finished trials are kept" in said
    assert "Traceback" not in said
    server.latency = 0
    asked = len(server.requests)
    code, said = evaluated(project)
    assert code == 0, said
    assert len(server.requests) - asked <= CASES - asked + 8  # those in flight are asked again, and no other


def test_a_judge_that_answered_before_a_kill_is_not_asked_again(project: Path, server: FakeModelServer) -> None:
    asked: list[str] = []
    away = True

    def answer(request: ModelRequest) -> Reply:
        asked.append(request.body["model"])
        if request.body["model"] == "second" and away:
            return hanging()
        return Reply(text='{"reason": "r", "verdict": "yes"}')

    server.respond = answer
    panel = "judge: {provider: fake, name: first, panel: [{provider: fake, name: second}]}, thresholds:"
    prices = "fake: {m-2026-01-01: &p {input: 1.0, output: 2.0}, first: *p, second: *p}\n"
    judged = agent("helpfulness: 0.8").replace("thresholds:", panel)
    write_files(project, {"prices.yaml": prices, "agents/triage.v1.yaml": judged})
    process = start(project)
    until = time.monotonic() + 60
    while kept_for_judges(project) < 8 and time.monotonic() < until:
        time.sleep(0.05)
    process.kill()
    ended(process)
    away = False
    code, said = evaluated(project)
    assert code == 0, said
    assert [asked.count(model) for model in ("m-2026-01-01", "first")] == [CASES, CASES]
    assert asked.count("second") <= CASES + 8  # those that had not answered
    assert kept_for_judges(project) == 0


def kept_for_judges(project: Path) -> int:
    """Answers of judges that are stored and gave no score yet."""
    file = project / ".lockgate/control.db"
    if not file.exists():
        return 0
    connection = sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=10)
    try:
        return int(connection.execute("select count(*) from trial_calls where asked like 'judge:%'").fetchone()[0])
    except sqlite3.OperationalError:  # no such table yet
        return 0
    finally:
        connection.close()


def test_ctrl_c_twice_ends_an_agent_that_will_not_be_cancelled(project: Path, server: FakeModelServer) -> None:
    code = "def decide(facts, call):\n    while True:\n        pass\n"
    write_files(project, {"tools/decide.py": code, "tools/decide.yaml": TOOL})
    stubborn = agent(extra=HANDLER).replace("timeout: 60s", "timeout: 10m")
    write_files(project, {"agents/triage.v1.yaml": stubborn})
    process = start(project)
    server.wait_for_requests(1)
    until = time.monotonic() + 60
    while process.poll() is None and time.monotonic() < until:  # of two signals at once a busy process sees one
        process.send_signal(signal.SIGINT)
        time.sleep(0.5)
    code_, said = ended(process)
    assert code_ not in (0, 1, 3), said


@pytest.mark.parametrize("kind", ["def", "async def"])
def test_an_agent_that_never_returns_fails_its_trials_and_the_others_go_on(project: Path, kind: str) -> None:
    """A thread that computes for ever is left behind; a coroutine keeps the event loop, and is interrupted."""
    code = f"{kind} decide(facts, call):\n    while 'w7' in facts:\n        pass\n    return facts\n"
    stuck = agent(extra=HANDLER).replace("timeout: 60s", "timeout: 4s")
    write_files(project, {"tools/decide.py": code, "tools/decide.yaml": TOOL, "agents/triage.v1.yaml": stuck})
    code_, said = evaluated(project, "--json")
    assert code_ == 0, said
    card = json.loads(said[said.index("{") : said.rindex("}") + 1])
    assert card["failures"] == {"trial_timeout": 1}
    assert any(one.startswith("1 trial failed with trial_timeout: ") for one in card["warnings"]), card["warnings"]
    assert sum(metric["errors"] for metric in card["metrics"] if metric["name"] == "field_match") == 1


def test_a_full_disk_is_no_verdict_and_room_again_goes_on(project: Path) -> None:
    assert subprocess.run([sys.executable, "-m", "lockgate", "lock"], cwd=project, check=False).returncode == 0

    def small() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    code, said = ended(start(project, preexec_fn=small))
    assert code == 4, said
    assert "Traceback" not in said
    code, said = evaluated(project)
    assert code == 0, said


@pytest.mark.parametrize("body", ["raise ValueError('no idea')", "return float('nan')", "return 'fine'", "return 7.5"])
def test_a_scorer_that_raises_or_gives_no_number_counts_as_the_worst(project: Path, body: str) -> None:
    write_files(project, {"scorers.py": f"def mine(sample):\n    {body}\n"})
    write_files(project, {"agents/triage.v1.yaml": agent("mine: {python: 'scorers.py:mine', min: 0.5}")})
    code, said = evaluated(project, "--json")
    assert code == 1, said
    card = json.loads(said[said.index("{") : said.rindex("}") + 1])
    mine = next(metric for metric in card["metrics"] if metric["name"] == "mine")
    assert (mine["errors"], mine["mean"], mine["verdict"]) == (CASES, 0.0, "fail")
    assert any(f"mine: its scorer failed on {CASES} of {CASES} trials" in one for one in card["warnings"])


def test_a_broken_line_and_a_repeated_id_are_named_by_line_before_anything_runs(
    project: Path, server: FakeModelServer
) -> None:
    lines = (project / "g.jsonl").read_text().splitlines()
    broken = [*lines[:40], '{"id": "c40", "input": ', *lines[41:]]
    write_files(project, {"g.jsonl": "\n".join(broken) + "\n"})
    code, said = evaluated(project)
    assert (code, "41" in said, "JSON" in said) == (2, True, True), said
    write_files(project, {"g.jsonl": "\n".join([*lines, lines[3]]) + "\n"})
    code, said = evaluated(project)
    assert code == 2
    assert "stands twice, first on line 4" in said
    assert server.requests == []
