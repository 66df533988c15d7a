"""The ``.eval`` log, read back by Inspect itself."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lockgate.evals.model import Case, Interval, MetricCard, Scorecard
from lockgate.evals.reports.cases import CaseView, TrialView
from lockgate.evals.reports.inspect_log import write_log
from lockgate.results import RunResult, ToolUse, Usage

PYTHON = Path(__file__).parents[3] / ".venv-peers" / "inspect" / "bin" / "python"
pytestmark = [pytest.mark.integration_only, pytest.mark.timeout(600)]

READ = """
import json, sys
from inspect_ai.log import read_eval_log, read_eval_log_sample, read_eval_log_sample_summaries
path = sys.argv[1]
log = read_eval_log(path)
print(json.dumps({
    "header": read_eval_log(path, header_only=True).model_dump(mode="json"),
    "samples": [sample.model_dump(mode="json") for sample in log.samples],
    "summaries": [one.model_dump(mode="json") for one in read_eval_log_sample_summaries(path)],
    "one": read_eval_log_sample(path, "refund <1>/a", 2).model_dump(mode="json"),
}))
"""


def metric(name: str, mean: float, **fields: Any) -> MetricCard:
    given: dict[str, Any] = {"scorer": name, "unit": "score", "direction": "higher", "blocking": True}
    given |= {"verdict": "pass", "reason": "", "mean": mean, "interval": Interval(0.5, 0.9)}
    return MetricCard(name=name, **(given | fields))


CARD = Scorecard(
    id="eval_1",
    agent="triage",
    label="triage@2 (abc)",
    behaviour_digest="sha256:b",
    effective_digest="sha256:e",
    environment="prod",
    dataset="golden.jsonl",
    dataset_digest="sha256:d",
    rubric_digest="sha256:r",
    cases=2,
    trials=2,
    verdict="pass",
    reasons=[],
    metrics=[metric("exact_match", 0.75, scored=3, unscored=1), metric("faithfulness", 0.6, scored=4)],
    started_at=1_700_000_000.0,
    seconds=12.0,
)


def trial(number: int, value: float | None, **fields: Any) -> TrialView:
    given: dict[str, Any] = {"status": "completed", "output": {"word": "yes"}, "seconds": 1.5, "cost_nano": 2_500_000}
    usage = Usage(input_tokens=100, output_tokens=20, cached_tokens=40, reasoning_tokens=5)
    given |= {"usage": usage, "tools_used": [ToolUse(name="find", arguments={})]}
    status = "scored" if value is not None else "unscored"
    scores = {"exact_match": (value, status, "why"), "faithfulness": (0.6, "scored", "")}
    return TrialView(trial=number, result=RunResult(**(given | fields)), scores=scores)


def views() -> list[CaseView]:
    talk = {"messages": [{"role": "user", "content": "Hello"}, {"role": "user", "content": "Refund me"}]}
    failed = trial(1, 0.0, status="failed", output=None, error_type="trial_timeout", error="no answer in 5 s")
    return [
        CaseView(
            case=Case(id="refund <1>/a", input="Refund?", expected_output="yes", tags=["refunds"]),
            trials=[trial(0, 1.0), failed],
        ),
        CaseView(case=Case(id="../b", input=talk), trials=[trial(0, 1.0), trial(1, None)]),
    ]


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    assert PYTHON.exists(), "make peers installs what this test is about"
    path = tmp_path_factory.mktemp("log") / "trials.eval"
    write_log(path, CARD, views())
    done = subprocess.run([PYTHON, "-c", READ, path], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def test_the_header_tells_task_verdict_and_each_metrics_mean(found: dict[str, Any]) -> None:
    header = found["header"]
    assert (header["status"], header["eval"]["task"], header["eval"]["model"]) == (
        "success",
        "triage",
        "lockgate/triage@2 (abc)",
    )
    assert header["results"]["metadata"]["lockgate_verdict"] == "pass"
    scores = {one["name"]: one for one in header["results"]["scores"]}
    assert scores["exact_match"]["metrics"]["mean"]["value"] == 0.75
    assert (scores["exact_match"]["scored_samples"], scores["exact_match"]["unscored_samples"]) == (3, 1)
    assert scores["faithfulness"]["metrics"]["mean"]["value"] == 0.6
    assert header["eval"]["dataset"]["sample_ids"] == ["refund <1>/a", "../b"]


def test_every_trial_is_a_sample_with_its_scores(found: dict[str, Any]) -> None:
    samples = {(one["id"], one["epoch"]): one for one in found["samples"]}
    assert sorted(samples) == [("../b", 1), ("../b", 2), ("refund <1>/a", 1), ("refund <1>/a", 2)]
    assert {key: one["scores"].get("exact_match", {}).get("value") for key, one in samples.items()} == {
        ("refund <1>/a", 1): 1.0,
        ("refund <1>/a", 2): 0.0,
        ("../b", 1): 1.0,
        ("../b", 2): None,  # unscored: no score is written for it
    }
    first = samples["refund <1>/a", 1]
    assert first["target"] == "yes"
    assert json.loads(first["output"]["choices"][0]["message"]["content"]) == {"word": "yes"}
    assert (first["metadata"]["tools"], first["total_time"]) == (["find"], 1.5)
    assert [one["role"] for one in samples["../b", 1]["messages"]] == ["user", "user", "assistant"]


def test_a_failed_trial_is_a_sample_with_its_error(found: dict[str, Any]) -> None:
    assert found["one"]["error"]["message"] == "trial_timeout: no answer in 5 s"
    errors = {(one["id"], one["epoch"]): one["error"] for one in found["summaries"]}
    assert errors["refund <1>/a", 2] == "trial_timeout: no answer in 5 s"
    assert errors["refund <1>/a", 1] is None


def test_tokens_and_costs_are_what_the_runs_used(found: dict[str, Any]) -> None:
    usage = found["one"]["model_usage"]["lockgate/triage@2 (abc)"]
    assert (usage["input_tokens"], usage["input_tokens_cache_read"], usage["output_tokens"]) == (60, 40, 20)
    assert (usage["total_tokens"], usage["total_cost"]) == (120, 0.0025)
    total = found["header"]["stats"]["model_usage"]["lockgate/triage@2 (abc)"]
    assert (total["total_tokens"], total["total_cost"]) == (480, 0.01)
