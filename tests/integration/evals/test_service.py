"""Evaluations and what is kept of them, on both databases."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import func, select

from lockgate.errors import InputError, NotFound, Unavailable
from lockgate.evals.judges import store as calibrations
from lockgate.evals.judges.calibration import Pair, calibrate
from lockgate.evals.model import Case, Scorecard
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.scorers.judge import Ask, JudgeReply
from lockgate.evals.service import Contender, Evals, GoldenSet, Mutant, ready
from lockgate.evals.store import TrialRecord, TrialStore
from lockgate.results import RunResult, Usage
from lockgate.storage import schema
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock

GOLDEN = GoldenSet("golden.jsonl", [Case(id=f"c{n}", input=str(n), expected_output=str(n)) for n in range(50)])


def contender(
    answer: Callable[[Case], RunResult], digest: str = "sha256:new", asked: list[str] | None = None
) -> Contender:
    async def subject(case: Case, trial: int) -> RunResult:
        if asked is not None:
            asked.append(case.id)
        return answer(case)

    return Contender("triage", f"triage@{digest}", f"{digest}-behaviour", digest, lambda: ready(subject))


def right(case: Case) -> RunResult:
    return RunResult(status="completed", output=case.expected_output, cost_nano=1000, usage=Usage(input_tokens=3))


def wrong(case: Case) -> RunResult:
    return RunResult(status="completed", output="wrong", cost_nano=1000)


def evaluate(evals: Evals, candidate: Contender, thresholds: Any = None, **options: Any) -> Scorecard:
    settings = {"thresholds": thresholds or {"exact_match": 0.8}} | options.pop("block", {})
    rubric = parse_rubric(settings, Path())
    given = {"root": Path(), "environment": "prod"} | options
    return asyncio.run(evals.evaluate(candidate, rubric, GOLDEN, **given))


@pytest.fixture
def evals(control: Database) -> Evals:
    return Evals(control, FakeClock())


def test_a_scorecard_is_kept_and_found_by_version_agent_and_id(evals: Evals) -> None:
    card = evaluate(evals, contender(right))
    assert card.verdict == "pass"
    assert evals.last("sha256:new") == evals.last(agent="triage") == evals.get(card.id) == evals.last() == card
    assert evals.last_of_each_agent() == [card]
    assert evals.last("sha256:other") is None
    with pytest.raises(NotFound, match="no finished evaluation 'eval_none'"):
        evals.get("eval_none")


def test_the_newest_scorecard_is_the_last(evals: Evals) -> None:
    evaluate(evals, contender(right))
    evals._clock.advance(10)  # type: ignore[attr-defined]
    second = evaluate(evals, contender(wrong, "sha256:worse"))
    assert evals.last(agent="triage") == second
    assert second.verdict == "fail"


def test_trials_and_scores_are_stored_once(evals: Evals, control: Database) -> None:
    asked: list[str] = []
    for _ in range(2):
        card = evaluate(evals, contender(right, asked=asked), block={"trials": 2})
    assert (len(asked), card.cached_trials) == (100, 100)
    with control.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.trials)).scalar() == 100
        rows = connection.execute(select(schema.trial_scores.c.status, schema.trial_scores.c.score)).all()
    assert len(rows) == 200  # exact_match and error_rate
    assert {row.status for row in rows} == {"scored"}


def test_the_baseline_is_run_on_the_same_cases_and_compared(evals: Evals) -> None:
    asked: list[str] = []
    card = evaluate(
        evals,
        contender(wrong),
        {"exact_match": {"margin": 0.05}},
        baseline=contender(right, "sha256:old", asked),
    )
    assert (card.verdict, card.baseline_label, len(asked)) == ("fail", "triage@sha256:old", 25)
    assert len(card.broken) == 25  # a look at half of the cases settles it


def test_a_provider_that_is_down_is_no_verdict_and_leaves_no_scorecard(evals: Evals, control: Database) -> None:
    def down(case: Case) -> RunResult:
        return RunResult(status="failed", error_type="model_unavailable", error="refused")

    with pytest.raises(Unavailable, match="25 of 25 trials met a failing provider") as failure:
        evaluate(evals, contender(down))
    assert failure.value.exit_code == 4
    assert evals.last() is None
    with control.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.trials)).scalar() == 0


def test_nothing_is_written_when_the_rubric_decides_nothing_or_lacks_its_judge(evals: Evals, control: Database) -> None:
    for thresholds in ({"exact_match": {"blocking": False, "min": 1}}, {"faithfulness": 0.8}):
        with pytest.raises(InputError):
            evaluate(evals, contender(right), thresholds)
    with control.read() as connection:
        assert connection.execute(select(func.count()).select_from(schema.eval_runs)).scalar() == 0


def test_trials_on_another_model_are_kept_apart(evals: Evals) -> None:
    card = evaluate(evals, contender(right), model_override="ollama:llama3.1:70b")
    assert card.effective_digest != "sha256:new"
    assert evaluate(evals, contender(right)).cached_trials == 0


def test_the_judges_calls_count_towards_what_was_spent(evals: Evals) -> None:
    @asynccontextmanager
    async def judge() -> AsyncIterator[Ask]:
        async def ask(messages: Any, schema: Any) -> JudgeReply:
            return JudgeReply(text='{"verdict": "yes"}', cost_nano=7000)

        yield ask

    options: dict[str, Any] = {"open_judge": judge, "block": {"judge": {"provider": "ollama", "name": "j"}}}
    card = evaluate(evals, contender(right), {"helpfulness": 0.8}, **options)
    assert (card.verdict, card.spent_nano, card.cost_nano) == ("pass", 50 * 8000, 50 * 1000)
    assert card.judge == "ollama:j"


def test_a_limit_on_spending_is_said_and_is_no_pass(evals: Evals) -> None:
    card = evaluate(evals, contender(right), block={"max_usd": 20e-6, "concurrency": 1})
    assert (card.verdict, card.spent_nano) == ("inconclusive", 20_000)
    assert any("stopped at max_usd" in warning for warning in card.warnings)


def test_without_money_for_a_single_trial_there_is_no_verdict(evals: Evals) -> None:
    with pytest.raises(Unavailable, match="max_usd was reached before the first trial"):
        evaluate(evals, contender(right), block={"max_usd": 0})


def test_writing_a_trial_twice_keeps_the_first(control: Database) -> None:
    store = TrialStore(control, "sha256:e")
    first = RunResult(status="completed", output={"text": "é", "n": 1.5}, cost_nano=3)
    for result in (first, RunResult(status="failed")):
        store.save([TrialRecord("sha256:c", "c", 0, result, 1.0, [("s", 0.5, "scored", "why")])])
    assert store.results(["sha256:c", "sha256:none"]) == {("sha256:c", 0): first}
    assert store.scores(["sha256:c"], ["s", "t"]) == {("sha256:c", 0, "s"): (0.5, "scored", "why")}
    assert TrialStore(control, "sha256:f").results(["sha256:c"]) == {}


@pytest.mark.parametrize("going", [["sha256:a"], ["sha256:a", "sha256:b", "sha256:none"]])
def test_trials_are_forgotten_of_the_cases_named_and_of_this_version_alone(control: Database, going: list[str]) -> None:
    stores = [TrialStore(control, f"sha256:{version}") for version in "12"]
    result = RunResult(status="completed", output="x")
    cases = ["sha256:a", "sha256:b"]
    for store in stores:
        store.save([TrialRecord(case, case, 0, result, 1.0, [("s", 1.0, "scored", "")]) for case in cases])
    stores[0].forget(going)
    left = [case for case in cases if case not in going]
    assert [digest for digest, _ in stores[0].results(cases)] == left
    assert [digest for digest, *_ in stores[0].scores(cases, ["s"])] == left
    assert len(stores[1].results(cases)) == len(stores[1].scores(cases, ["s"])) == 2


def test_an_open_verdict_buys_trials_only_where_these_can_settle_it(evals: Evals) -> None:
    card = evaluate(
        evals,
        contender(right),
        {"exact_match": {"margin": 0.06}},
        baseline=contender(right, "sha256:old"),
        buy_trials=4,
        block={"trials": 2},
    )
    assert (card.verdict, card.trials, card.bought_trials) == ("inconclusive", 2, 0)  # trials cannot settle it
    assert card.metric("exact_match").more_cases  # type: ignore[union-attr]
    assert card.level < 0.05
    fine = evaluate(evals, contender(right), {"exact_match": {"margin": 0.2}}, baseline=contender(right, "sha256:old"))
    assert (fine.verdict, len(fine.looks)) == ("pass", 2)  # the first look may only fail
    assert 0.04 < fine.level < 0.05


MANY = GoldenSet("many.jsonl", [Case(id=f"m{n}", input=str(n), expected_output=str(n)) for n in range(200)])


def test_a_version_that_is_broken_is_settled_by_the_first_look_and_the_same_again_runs_nothing(evals: Evals) -> None:
    asked: list[str] = []

    def gate(**more: Any) -> Scorecard:
        rubric = parse_rubric({"thresholds": {"exact_match": 0.8}, "trials": 2, **more}, Path())
        candidate = contender(wrong, asked=asked)
        return asyncio.run(evals.evaluate(candidate, rubric, MANY, root=Path(), environment="prod"))

    card = gate()
    assert (card.verdict, card.settled_early, card.cases, card.dataset_cases) == ("fail", True, 50, 200)
    assert len(asked) == len(set(asked)) == 50
    assert (card.trials, len(card.looks)) == (1, 1)
    again = gate()
    assert (again.verdict, again.cases, len(asked)) == ("fail", 50, 50)
    whole = gate(whole=True)
    assert (whole.verdict, whole.settled_early, whole.cases, whole.trials) == ("fail", False, 200, 2)
    assert len(asked) == 400


def test_what_one_versions_early_look_ran_serves_as_the_others_baseline(evals: Evals) -> None:
    asked: list[str] = []
    rubric = parse_rubric({"thresholds": {"exact_match": {"min": 0.5, "margin": 0.3}}, "trials": 1}, Path())
    old = contender(right, "sha256:old", asked)
    first = asyncio.run(evals.evaluate(old, rubric, MANY, root=Path(), environment="prod"))
    ran = len(asked)
    assert (first.verdict, first.cases) == ("pass", ran)
    card = asyncio.run(evals.evaluate(contender(right), rubric, MANY, root=Path(), environment="prod", baseline=old))
    assert card.verdict == "pass"
    assert len(asked) == max(ran, card.cases)


def test_pass_k_needs_its_trials_and_runs_them_from_the_first_look_on(evals: Evals) -> None:
    rule = {"exact_match": {"min": 0.8, "aggregate": "pass^2"}}
    with pytest.raises(InputError, match=r"pass\^2 needs 2 trials a case, and there are 1"):
        evaluate(evals, contender(right), rule)
    card = evaluate(evals, contender(right), rule, block={"trials": 2})
    assert (card.verdict, card.metric("exact_match").aggregate) == ("pass", "pass^2")  # type: ignore[union-attr]


def test_the_gate_checks_itself_on_the_versions_own_trials(evals: Evals) -> None:
    rubric = parse_rubric({"thresholds": {"exact_match": 0.8}}, Path())
    broken = Mutant("prompt cut", "half of the prompt", contender(wrong).open)
    check = asyncio.run(evals.self_check(contender(right), rubric, GOLDEN, root=Path(), mutants=[broken]))
    assert check.false_blocks == 0
    assert {mutant.name: mutant.caught for mutant in check.mutants} == {
        "output cut": True,
        "answers shuffled": True,
        "no answer": True,
        "prompt cut": True,
    }
    assert check.catch_rate == 1
    assert check.not_tried == ["tools not called: the agent calls none"]
    assert evals.last() is None  # nothing of it stands as an evaluation of the version


def test_two_stored_evaluations_are_compared_from_what_they_saw(evals: Evals) -> None:
    first = evaluate(evals, contender(right, "sha256:old"))
    second = evaluate(evals, contender(lambda case: wrong(case) if case.id in ("c1", "c2") else right(case)))
    card = evals.compare_runs(first.id, second.id)
    assert {change.case_id for change in card.broken} == {"c1", "c2"}
    assert card.metric("exact_match").difference == pytest.approx(-0.04)  # type: ignore[union-attr]
    assert (card.kind, card.baseline_label, card.cases) == ("compare", first.label, 50)
    rubric = parse_rubric({"thresholds": {"exact_match": 0.8}}, Path())
    assert evals.whole_run("sha256:new", GOLDEN.cases, rubric) == second
    stricter = parse_rubric({"thresholds": {"exact_match": 0.9}}, Path())
    assert evals.whole_run("sha256:new", GOLDEN.cases, stricter) is None


def test_a_judged_mean_is_corrected_by_what_people_said_of_this_agents_answers(evals: Evals, control: Database) -> None:
    rubric = parse_rubric({"thresholds": {"helpfulness": 0.8}, "judge": {"provider": "p", "name": "m"}}, Path())
    metric = rubric.metric("helpfulness")
    assert metric is not None
    assert rubric.judge is not None

    @asynccontextmanager
    async def kind() -> AsyncIterator[Ask]:
        async def ask(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
            return JudgeReply(text=json.dumps({"verdict": "yes", "reason": "good"}))

        yield ask

    def gate() -> Any:
        card = asyncio.run(
            evals.evaluate(contender(right), rubric, GOLDEN, root=Path(), environment="prod", open_judge=kind)
        )
        return card.verdict, card.metric("helpfulness")

    verdict, plain = gate()
    assert (verdict, plain.mean, plain.labels) == ("pass", 1.0, 0)
    pairs = [Pair(item=f"i{n}", human=float(n < 20), judge=1.0) for n in range(40)]
    found = calibrate(pairs, rubric.judge, metric, now=1.0)
    calibrations.save(control, msgspec.structs.replace(found, agent="another"))
    assert gate()[1].labels == 0
    calibrations.save(control, msgspec.structs.replace(found, agent="triage", created_at=2.0))
    verdict, corrected = gate()
    assert (verdict, corrected.labels, corrected.judge_mean) == ("fail", 40, 1.0)
    assert corrected.mean == pytest.approx(0.5)
