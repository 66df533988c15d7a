"""Metrics of RAGAS, DeepEval, promptfoo and Inspect, run by those packages themselves.

``make peers`` installs them, each in an environment of its own below ``.venv-peers``.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lockgate.bootstrap import App, open_app
from lockgate.evals.model import Case, JudgeSettings, Scorecard
from lockgate.evals.reports.files import views
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.service import Contender, GoldenSet, ready
from lockgate.results import RunResult, ToolUse
from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest

PEERS = Path(__file__).parents[4] / ".venv-peers"
pytestmark = [pytest.mark.integration_only, pytest.mark.timeout(900)]

ANSWERS = {
    "right": RunResult(
        status="completed",
        output="The cat sat on the mat.",
        tools_used=[
            ToolUse(name="find_order", arguments={"id": "A-1"}, result="found"),
            ToolUse(name="refund", arguments={"id": "A-1"}, result="done"),
        ],
    ),
    "near": RunResult(
        status="completed",
        output="The cat sat.",
        tools_used=[
            ToolUse(name="find_order", arguments={"id": "A-1"}, result="found"),
            ToolUse(name="mail", arguments={}, result="sent"),
        ],
    ),
}
CASES = [
    Case(
        id=name,
        input="Where did the cat sit?",
        expected_output="The cat sat on the mat.",
        contexts=["A cat sat on a mat, and was refunded for it."],
        expected_tools=[
            {"name": "find_order", "arguments": {"id": "A-1"}},
            {"name": "refund", "arguments": {"id": "A-1"}},
        ],
    )
    for name in ANSWERS
]


def judge(request: ModelRequest) -> str:
    """A judge that answers each of the packages' questions in the form that is asked for: half of it holds."""
    form = request.body.get("response_format")
    if form is None:
        text = request.last_user
        if "Submission" in text and "GRADE" in text:
            return "It agrees in part.\n\nGRADE: P"
        return json.dumps({"reason": "in part", "pass": True, "score": 0.5})
    fields = form["json_schema"]["schema"]["properties"]
    if "statements" in fields:
        if "$ref" in fields["statements"]["items"]:
            verdicts = [{"statement": text, "reason": "so", "verdict": number} for number, text in enumerate("ab")]
            return json.dumps({"statements": verdicts})
        return json.dumps({"statements": ["a", "b"]})
    if "verdicts" in fields:
        return json.dumps({"verdicts": [{"verdict": "yes", "reason": "so"}, {"verdict": "no", "reason": "not so"}]})
    return json.dumps(dict.fromkeys(fields, "so"))


@pytest.fixture
def server() -> Iterator[FakeModelServer]:
    with FakeModelServer(judge) as found:
        yield found


@pytest.fixture
def app(tmp_path: Path, server: FakeModelServer) -> App:
    assert PEERS.is_dir(), "make peers installs what this test is about"
    (tmp_path / "prices.yaml").write_text('fake: {"*": {input: 1.0, output: 2.0}}\n')
    (tmp_path / "lockgate.yaml").write_text(
        "project: peers\nprices: prices.yaml\n"
        f"providers: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "peers:\n" + "".join(f"  {name}: {PEERS / name}\n" for name in ("ragas", "deepeval", "promptfoo", "inspect"))
    )
    return open_app(tmp_path)


def evaluated(app: App, thresholds: dict[str, Any], **settings: Any) -> Scorecard:
    block = {"thresholds": thresholds, "judge": {"provider": "fake", "name": "fake-model"}, **settings}
    rubric = parse_rubric(block, app.project.root)

    async def subject(case: Case, trial: int) -> RunResult:
        return ANSWERS[case.id]

    candidate = Contender("cat", "cat@1", "sha256:cat", "sha256:cat", lambda: ready(subject))
    settings_of_judge = rubric.judge

    def ask() -> Any:
        assert isinstance(settings_of_judge, JudgeSettings)
        return app.judge(settings_of_judge, "dev")

    return asyncio.run(
        app.evals.evaluate(
            candidate,
            rubric,
            GoldenSet("golden.jsonl", CASES),
            root=app.project.root,
            environment="dev",
            open_judge=ask if settings_of_judge else None,
        )
    )


def values(app: App, card: Scorecard) -> dict[str, dict[str, Any]]:
    """Metric → case → value, or why there is none."""
    found: dict[str, dict[str, Any]] = {}
    for view in views(app.control, card, CASES):
        for metric in card.scorer_digests:
            value, status, reason = view.trials[0].scores.get(metric, (None, "unscored", ""))
            found.setdefault(metric, {})[view.case.id] = value if status == "scored" else f"{status}: {reason}"
    return found


