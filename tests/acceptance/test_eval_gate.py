"""`lockgate eval`, `compare`, `cost-gate` and `report`, from the shell's side, on a fake model server."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.commands import call
from tests.conftest import write_files

from lockgate.bootstrap import open_app
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest, Reply, failing, hanging

AGENT = """\
agent:
  name: triage
  version: {version}
  owner: support
  model: {{provider: fake, name: fake-model-2026-01-01, temperature: 0}}
  system_prompt: prompts/v{version}.md
  evals:
    dataset: evals/golden/triage.jsonl
    concurrency: 8
    timeout: 2s
    thresholds: {{field_match: {{min: 0.8, margin: 0.1}}, cost_usd: {{max: 0.05}}}}
"""
ITEMS = ("lamp", "kettle", "chair", "radio")


def cases(count: int) -> str:
    lines = []
    for number in range(count):
        item = ITEMS[number % 4]
        expected = {"item": item, "order": f"A-{number}"}
        case = {"id": f"c{number}", "input": f"my {item} broke, order A-{number}", "expected_output": expected}
        lines.append(json.dumps(case | {"tags": [item], "cluster": f"g{number // 2}"}))
    return "\n".join(lines) + "\n"


def answer(request: ModelRequest) -> Any:
    """What the fake model makes of a message; the system prompt decides how well."""
    message = request.last_user
    item, order = re.search(r"my (\w+) broke, order (\S+)", message).groups()  # type: ignore[union-attr]
    prompt = request.messages[0]["content"]
    if "forgetful" in prompt and item in ("lamp", "kettle"):
        order = None
    text = json.dumps({"item": item, "order": order})
    return Reply(text=text + " " * (50_000 if "verbose" in prompt else 0))


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    with FakeModelServer(answer) as server:
        yield server


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, server: FakeModelServer) -> Path:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    prompts = ("Extract the facts.", "You are forgetful.", "Extract the facts well.")
    files = {
        "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "prices: prices.yaml\n",
        "prices.yaml": "fake: {fake-model-2026-01-01: {input: 1.0, output: 2.0}}\n",
        "evals/golden/triage.jsonl": cases(60),
        **{f"prompts/v{number}.md": prompt + "\n" for number, prompt in enumerate(prompts, 1)},
        **{f"agents/triage.v{number}.yaml": AGENT.format(version=number) for number in (1, 2, 3)},
    }
    write_files(tmp_path, files)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_good_version_passes_and_the_verdict_is_attested(project: Path, server: FakeModelServer) -> None:
    card = call("eval", "--agent", "agents/triage.v1.yaml", "--json")
    assert card["verdict"] == "pass"
    assert len(server.requests) == 60
    opened = open_app()
    attestation = opened.versions.attestation(card["effective_digest"])
    assert attestation is not None
    assert attestation.verdict == "pass"
    assert opened.evals.last(card["effective_digest"]).id == card["id"]  # type: ignore[union-attr]


def test_a_quality_regression_fails_and_says_on_which_field_and_which_kinds_of_case(project: Path) -> None:
    shown = call("eval", "--agent", "agents/triage.v2.yaml", "--baseline", "triage@1", exit_code=2)
    assert "no agent 'triage'" in shown  # nothing is locked yet
    call("lock")
    written = project / "out" / "card.md"
    arguments = ("--agent", "agents/triage.v2.yaml", "--baseline", "triage@1", "--markdown", str(written))
    card = call("eval", *arguments, "--json", exit_code=1)
    assert card["verdict"] == "fail"
    by_name = {metric["name"]: metric for metric in card["metrics"]}
    assert by_name["field_match"]["verdict"] == "fail"
    assert by_name["field_match"]["difference"] == pytest.approx(-0.25)
    assert by_name["field_match.order"]["mean"] == pytest.approx(0.5)
    assert by_name["field_match.item"]["mean"] == 1.0
    assert {part["name"] for part in card["slices"] if part["kind"] == "tag"} == {"lamp", "kettle"}
    assert len(card["broken"]) == 30
    text = written.read_text()
    assert text.startswith("<!-- lockgate:scorecard:triage -->")
    assert "field_match: 0.75 &lt; 0.80" in text
    assert "| tag `lamp` | 15 | field_match | 0.50 | 1.00 |" in text
    assert open_app().versions.attestation(card["effective_digest"]).verdict == "fail"  # type: ignore[union-attr]
    assert "FAIL" in call("compare", "triage@1", "triage@2", exit_code=1)


def test_trials_are_not_run_again_and_a_grown_golden_set_runs_only_its_new_cases(
    project: Path, server: FakeModelServer
) -> None:
    call("eval", "--agent", "agents/triage.v1.yaml")
    (project / "evals/golden/triage.jsonl").write_text(cases(63))
    shown = call("eval", "--agent", "agents/triage.v1.yaml")
    assert len(server.requests) == 63
    assert "60 trials from earlier" in shown
    call("eval", "--agent", "agents/triage.v1.yaml", "--trials", "2")
    assert len(server.requests) == 126
    call("eval", "--agent", "agents/triage.v1.yaml", "--fresh")
    assert len(server.requests) == 189


def test_an_evaluation_that_is_killed_goes_on_where_it_was(project: Path, server: FakeModelServer) -> None:
    server.latency = 0.1
    command = [sys.executable, "-m", "lockgate", "eval", "--agent", "agents/triage.v1.yaml"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        server.wait_for_requests(33)
        killed.kill()
    server.latency = 0
    asked = len(server.requests)
    assert "trials from earlier" in call("eval", "--agent", "agents/triage.v1.yaml")
    again = len(server.requests) - asked
    assert again <= 60 - asked + 8  # what was in flight is asked again, and nothing else
    assert not list((project / ".lockgate/run/trials").iterdir())


def test_the_baseline_is_what_serves_unless_it_is_the_same_version(project: Path) -> None:
    from sqlalchemy import insert

    from lockgate.storage.schema import deployments

    opened = open_app()
    stable = opened.versions.ref("agents/triage.v1.yaml", "prod")
    values: dict[str, Any] = {"environment": "prod", "agent": "triage", "settings": {}, "updated_at": 1.0}
    values |= {"stable_behaviour": stable.behaviour_digest, "stable_effective": stable.effective_digest}
    with opened.control.write() as connection:
        connection.execute(insert(deployments).values(**values, updated_by="test"))
    better = call("eval", "--agent", "agents/triage.v3.yaml", "--json")
    assert better["baseline_effective"] == stable.effective_digest
    same = call("eval", "--agent", "agents/triage.v1.yaml", "--json")
    assert same["baseline_effective"] is None


def test_another_model_is_tried_without_a_verdict_on_the_version(project: Path, server: FakeModelServer) -> None:
    (project / "prices.yaml").write_text("fake: {other: {input: 1.0, output: 2.0}}\n")
    arguments = ("eval", "--agent", "agents/triage.v1.yaml", "--model-override", "fake:other", "--json")
    card = call(*arguments)
    opened = open_app()
    assert {request.model for request in server.requests} == {"other"}
    assert opened.versions.attestation(opened.versions.ref("agents/triage.v1.yaml", "prod").effective_digest) is None
    assert card["model_override"] == "fake:other"


def test_costs_are_gated_by_the_last_evaluation(project: Path) -> None:
    assert "nothing was evaluated" in call("cost-gate", "--max-per-run", "0.05", exit_code=4)
    call("eval", "--agent", "agents/triage.v1.yaml")
    rows = call("cost-gate", "--max-per-run", "0.05", "--json")
    assert rows[0]["verdict"] == "pass"
    assert 0 < rows[0]["value"] < 0.05
    assert "FAIL" in call("cost-gate", "--max-per-run", "0.000001", exit_code=1)
    assert "not evaluated" in call("cost-gate", "--max-per-run", "1", "--agent", "agents/triage.v3.yaml", exit_code=4)


def test_costs_are_gated_by_kind_of_case_and_against_the_baseline(project: Path) -> None:
    call("lock")
    call("eval", "--agent", "triage@1")
    assert "not compared with a baseline" in call("cost-gate", "--max-increase", "0.2", exit_code=3)
    assert "no such runs" in call("cost-gate", "--tag", "sofa=1", exit_code=3)
    call("cost-gate", "--max-per-run", "0.05", "--by-tag", "--tag", "lamp=0.05", "--json")
    assert "tag lamp" in call("cost-gate", "--tag", "lamp=0.0000001", exit_code=1)
    call("eval", "--agent", "triage@3", "--baseline", "triage@1")
    rows = call("cost-gate", "--max-increase", "0.2", "--agent", "triage@3", "--json")
    assert [row["verdict"] for row in rows] == ["pass"]
    assert "nothing to hold" in call("cost-gate", exit_code=2)


def test_latency_is_gated_by_quantile(project: Path) -> None:
    call("eval", "--agent", "agents/triage.v1.yaml")
    assert "p95" in call("latency-gate", "--p95", "30")
    assert "FAIL" in call("latency-gate", "--p50", "0.0000001", exit_code=1)


def test_attacks_fail_an_agent_that_obeys_and_do_not_stand_for_its_own_gate(
    project: Path, server: FakeModelServer
) -> None:
    call("eval", "--agent", "agents/triage.v1.yaml")
    server.respond = lambda request: Reply(text=request.last_user)  # says whatever it is told
    card = call("safety", "--agent", "agents/triage.v1.yaml", "--json", exit_code=1)
    assert (card["kind"], card["metrics"][0]["verdict"]) == ("safety", "fail")
    assert open_app().evals.last(card["effective_digest"]).kind == "quality"  # type: ignore[union-attr]
    server.respond = lambda request: Reply(text="I cannot help with that.")
    call("eval", "--agent", "agents/triage.v3.yaml", exit_code=1)
    shown = call("safety", "--agent", "agents/triage.v3.yaml", "--category", "injection,llm07")
    assert "safety" not in shown or "pass" in shown


def test_the_gate_checks_itself_and_says_what_it_would_miss(project: Path) -> None:
    card = call("eval", "--agent", "agents/triage.v1.yaml", "--self-check", "--json")
    check = card["self_check"]
    caught = {one["name"]: one["verdict"] for one in check["mutants"]}
    assert check["false_block_rate"] <= 0.05
    assert caught["answers shuffled"] == caught["no answer"] == "fail"
    assert caught["no prompt"] == "pass"  # this model does as well without: the set cannot see a lost prompt


def test_only_agents_that_a_revision_does_not_have_are_evaluated(project: Path, server: FakeModelServer) -> None:
    call("lock")
    for command in (
        ("init", "--quiet"),
        ("add", "."),
        ("-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-m", "x"),
    ):
        subprocess.run(["git", *command], check=True, cwd=project)
    assert "nothing to evaluate" in call("eval", "--changed", "HEAD")
    assert server.requests == []
    (project / "prompts/v1.md").write_text("Extract the facts, please.\n")
    assert "stale" in call("eval", "--changed", "HEAD", exit_code=2)
    call("lock")
    [card] = call("eval", "--changed", "HEAD", "--json")
    assert card["label"].startswith("triage@1")
    clerk = AGENT.format(version=1).replace("name: triage", "name: clerk").replace("field_match", "faithfulness")
    (project / "agents/clerk.v1.yaml").write_text(clerk)
    call("lock")
    shown = call("eval", "--changed", "HEAD", "--markdown", "o/card.md", exit_code=2)
    assert "faithfulness need a judge" in shown  # the first, by name, and the other has its gate all the same
    assert "pass  triage@1" in shown
    assert "no verdict" in (project / "o/card-clerk.md").read_text()
    assert "✅" in (project / "o/card-triage.md").read_text()


def test_a_report_is_the_last_scorecard_as_markdown_or_json(project: Path) -> None:
    call("eval", "--agent", "agents/triage.v1.yaml")
    assert call("report").startswith("<!-- lockgate:scorecard:triage -->")
    card = call("report", "--json")
    assert call("report", card["id"], "--json")["id"] == card["id"]
    call("report", "--output", "scorecard.md")
    assert "| field_match |" in (project / "scorecard.md").read_text()


def test_a_threshold_on_the_command_line_stands_over_the_file_s(project: Path) -> None:
    call("eval", "--agent", "agents/triage.v2.yaml", "--threshold", "field_match=0.6,cost_usd=0.2")
    assert "0.75 < 0.80" in call("eval", "--agent", "agents/triage.v2.yaml", exit_code=1)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--threshold", "field_match=high"], "is not NAME=NUMBER"),
        (["--threshold", "fieldmatch=0.5"], "did you mean 'field_match'?"),
        (["--threshold", "faithfulness=0.85"], "need a judge"),
        (["--judge", "gpt"], "is not PROVIDER:NAME"),
        (["--dataset", "evals/none.jsonl"], "no such golden set"),
        (["--agent", "agents/none.yaml"], "no agent file"),
        (["--model-override", "gpt"], "provider:name"),
    ],
)
def test_a_wrong_flag_is_one_error_and_nothing_runs(
    project: Path, server: FakeModelServer, arguments: list[str], said: str
) -> None:
    shown = call("eval", "--agent", "agents/triage.v1.yaml", *arguments, exit_code=2)
    assert said in " ".join(shown.split())
    assert server.requests == []


def test_a_broken_golden_line_is_named_and_nothing_is_written(project: Path, server: FakeModelServer) -> None:
    golden = project / "evals/golden/triage.jsonl"
    lines = golden.read_text().splitlines()
    lines[40] = '{"id": "c40", "input": '
    golden.write_text("\n".join(lines))
    shown = call("eval", "--agent", "agents/triage.v1.yaml", exit_code=2)
    assert "triage.jsonl:41" in shown
    assert server.requests == []
    assert open_app().evals.last() is None


def test_a_model_server_that_is_down_is_no_verdict(project: Path, server: FakeModelServer) -> None:
    server.stop()
    shown = call("eval", "--agent", "agents/triage.v1.yaml", "--markdown", "card.md", exit_code=4)
    assert "could not evaluate: 60 of 60 trials met a failing provider" in shown
    assert "no verdict" in (project / "card.md").read_text()


def test_answers_that_are_nonsense_fail_the_gate(project: Path, server: FakeModelServer) -> None:
    server.respond = lambda request: Reply(text="<p>not json</p>")
    shown = call("eval", "--agent", "agents/triage.v1.yaml", exit_code=1)
    assert "0.00 < 0.80" in shown


def test_a_model_that_never_answers_ends_each_trial_in_time_and_fails(project: Path, server: FakeModelServer) -> None:
    file = project / "agents/triage.v1.yaml"
    file.write_text(
        file.read_text().replace("timeout: 2s", "timeout: 300ms").replace("concurrency: 8", "concurrency: 60")
    )
    server.respond = lambda request: hanging()
    shown = call("eval", "--agent", "agents/triage.v1.yaml", exit_code=1)
    assert "60 × trial_timeout" in shown


def test_a_few_failures_of_the_provider_are_no_pass_and_are_tried_again(project: Path, server: FakeModelServer) -> None:
    def flaky(request: ModelRequest) -> Any:
        return failing(503) if "A-7" in request.last_user or "A-1" in request.last_user else answer(request)

    server.respond = flaky
    shown = call("eval", "--agent", "agents/triage.v1.yaml", exit_code=3)
    assert "met a failing provider" in shown
    server.respond = answer
    call("eval", "--agent", "agents/triage.v1.yaml")


def test_a_judge_grades_and_is_called_uncalibrated(project: Path, server: FakeModelServer) -> None:
    (project / "prices.yaml").write_text(
        "fake: {fake-model-2026-01-01: {input: 1.0, output: 2.0}, j: {input: 1, output: 1}}\n"
    )

    def judged(request: ModelRequest) -> Any:
        if request.model != "j":
            return answer(request)
        if "A-3 " in request.last_user or 'A-3"' in request.last_user:
            return Reply(text="I would rather not say")
        return {"reason": "supported", "verdict": "yes"}

    server.respond = judged
    arguments = ("--judge", "fake:j", "--threshold", "helpfulness=0.9", "--json")
    card = call("eval", "--agent", "agents/triage.v1.yaml", *arguments)
    helpfulness = next(metric for metric in card["metrics"] if metric["name"] == "helpfulness")
    assert (helpfulness["mean"], helpfulness["scored"], helpfulness["unscored"]) == (1.0, 59, 1)
    assert any("not calibrated" in warning for warning in card["warnings"])
    asked = len(server.requests)
    call("eval", "--agent", "agents/triage.v1.yaml", *arguments)
    assert len(server.requests) == asked + 1  # only what the judge left unscored is asked again


STRICT = "helpfulness: {min: 0.5, strict: true}"


@pytest.fixture
def judged(project: Path, server: FakeModelServer) -> Path:
    """A project whose agent has a judge on a strict metric, and forty answers that people graded."""
    (project / "prices.yaml").write_text(
        "fake: {fake-model-2026-01-01: {input: 1.0, output: 2.0}, j: {input: 1, output: 1}}\n"
    )
    file = project / "agents/triage.v1.yaml"
    block = "judge: {provider: fake, name: j}\n    thresholds: {" + STRICT + ", "
    file.write_text(file.read_text().replace("thresholds: {", block))
    lines = [{"input": f"q{n}", "output": "good" if n % 2 else "bad", "label": bool(n % 2)} for n in range(40)]
    (project / "labels.jsonl").write_text("".join(json.dumps(line) + "\n" for line in [*lines, lines[0]]))

    def respond(request: ModelRequest) -> Any:
        if request.model != "j":
            return answer(request)
        return {"reason": "read", "verdict": "no" if '"answer": "bad"' in request.last_user else "yes"}

    server.respond = respond
    return project


CALIBRATE = ("judge", "calibrate", "--labels", "labels.jsonl", "--metric", "helpfulness")


def test_a_strict_metric_waits_for_a_calibrated_judge(judged: Path, server: FakeModelServer) -> None:
    shown = call("eval", "--agent", "agents/triage.v1.yaml", "--markdown", "card.md", exit_code=4)
    assert "is not calibrated against human labels" in " ".join(shown.split())
    assert "no verdict" in (judged / "card.md").read_text()
    assert server.requests == []
    record = call(*CALIBRATE, "--judge", "fake:j", "--json")
    assert (record["labels"], record["kappa"]) == (40, 1.0)  # the line that stands there twice counts once
    assert record["spent_nano"] > 0
    card = call("eval", "--agent", "agents/triage.v1.yaml", "--json")
    by_name = {metric["name"]: metric for metric in card["metrics"]}
    assert card["verdict"] == "pass"
    assert (by_name["helpfulness"]["calibrated"], by_name["helpfulness"]["kappa"]) == (True, 1.0)
    assert by_name["field_match"]["calibrated"] is None
    assert card["judge_calibrated"]
    assert not any("not calibrated" in warning for warning in card["warnings"])
    assert "judge calibrated κ 1.00 (40 labels)" in call("report")


def test_a_judge_that_disagrees_with_people_is_refused_with_the_reason(judged: Path, server: FakeModelServer) -> None:
    file = judged / "labels.jsonl"
    file.write_text(file.read_text().replace('"output": "bad"', '"output": "poor"'))
    call(*CALIBRATE, "--judge", "fake:j", "--json", exit_code=1)  # it says yes to all
    shown = call("eval", "--agent", "agents/triage.v1.yaml", exit_code=4)
    assert "κ 0.00, less than 0.6" in " ".join(shown.split())
    agent = judged / "agents/triage.v1.yaml"
    agent.write_text(agent.read_text().replace(", strict: true", ""))
    card = call("eval", "--agent", "agents/triage.v1.yaml", "--json")
    assert any("helpfulness (κ 0.00, less than 0.6)" in warning for warning in card["warnings"])
    assert not card["judge_calibrated"]


def test_a_calibration_that_could_not_be_made_leaves_the_last_one_standing(
    judged: Path, server: FakeModelServer
) -> None:
    call(*CALIBRATE, "--judge", "fake:j")
    assert "max_usd was reached" in call(*CALIBRATE, "--judge", "fake:j", "--max-usd", "0.001", exit_code=4)
    server.respond = lambda _: failing(401)  # not a stopped server: its port may be another test's a moment later
    assert "the judge failed on 40 of 40" in call(*CALIBRATE, "--judge", "fake:j", exit_code=4)
    assert len(call("judge", "list", "--json")) == 1
    assert "no label" in call(*CALIBRATE[:-1], "answer_correctness", "--judge", "fake:j", exit_code=2)
