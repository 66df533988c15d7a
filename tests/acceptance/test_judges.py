"""Answers are drawn, graded by people, and a judge is held against them: `lockgate annotate` and `lockgate judge`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.commands import call
from tests.acceptance.judging import Models, write_project
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app
from lockgate.testing import FakeModelServer

A = ("--agent", "support", "--metric", "helpfulness")


@pytest.fixture
def models() -> Models:
    return Models()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Models) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    with FakeModelServer(models) as server:
        write_project(tmp_path, server)
        call("lock")
        call("eval", "--agent", "support@1", "--baseline", "none")
        call("eval", "--agent", "support@2", "--baseline", "none")
        yield tmp_path


def grade_all(*people: str, wrong: int = 0) -> None:
    """Everybody grades what waits for them as the judge would, but for so many of the answers that it likes."""
    service = open_app().annotations
    for person in people:
        waiting = service.waiting(person)
        liked = [item.id for item in waiting if "Gladly" in item.sample.result.deliverable]
        for item in waiting:
            service.grade(item.id, person, float(item.id in liked[wrong:]))


def test_answers_are_drawn_from_what_the_judge_likes_and_dislikes_alike(project: Path) -> None:
    drawn = call("annotate", "sample", *A, "--count", "24", "--double", "0.25", "--json")
    assert drawn["drawn"] == 24
    assert drawn["doubly"] == 6
    kinds = drawn["strata"]
    assert set(kinds) == {f"judged {how}, {tag}" for how in ("good", "bad") for tag in ("late", "broken")}
    assert max(kinds.values()) - min(kinds.values()) <= 1  # though three answers of four are good
    again = call("annotate", "sample", *A, "--count", "100", "--json")
    assert again["drawn"] + 24 == len({item.answer for item in open_app().annotations.waiting("ana")})
    items = open_app().annotations.waiting("ana")[:24]
    assert sum(item.weight for item in items) == pytest.approx(24)
    assert {item.weight > 1 for item in items if "good" in item.stratum} == {True}


def test_a_person_sees_question_and_answer_but_not_what_the_judge_said(project: Path) -> None:
    call("annotate", "sample", *A, "--count", "3", "--double", "0")
    shown = call("annotate", "next", "--as", "ana")
    assert "Would the person who wrote the input be helped" in shown
    assert "question-" in shown
    assert "judged" not in shown
    said = call("annotate", "label", "--as", "ana", input="maybe\nyes\n0.5\nstop\n")
    assert "'maybe' is no grade" in said
    assert "2 graded; 1 wait" in said
    [queue] = call("annotate", "list", "--json")
    assert (queue["answers"], queue["grades"], queue["annotators"]) == (3, 2, ["ana"])
    left = call("annotate", "next", "--as", "ana", "--json")["answer"]["id"]
    assert "kept: partly by bo" in call("annotate", "label", left, "partly", "--as", "bo", "--note", "half of it")
    assert "is no grade" in call("annotate", "label", left, "perhaps", exit_code=2)
    assert call("annotate", "next", "--as", "ana", "--json")["waiting"] == 0  # one grade was wanted, and bo gave it


def test_what_two_people_grade_says_how_far_they_agree(project: Path) -> None:
    call("annotate", "sample", *A, "--count", "20", "--double", "1")
    grade_all("ana")
    grade_all("bo", wrong=2)
    [queue] = call("annotate", "list", "--json")
    assert (queue["graded"], queue["grades"], queue["doubly"]) == (20, 40, 20)
    assert queue["agreement"] == pytest.approx(0.9)
    assert 0.7 < queue["kappa"] < 0.85
    assert "ana, bo" in call("annotate", "list")
    assert call("annotate", "next", "--as", "cleo", "--json")["waiting"] == 0


def test_a_judge_is_calibrated_from_the_queue_and_lock_and_gate_know_it(project: Path, models: Models) -> None:
    before = call("lock", "--check", "--json")["warnings"]
    assert [one["message"] for one in before if one["kind"] == "judge"] == [
        "the judge is not calibrated against human labels: helpfulness"
    ] * 2
    assert [one["kind"] for one in call("doctor", "--offline", "--json")].count("judge") == 2
    refused = call("eval", "--agent", "support@2", "--env", "strict", "--baseline", "none", exit_code=4)
    assert "may not decide blocking metrics in this environment: helpfulness" in refused
    call("annotate", "sample", *A, "--count", "40", "--double", "0.5")
    grade_all("ana", "bo")
    record = call("judge", "calibrate", *A, "--json")
    assert record["labels"] == 40
    assert record["kappa"] == pytest.approx(1.0)
    assert (record["annotators"], record["doubly"], record["human_kappa"]) == (2, 20, pytest.approx(1.0))
    assert (record["position_bias"], record["first_bias"]) == (0.0, 0.0)
    assert record["position_pairs"] > 0
    assert not [one for one in call("lock", "--check", "--json")["warnings"] if one["kind"] == "judge"]
    assert not [one for one in call("doctor", "--offline", "--json") if one["kind"] == "judge"]
    card = call("eval", "--agent", "support@2", "--env", "strict", "--baseline", "none", "--json")
    assert card["judge_calibrated"] is True


def test_a_judge_that_likes_what_stands_first_is_found_out(project: Path, models: Models) -> None:
    call("annotate", "sample", *A, "--count", "60")
    grade_all("ana")
    models.always_first = True
    record = call("judge", "calibrate", *A, "--pairs", "5", "--json")
    assert record["position_pairs"] == 5
    assert (record["position_bias"], record["first_bias"]) == (1.0, 1.0)
    assert "100% of 5 change with the order, the first place is liked better" in call("judge", "list")


def test_a_metric_whose_inputs_no_case_has_costs_nothing(project: Path, models: Models) -> None:
    before = models.judge_calls
    refused = call("eval", "--agent", "support@2", "--fresh", "--threshold", "AnswerCorrectness=0.8", exit_code=2)
    assert "none of 40 cases has what a metric is scored from: AnswerCorrectness needs expected_output" in refused
    assert models.judge_calls == before


def test_calibrations_travel_in_a_file_and_an_older_one_does_not_come_back(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "no judge was calibrated" in call("judge", "export", "--to", "known.jsonl", exit_code=2)
    call("annotate", "sample", *A, "--count", "40")
    grade_all("ana")
    call("judge", "calibrate", *A, "--pairs", "0")
    call("judge", "export", "--to", "known.jsonl")
    call("judge", "calibrate", *A, "--pairs", "0")
    assert call("judge", "import", "known.jsonl", "--json") == {"read": 1, "taken": 0}
    monkeypatch.setenv("LOCKGATE_HOME", str(project / "runner"))
    call("lock")
    call("eval", "--agent", "support@2", "--env", "strict", "--baseline", "none", exit_code=4)
    assert call("judge", "import", "known.jsonl", "--json") == {"read": 1, "taken": 1}
    call("eval", "--agent", "support@2", "--env", "strict", "--baseline", "none")
    (project / "known.jsonl").write_text('{"digest": 1}\n')
    assert "known.jsonl:1: no calibration" in call("judge", "import", "known.jsonl", exit_code=2)


def test_exported_grades_calibrate_as_those_of_the_queue(project: Path) -> None:
    call("annotate", "sample", *A, "--count", "40")
    assert "nobody has graded" in call("annotate", "export", "--to", "labels.jsonl", exit_code=2)
    assert "nobody has graded" in call("judge", "calibrate", *A, exit_code=2)
    grade_all("ana")
    call("annotate", "export", "--to", "labels.jsonl")
    first = json.loads((project / "labels.jsonl").read_text().splitlines()[0])
    assert first["annotator"] == "ana"
    assert first["at"] > 0
    from_file = call("judge", "calibrate", *A, "--labels", "labels.jsonl", "--pairs", "0", "--json")
    from_queue = call("judge", "calibrate", *A, "--pairs", "0", "--json")
    for name in ("kappa", "labels", "agreement", "annotators", "mean_error"):
        assert from_file[name] == from_queue[name]
    assert from_queue["position_bias"] is None


def test_an_agents_judged_mean_is_corrected_by_labels_of_its_own_answers_only(project: Path) -> None:
    call("annotate", "sample", *A, "--count", "60", "--double", "0")
    grade_all("ana", wrong=12)  # people say otherwise of twelve answers
    call("annotate", "export", "--to", "labels.jsonl")
    call("judge", "calibrate", "--metric", "helpfulness", "--judge", "fake:judge-2026-01-01", "--labels",
         "labels.jsonl", "--pairs", "0", exit_code=1)  # fmt: skip
    metric = scored_helpfulness()
    assert (metric["judge_mean"], metric["labels"], metric["mean"]) == (None, 0, 1.0)
    call("judge", "calibrate", *A, "--pairs", "0", exit_code=1)
    metric = scored_helpfulness()
    assert metric["judge_mean"] == pytest.approx(1.0)
    assert metric["labels"] > 20
    assert metric["mean"] < 1.0


def scored_helpfulness() -> dict[str, Any]:
    card = json.loads(CliRunner().invoke(app, ["eval", "--agent", "support@2", "--baseline", "none", "--json"]).stdout)
    return next(metric for metric in card["metrics"] if metric["name"] == "helpfulness")