def held(app: App, thresholds: dict[str, Any], expected: dict[str, tuple[float, float]]) -> None:
    card = evaluated(app, thresholds)
    found = values(app, card)
    for metric, (right, near) in expected.items():
        got = found[metric]
        assert got["right"] == pytest.approx(right, abs=1e-9), (metric, got)
        assert got["near"] == pytest.approx(near, abs=1e-9), (metric, got)


def test_ragas_metrics_without_a_model_give_their_own_values(app: App) -> None:
    held(
        app,
        {
            "ragas:exact_match": 1,
            "ragas:string_presence": 1,
            "ragas:non_llm_string_similarity": 0.5,
            "ragas:rouge_score": 0.5,
            "short": {"metric": "ragas:rouge_score", "rouge_type": "rouge1", "mode": "recall", "min": 0.5},
            "ragas:bleu_score": 0.1,
            "ragas:tool_call_f1": 0.5,
            "ragas:tool_call_accuracy": 0.5,
        },
        {
            "ragas:exact_match": (1, 0),
            "ragas:string_presence": (1, 0),
            "ragas:non_llm_string_similarity": (1, 12 / 23),  # eleven letters are missing of 23
            "ragas:rouge_score": (1, 2 / 3),  # three words of three, three of six
            "short": (1, 3 / 6),
            "ragas:tool_call_f1": (1, 0.5),  # one call of two is right
        },
    )


def test_deepeval_metrics_without_a_model_give_their_own_values(app: App) -> None:
    held(
        app,
        {
            "deepeval:exact_match": 1,
            "deepeval:pattern_match": {"pattern": ".*mat\\.$", "min": 1},
            "deepeval:tool_correctness": 0.5,
        },
        {
            "deepeval:exact_match": (1, 0),
            "deepeval:pattern_match": (1, 0),
            "deepeval:tool_correctness": (1, 0.5),
        },
    )


def test_promptfoo_assertions_give_their_own_scores(app: App) -> None:
    held(
        app,
        {
            "promptfoo:equals": 1,
            "promptfoo:icontains": {"value": "MAT", "min": 1},
            "promptfoo:not-contains-json": 1,
            "promptfoo:contains-all": {"value": ["cat", "mat"], "min": 1},
            "promptfoo:rouge-n": 0.5,
            "close": {"metric": "promptfoo:levenshtein", "options": {"threshold": 3}, "min": 1},
            "words": {"metric": "promptfoo:javascript", "value": "output.split(' ').length / 6", "min": 0.5},
            "promptfoo:regex": {"value": "^The cat", "min": 1},
        },
        {
            "promptfoo:equals": (1, 0),
            "promptfoo:icontains": (1, 0),
            "promptfoo:not-contains-json": (1, 1),
            "promptfoo:contains-all": (1, 0),
            "close": (1, 0),
            "words": (1, 0.5),
            "promptfoo:regex": (1, 1),
        },
    )


