"""Metrics of other tools in a rubric: what is refused before a trial, and what their answers become."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.evals.model import Case, Metric
from lockgate.evals.peers import environments, running, scorer
from lockgate.evals.peers.environments import command
from lockgate.evals.peers.worker import Worker, WorkerFailed
from lockgate.evals.rubric import needs_judge, parse_rubric
from lockgate.evals.scorers import SCORERS
from lockgate.evals.scorers.judge import JudgeReply
from lockgate.evals.scorers.making import make_scorer
from lockgate.evals.scorers.sample import Mark, Sample
from lockgate.results import RunResult, ToolUse

CASE = Case(id="a", input="Capital of France?", expected_output="Paris", contexts=["Paris is the capital."])


def sample(case: Case | None = CASE, output: Any = "Paris") -> Sample:
    return Sample(case, "Capital of France?", RunResult(status="completed", output=output))


def only(thresholds: dict[str, Any]) -> Metric:
    return parse_rubric({"thresholds": thresholds}, Path()).metrics[0]


async def score(metric: Metric, given: Sample, ask: Any = None) -> Mark:
    mark = make_scorer(metric, Path(), ask=ask)(given)
    return mark if isinstance(mark, Mark) else await mark


@pytest.fixture
def replies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the worker answers, in turn; an exception is raised, a function is called with what it may ask."""
    waiting: list[Any] = []

    async def ask(self: Worker, request: dict[str, Any], answer: Any) -> dict[str, Any]:
        reply = waiting.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return await reply(request, answer) if callable(reply) else reply

    monkeypatch.setattr(Worker, "ask", ask)
    token = scorer._CURRENT.set(scorer.Workers(Path()))
    monkeypatch.setattr(scorer.Workers, "of", lambda self, peer: Worker(peer, environments.Command((), "")))
    yield waiting
    scorer._CURRENT.reset(token)


def test_a_rubric_names_other_tools_metrics_with_their_own_options() -> None:
    metric = only({"promptfoo:contains-any": {"value": ["a", "b"], "min": 1}})
    assert (metric.scorer, metric.options, metric.minimum) == ("promptfoo:contains-any", {"value": ["a", "b"]}, 1)
    assert only({"close": {"metric": "ragas:rouge_score", "min": 0.5}}).scorer == "ragas:rouge_score"
    noisy = only({"ragas:noise_sensitivity": 0.2})
    assert (noisy.direction, noisy.minimum, noisy.maximum) == ("lower", None, 0.2)


def test_what_needs_a_model_is_scored_by_the_judge() -> None:
    assert SCORERS["deepeval:answer_relevancy"].runs == "judge"
    assert SCORERS["inspect:match"].runs == "process"
    assert SCORERS["inspect:match"].needs_case


def test_an_unknown_metric_of_a_peer_is_refused_with_the_nearest() -> None:
    with pytest.raises(
        InputError, match=r"no metric 'faithfullness' of ragas.*\n  → did you mean ragas:faithfulness\?"
    ):
        only({"ragas:faithfullness": 0.8})
    with pytest.raises(InputError, match="no metric 'mlflow:rouge'"):
        only({"mlflow:rouge": 0.8})


def test_an_absent_package_is_said_before_any_trial_with_what_installs_it(tmp_path: Path) -> None:
    async def start() -> None:
        async with running([only({"ragas:exact_match": 1})], tmp_path):
            raise AssertionError("not reached")

    with pytest.raises(InputError, match=r"'ragas' is not installed(.|\n)*pip install ragas(.|\n)*peers: {ragas: "):
        asyncio.run(start())


def test_a_peer_is_where_the_project_or_the_machine_says(tmp_path: Path) -> None:
    python = tmp_path / "own" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    assert command("ragas", tmp_path, {"ragas": "own"}, {}).argv[0] == str(python)
    assert command("ragas", tmp_path, {}, {"LOCKGATE_PEER_RAGAS": str(tmp_path / "own")}).argv[0] == str(python)
    with pytest.raises(InputError, match="'elsewhere' is neither a virtual environment nor a Python"):
        command("ragas", tmp_path, {"ragas": "elsewhere"}, {})
    with pytest.raises(InputError, match=r"no node_modules/promptfoo in tools(.|\n)*npm install --prefix tools"):
        command("promptfoo", tmp_path, {"promptfoo": "tools"}, {})


