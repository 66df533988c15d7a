"""The annotation queue on both databases: answers of users' runs, who has graded what, and labels for a judge."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest
from sqlalchemy import insert

from lockgate.errors import InputError, NotFound
from lockgate.evals.annotation.service import Annotations
from lockgate.evals.model import Metric
from lockgate.results import RunResult, ToolUse
from lockgate.storage.engine import Database
from lockgate.storage.schema import run_scores, runs
from lockgate.testing import FakeClock

HELPFUL = Metric(name="helpfulness", scorer="helpfulness")
DAY = 86_400.0


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def queue(control: Database, clock: FakeClock) -> Annotations:
    return Annotations(control, clock)


def result_of(run_id: str) -> RunResult:
    used = [ToolUse(name="look_up", arguments={"id": run_id}, result="found")]
    return RunResult(status="completed", output=f"answer of {run_id}", tools_used=used)


@pytest.fixture
def traffic(control: Database, clock: FakeClock) -> None:
    """40 runs in prod, each fourth with a low live score, some unscored; others elsewhere, failed or long ago."""

    def run(name: str, score: float | None, **more: Any) -> None:
        row = {
            "id": name,
            "agent": "support",
            "environment": "prod",
            "behaviour_digest": "b",
            "effective_digest": "e",
            "arm": "stable",
            "assignment_key": "k",
            "tenant": "t",
            "status": "completed",
            "input": f"question of {name}",
            "output": "x",
            "trace_id": "0" * 32,
            "started_at": clock(),
        } | more
        with control.write() as connection:
            connection.execute(insert(runs).values(**row))
            if score is not None:
                scored = {"run_id": name, "metric": "m", "score": score, "scored_at": clock()}
                connection.execute(insert(run_scores).values(**scored))

    for number in range(32):
        run(f"run_{number:02}", 0.0 if number % 4 == 0 else 1.0)
    for number in range(32, 40):
        run(f"run_{number:02}", None)
    run("run_dev", 0.0, environment="dev")
    run("run_failed", 0.0, status="failed")
    run("run_old", 0.0, started_at=clock() - 90 * DAY)
    run("run_other", 0.0, agent="other")


def draw(queue: Annotations, count: int, **more: Any) -> list[Any]:
    return queue.draw_runs("support", HELPFUL, "prod", result_of, count, **more)


def test_users_runs_are_drawn_by_kind_of_score_with_weights_that_undo_it(queue: Annotations, traffic: None) -> None:
    drawn = draw(queue, 12)
    assert Counter(item.stratum for item in drawn) == {"judged bad": 4, "judged good": 4, "not judged": 4}
    by_kind = {item.stratum: item.weight for item in drawn}
    assert by_kind["judged good"] == pytest.approx(24 / 4 / (40 / 12))  # 24 of 40 runs stand behind 4 answers
    assert by_kind["judged bad"] == pytest.approx(8 / 4 / (40 / 12))
    assert sum(item.weight for item in drawn) == pytest.approx(12)
    names = {item.sample.case.source_run for item in drawn}
    assert not names & {"run_dev", "run_failed", "run_old", "run_other"}
    assert drawn[0].sample.result.tools_used[0].name == "look_up"
    more = draw(queue, 100)
    assert len(more) == 28  # nothing twice
    assert {item.answer for item in drawn}.isdisjoint(item.answer for item in more)


def test_no_runs_is_said_with_where_and_when(queue: Annotations, traffic: None) -> None:
    with pytest.raises(InputError, match="no completed runs of 'nobody' in 'prod' in the last 30 days"):
        queue.draw_runs("nobody", HELPFUL, "prod", result_of, 5)


def test_an_answer_goes_to_as_many_people_as_are_wanted_and_to_nobody_twice(queue: Annotations, traffic: None) -> None:
    draw(queue, 4, double=0.5)
    [first, *_] = queue.waiting("ana")
    for item in queue.waiting("ana"):
        queue.grade(item.id, "ana", 1.0)
    assert queue.waiting("ana") == []
    assert len(queue.waiting("bo")) == 2  # those that two are to grade
    for item in queue.waiting("bo"):
        queue.grade(item.id, "bo", 0.0, "no")
    assert queue.waiting("cleo") == []
    queue.grade(first.id, "ana", 0.5)  # thought better of it
    [stand] = queue.queues()
    assert (stand.answers, stand.graded, stand.grades, stand.annotators) == (4, 4, 6, ["ana", "bo"])
    assert {label.human for label in queue.labels(HELPFUL) if label.item == first.answer} >= {0.5}


def test_unsure_is_kept_and_is_no_label(queue: Annotations, traffic: None) -> None:
    [item] = draw(queue, 1, double=0)
    queue.grade(item.id, "ana", None)
    assert queue.waiting("bo") == []
    with pytest.raises(InputError, match="nobody has graded"):
        queue.labels(HELPFUL)
    assert queue.lines() == []


def test_grades_of_another_question_are_no_labels(queue: Annotations, traffic: None) -> None:
    [item] = draw(queue, 1)
    queue.grade(item.id, "ana", 1.0)
    assert [label.annotator for label in queue.labels(HELPFUL, agent="support")] == ["ana"]
    changed = Metric(name="helpfulness", scorer="judge", options={"question": "Does it help?"})
    with pytest.raises(InputError, match="nobody has graded"):
        queue.labels(changed)


def test_what_is_not_there_cannot_be_graded_and_nobody_cannot_grade(queue: Annotations, traffic: None) -> None:
    [item] = draw(queue, 1)
    with pytest.raises(NotFound, match="no answer 'answer_x'"):
        queue.grade("answer_x", "ana", 1.0)
    with pytest.raises(InputError, match="nobody is named"):
        queue.grade(item.id, "  ", 1.0)