def test_promptfoo_holds_an_answer_against_the_assertions_of_its_own_case(
    app: App, server: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = [
        {"type": "contains", "value": "mat", "weight": 3},
        {"type": "llm-rubric", "value": "names the cat", "provider": "openai:gpt-4"},  # its own grader is not asked
    ]
    asserted = [msgspec.structs.replace(case, metadata={"assert": own}) for case in CASES]
    monkeypatch.setattr(sys.modules[__name__], "CASES", asserted)
    card = evaluated(app, {"promptfoo:assertions": {"min": 0.5}})
    found = values(app, card)["promptfoo:assertions"]
    assert found == {"right": pytest.approx((3 * 1 + 0.5) / 4), "near": pytest.approx((3 * 0 + 0.5) / 4)}
    assert len(server.requests) == 2
    plain = [msgspec.structs.replace(case, metadata={"assert": own[:1]}) for case in CASES]
    monkeypatch.setattr(sys.modules[__name__], "CASES", plain)
    found = values(app, evaluated(app, {"promptfoo:assertions": {"min": 0.5}}, judge=None))["promptfoo:assertions"]
    assert found == {"right": 1, "near": 0}
    starts = [msgspec.structs.replace(case, metadata={"assert": [{"type": "python", "value": "1"}]}) for case in CASES]
    monkeypatch.setattr(sys.modules[__name__], "CASES", starts)
    found = values(app, evaluated(app, {"promptfoo:assertions": {"min": 0.5}}))["promptfoo:assertions"]
    assert "assertions of type python are not run" in found["right"]


def test_an_assertion_about_json_is_not_held_against_the_expected_text(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ANSWERS, "right", RunResult(status="completed", output={"amount": 3}))
    schema = {"type": "object", "required": ["total"]}
    held(
        app,
        {"promptfoo:is-json": 0.5, "totals": {"metric": "promptfoo:is-json", "value": schema, "min": 0.5}},
        {"promptfoo:is-json": (1, 0), "totals": (0, 0)},
    )


def test_inspect_scorers_give_their_own_values(app: App) -> None:
    held(
        app,
        {
            "inspect:match": 1,
            "inspect:includes": 1,
            "inspect:exact": 1,
            "inspect:f1": 0.5,
        },
        {
            "inspect:match": (1, 0),
            "inspect:includes": (1, 0),
            "inspect:exact": (1, 0),
            "inspect:f1": (1, 0.67),  # precision 1, recall 2 of 4 without the articles; it rounds
        },
    )


def test_a_ragas_metric_asks_the_evaluations_own_judge(app: App, server: FakeModelServer) -> None:
    card = evaluated(app, {"ragas:faithfulness": 0.4})
    assert values(app, card)["ragas:faithfulness"] == {"right": 0.5, "near": 0.5}
    assert len(server.requests) == 4  # statements, then verdicts, for each answer
    assert "cat sat" in server.requests[0].last_user
    assert card.spent_nano > 0
    assert card.judge == "fake:fake-model"


def test_a_deepeval_metric_asks_the_evaluations_own_judge(app: App, server: FakeModelServer) -> None:
    card = evaluated(app, {"deepeval:answer_relevancy": 0.4})
    assert values(app, card)["deepeval:answer_relevancy"] == {"right": 0.5, "near": 0.5}
    assert len(server.requests) == 6  # statements, verdicts, reason
    assert card.spent_nano > 0


def test_promptfoo_and_inspect_graders_ask_the_evaluations_own_judge(app: App, server: FakeModelServer) -> None:
    card = evaluated(
        app,
        {
            "promptfoo:llm-rubric": {"value": "names the mat", "min": 0.4},
            "inspect:model_graded_qa": {"partial_credit": True, "min": 0.4},
        },
    )
    found = values(app, card)
    assert found["promptfoo:llm-rubric"] == {"right": 0.5, "near": 0.5}
    assert found["inspect:model_graded_qa"] == {"right": 0.5, "near": 0.5}
    assert len(server.requests) == 4


def test_metrics_by_embeddings_ask_the_provider_that_they_name(app: App, server: FakeModelServer) -> None:
    def questions(request: ModelRequest) -> str:
        return json.dumps({"question": "Where did the cat sit?", "noncommittal": 0})

    server.respond = questions
    named = {"embeddings": "fake:embedder", "min": 0.5}
    metrics = ("ragas:semantic_similarity", "ragas:answer_relevancy", "promptfoo:similar")
    card = evaluated(app, {name: {**named, "value": "The cat sat."} if "prompt" in name else named for name in metrics})
    found = values(app, card)
    assert found["ragas:semantic_similarity"]["right"] == pytest.approx(1)
    assert 0 < found["ragas:semantic_similarity"]["near"] < 1
    assert found["ragas:answer_relevancy"] == {"right": pytest.approx(1), "near": pytest.approx(1)}
    assert found["promptfoo:similar"]["near"] == pytest.approx(1)
    asked = [request.body for request in server.requests if request.path == "/v1/embeddings"]
    assert {body["model"] for body in asked} == {"embedder"}
    assert any("The cat sat." in body["input"] for body in asked)
    assert card.spent_nano > 0


def test_a_judge_that_answers_prose_leaves_the_trials_unscored(app: App, server: FakeModelServer) -> None:
    server.respond = lambda request: "I would rather not say."
    metrics = ("ragas:faithfulness", "deepeval:answer_relevancy", "inspect:model_graded_qa", "promptfoo:factuality")
    card = evaluated(app, dict.fromkeys(metrics, 0.4))
    assert {name: found.unscored for name in metrics if (found := card.metric(name))} == dict.fromkeys(metrics, 2)
    assert card.verdict != "pass"


def test_a_judges_calls_for_other_tools_stay_within_the_evaluations_money(app: App, server: FakeModelServer) -> None:
    card = evaluated(app, {"ragas:faithfulness": 0.4}, max_usd=0.000001)
    assert server.requests == []
    assert card.verdict != "pass"


def test_wrong_options_are_refused_before_the_first_trial(app: App) -> None:
    from lockgate.errors import InputError

    for metric in ("ragas:exact_match", "deepeval:exact_match", "promptfoo:equals", "inspect:match"):
        with pytest.raises(InputError, match=r"unknown option '?colour"):
            evaluated(app, {metric: {"colour": "blue", "min": 1}})