def test_a_case_says_whether_its_own_assertions_need_a_judge() -> None:
    rubric = parse_rubric({"thresholds": {"promptfoo:assertions": 1, "helpfulness": 0.5}}, Path())

    def case(*types: str) -> Case:
        inner = [{"type": "assert-set", "assert": [{"type": one} for one in types]}]
        return msgspec.structs.replace(CASE, metadata={"assert": inner})

    assert needs_judge(rubric, [CASE, case("not-contains", "is-json", "similar")]) == ["helpfulness"]
    assert needs_judge(rubric, [CASE, case("contains", "not-llm-rubric")]) == ["promptfoo:assertions", "helpfulness"]
    assert needs_judge(rubric, [case("something-new")]) == ["promptfoo:assertions", "helpfulness"]


async def test_values_skips_and_unusable_judgements_become_marks(replies: list[Any]) -> None:
    replies += [{"value": 0.25, "reason": "why"}, {"skip": "no topics"}, {"unscored": "prose"}]
    metric = only({"inspect:match": 1})
    assert await score(metric, sample()) == Mark(0.25, "why")
    assert await score(metric, sample()) == Mark(None, "no topics", "skipped")
    assert await score(metric, sample()) == Mark(None, "prose", "unscored")


async def test_a_metric_that_raises_or_gives_nothing_is_an_error(replies: list[Any]) -> None:
    replies += [{"error": "ValueError: no"}, {"value": None}, WorkerFailed("the worker ended")]
    for said in ("ValueError: no", "no value", "the worker ended"):
        with pytest.raises(WorkerFailed, match=said):
            await score(only({"inspect:match": 1}), sample())


async def test_a_judge_that_fails_leaves_the_trial_unscored_whatever_the_tool_made_of_it(replies: list[Any]) -> None:
    async def failing(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
        raise Unavailable("no answer")

    async def asks(request: dict[str, Any], answer: Any) -> dict[str, Any]:
        assert await answer({"ask": 1, "messages": [], "schema": None}) == {"error": "no answer"}
        return {"value": 0.0}

    replies.append(asks)
    mark = await score(only({"promptfoo:llm-rubric": {"value": "polite", "min": 1}}), sample(), failing)
    assert mark == Mark(None, "no answer", "unscored")


async def test_what_a_metric_cannot_do_without_is_asked_of_no_worker(replies: list[Any]) -> None:
    bare = Case(id="b", input="q")
    assert (await score(only({"inspect:match": 1}), sample(bare))).status == "skipped"
    assert (await score(only({"ragas:tool_call_f1": 1}), sample(bare))).status == "skipped"
    ask: Any = object()
    assert (await score(only({"ragas:faithfulness": 1}), sample(bare), ask)).status == "unscored"


async def test_a_metric_is_scored_only_where_an_evaluation_runs() -> None:
    with pytest.raises(WorkerFailed, match="only where an evaluation runs"):
        await score(only({"inspect:match": 1}), sample())


def test_a_sample_is_told_in_plain_json() -> None:
    case = msgspec.structs.replace(CASE, expected_output={"b": 1, "a": 2}, expected_tools=["find"])
    call = ToolUse(name="find", arguments={"q": 1}, result={"n": 2})
    result = RunResult(status="completed", output={"x": 1}, tools_used=[call], seconds=1.5, cost_nano=2_000_000_000)
    told = scorer.payload(Sample(case, {"messages": [{"role": "user", "content": "hi"}]}, result))
    assert msgspec.json.decode(msgspec.json.encode(told)) == told
    assert (told["input"], told["output"], told["expected"]) == ("hi", '{"x": 1}', '{"a": 2, "b": 1}')
    assert told["contexts"] == ["Paris is the capital.", '{"n": 2}']
    assert (told["tools_called"][0]["name"], told["seconds"], told["cost_usd"]) == ("find", 1.5, 2.0)
