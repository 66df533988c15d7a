"""Scorers that ask a model, with a judge that says what the test wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import Unavailable
from lockgate.evals.model import Case, JudgeSettings, Metric
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.scorers import SCORERS
from lockgate.evals.scorers.judge import JudgeReply
from lockgate.evals.scorers.making import make_scorer
from lockgate.evals.scorers.retrieval import average_precision
from lockgate.evals.scorers.sample import Mark, Sample
from lockgate.results import RunResult

OPTIONS = {
    "judge": {"question": "Is it good?"},
    "policy_compliance": {"policy": "Be kind."},
    "prompt_adherence": {"instructions": ["Be kind.", "Be brief."]},
    "goal_success": {"goal": "a refund"},
}
JUDGED = [name for name, kind in SCORERS.items() if kind.runs == "judge"]
CASE = Case(id="c", input="how long?", expected_output="thirty days", contexts=["30 days.", "Opening hours."])


def says(*verdicts: bool) -> str:
    return json.dumps({"items": [{"text": str(number), "verdict": one} for number, one in enumerate(verdicts)]})


async def mark(name: str, replies: Any, *, case: Case | None = CASE, output: str = "30 days", panel: int = 0) -> Mark:
    texts = [replies] if isinstance(replies, str) else replies

    async def ask(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
        if isinstance(texts[member], Exception):
            raise texts[member]
        return JudgeReply(text=texts[member])

    settings = JudgeSettings(model="p:m", panel=("p:x",) * panel)
    scorer = make_scorer(Metric(name=name, scorer=name, options=OPTIONS.get(name, {})), Path(), ask=ask, judge=settings)
    found = scorer(Sample(case, "how long?", RunResult(status="completed", output=output)))
    return found if isinstance(found, Mark) else await found


@pytest.mark.parametrize("name", JUDGED)
@pytest.mark.parametrize(
    "reply", ["I would rather not.", "{}", "[1]", '{"verdict": "maybe", "items": [{"text": "x"}]}', "NaN"]
)
async def test_prose_and_what_is_off_the_menu_is_unscored(name: str, reply: str) -> None:
    assert (await mark(name, reply)).status == "unscored"


@pytest.mark.parametrize(
    ("name", "verdicts", "value"),
    [
        ("faithfulness", (True, False, True, True), 0.75),
        ("hallucination", (True, False), 0.5),
        ("answer_relevance", (True, False), 0.5),
        ("context_precision", (False, True), 0.5),
        ("context_precision", (True, False), 1.0),
        ("context_recall", (True, True, False, False), 0.5),
        ("context_entity_recall", (True,), 1.0),
        ("toxicity", (True, False), 0.5),
        ("bias", (), 0.0),
        ("policy_compliance", (True, False), 0.5),
        ("prompt_adherence", (True, True), 1.0),
    ],
)
async def test_a_list_of_verdicts_is_a_share(name: str, verdicts: tuple[bool, ...], value: float) -> None:
    assert (await mark(name, says(*verdicts))).value == value


@pytest.mark.parametrize("name", ["faithfulness", "hallucination", "context_precision", "context_recall"])
async def test_without_contexts_there_is_nothing_to_judge_by(name: str) -> None:
    bare = Case(id="c", input="x", expected_output="y")
    found = await mark(name, says(True), case=bare)
    assert (found.status, "no contexts" in found.reason or "no sources" in found.reason) == ("unscored", True)


@pytest.mark.parametrize("name", ["hallucination", "context_precision", "prompt_adherence"])
async def test_a_verdict_too_few_is_no_verdict(name: str) -> None:
    assert (await mark(name, says(True))).status == "unscored"


def test_context_precision_is_the_mean_of_precision_at_useful_places() -> None:
    assert average_precision([True, False, True]) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision([False, False]) == 0


@pytest.mark.parametrize(
    ("replies", "value", "status"),
    [
        (["yes", "no", "yes"], 1.0, "scored"),
        (["yes", "no", "partly"], 0.5, "scored"),
        (["yes", "?", "no"], 0.5, "scored"),
        (["yes", "?", "?"], None, "unscored"),
    ],
)
async def test_a_panel_gives_its_median_and_nothing_without_half_of_it(
    replies: list[str], value: float | None, status: str
) -> None:
    found = await mark("helpfulness", [json.dumps({"verdict": one, "reason": "r"}) for one in replies], panel=2)
    assert (found.value, found.status) == (value, status)


async def test_a_member_that_is_away_does_not_stop_the_panel() -> None:
    yes = '{"verdict": "yes", "reason": ""}'
    assert (await mark("helpfulness", [yes, Unavailable("away"), yes], panel=2)).value == 1.0


def test_the_words_a_judge_is_asked_with_are_part_of_the_rubrics_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    from lockgate.evals.scorers import faithfulness

    before = parse_rubric({"thresholds": {"faithfulness": 0.8}}, Path()).digest
    monkeypatch.setitem(faithfulness.PROMPTS, "faithfulness", "Something else.")
    assert parse_rubric({"thresholds": {"faithfulness": 0.8}}, Path()).digest != before
