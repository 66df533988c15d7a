"""Judges held against people, and means corrected by labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockgate.errors import InputError
from lockgate.evals.judges.agreement import between_people
from lockgate.evals.judges.calibration import Pair, calibrate, judge_digest
from lockgate.evals.judges.correction import corrected_by_labels
from lockgate.evals.judges.labels import comparable, read_labels
from lockgate.evals.judges.pairwise import prefer
from lockgate.evals.model import JudgeSettings, Metric
from lockgate.evals.scorers.judge import JudgeReply
from lockgate.evals.statistics import Units

SETTINGS = JudgeSettings(model="p:m")
METRIC = Metric(name="helpfulness", scorer="helpfulness", version="sha256:v")


def pairs(*counts: int, length: int = 10) -> list[Pair]:
    kinds = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    return [
        Pair(item="i", human=human, judge=judge, length=length)
        for (human, judge), count in zip(kinds, counts, strict=True)
        for _ in range(count)
    ]


def answers(values: Any) -> Units:
    return Units(values, np.ones(len(values)))


def test_agreement_is_counted_as_in_the_textbook() -> None:
    found = calibrate(pairs(20, 5, 10, 15), SETTINGS, METRIC, now=1.0)
    assert found.kappa == pytest.approx(0.4)
    assert (found.sensitivity, found.specificity) == (pytest.approx(0.8), pytest.approx(0.6))
    assert found.mean_error == pytest.approx(0.1)
    assert not found.good


def test_a_judge_with_few_labels_or_labels_of_one_kind_is_not_calibrated() -> None:
    assert "fewer than 30" in calibrate(pairs(5, 0, 0, 5), SETTINGS, METRIC, now=1.0).why_not
    assert "of one kind" in calibrate(pairs(40, 0, 0, 0), SETTINGS, METRIC, now=1.0).why_not
    assert calibrate(pairs(20, 0, 0, 20), SETTINGS, METRIC, now=1.0).good


def test_what_the_judge_left_unscored_is_counted_and_no_agreement() -> None:
    left = [Pair(item="i", human=1.0, judge=None)] * 20
    found = calibrate([*pairs(10, 0, 0, 10), *left], SETTINGS, METRIC, now=1.0)
    assert (found.labels, found.unscored, found.good) == (40, 20, False)


def test_a_judge_that_likes_long_answers_is_found_out() -> None:
    given = pairs(10, 0, 0, 10, length=10) + pairs(0, 0, 10, 0, length=900)
    found = calibrate(given, SETTINGS, METRIC, now=1.0)
    assert found.length_bias is not None
    assert found.length_bias > 0.9


def test_a_calibration_is_tied_to_model_words_and_options() -> None:
    digest = judge_digest(SETTINGS, METRIC)
    changed = [
        judge_digest(JudgeSettings(model="p:other"), METRIC),
        judge_digest(JudgeSettings(model="p:m", panel=("p:x",)), METRIC),
        judge_digest(SETTINGS, Metric(name="helpfulness", scorer="helpfulness", version="sha256:w")),
        judge_digest(SETTINGS, Metric(name="helpfulness", scorer="helpfulness", version="sha256:v", options={"a": 1})),
    ]
    assert digest not in changed
    assert len(set(changed)) == 4
    assert judge_digest(JudgeSettings(model="p:m", calibrated=True), METRIC) == digest


@pytest.mark.parametrize(("labels", "more"), [(40, 400), (100, 200)])
def test_corrected_means_cover_the_truth_though_the_judge_is_lenient(labels: int, more: int) -> None:
    random = np.random.default_rng(7)
    covered, rounds = 0, 60
    for _ in range(rounds):
        human = (random.random(labels + more) < 0.7).astype(float)
        judge = np.where(random.random(labels + more) < 0.85, human, 1.0)
        found = corrected_by_labels(answers(judge[labels:]), judge[:labels], human[:labels])
        covered += found.low <= 0.7 <= found.high
    assert covered / rounds >= 0.85  # at 0.90 less than this comes in 7 of 100 such simulations; the seed is fixed


def test_a_lenient_judges_mean_is_pulled_down() -> None:
    found = corrected_by_labels(answers(np.ones(200)), np.ones(40), np.array([0.0, 1.0] * 20))
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0.5 < found.high


async def test_two_answers_are_compared_in_both_orders() -> None:
    async def fair(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
        material = json.loads(messages[1]["content"].partition("Material:\n")[2])
        return JudgeReply(
            text=json.dumps({"reason": "", "better": "first" if material["first"] == "good" else "second"})
        )

    async def lazy(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
        return JudgeReply(text='{"reason": "", "better": "first"}')

    async def prose(messages: Any, schema: Any, *, member: int = 0) -> JudgeReply:
        return JudgeReply(text="The first.")

    assert (await prefer(fair, "Which is better?", "x", "good", "bad")).mark.value == 1
    assert (await prefer(fair, "Which is better?", "x", "bad", "good")).mark.value == 0
    found = await prefer(lazy, "Which is better?", "x", "good", "bad")
    assert (found.mark.value, found.by_position) == (0.5, True)
    assert (await prefer(prose, "Which is better?", "x", "a", "b")).mark.status == "unscored"


def test_labels_are_read_strictly(tmp_path: Path) -> None:
    file = tmp_path / "labels.jsonl"
    file.write_text('{"input": "a", "output": "b", "label": "yes"}\n{"input": "a", "output": "c", "label": 0.5}\n')
    assert [label.human for label in read_labels(file, "m")] == [1.0, 0.5]
    for line, message in (
        ('{"input": "a", "output": "b", "label": "maybe"}', "the label is 'maybe'"),
        ('{"input": "a"}', "no input and output"),
        ("nonsense", "not valid JSON"),
        ('{"input": "a", "output": "b", "label": 1, "metric": "other"}', "no labels for 'm'"),
    ):
        file.write_text(line + "\n")
        with pytest.raises(InputError, match=message):
            read_labels(file, "m")


def test_answers_that_stand_for_many_count_for_many() -> None:
    # of 100 answers 80 are good and the judge knows it; of the 20 bad ones, drawn as often, it finds half
    even = [
        *[Pair(item=f"g{n}", human=1.0, judge=1.0, weight=1.6) for n in range(20)],
        *[Pair(item=f"b{n}", human=0.0, judge=float(n < 10), weight=0.4) for n in range(20)],
    ]
    found = calibrate(even, SETTINGS, METRIC, now=1.0)
    assert found.agreement == pytest.approx(0.9)
    assert (found.sensitivity, found.specificity) == (pytest.approx(1.0), pytest.approx(0.5))
    assert found.kappa == pytest.approx((0.9 - (0.8 * 0.9 + 0.2 * 0.1)) / (1 - (0.8 * 0.9 + 0.2 * 0.1)))
    assert found.mean_error == pytest.approx(0.1)


def test_a_mean_is_corrected_by_what_the_labelled_answers_stand_for() -> None:
    judge = np.array([1.0] * 20 + [1.0] * 10 + [0.0] * 10)
    human = np.array([1.0] * 20 + [0.0] * 20)
    weight = np.array([1.6] * 20 + [0.4] * 20)
    said = Units(np.array([0.9] * 100), np.ones(100))
    assert corrected_by_labels(said, judge, human, weight).mean == pytest.approx(0.8)
    assert corrected_by_labels(said, judge, human).mean == pytest.approx(0.65)  # as if half of all were bad


def test_people_agree_as_cohen_counts_it_and_a_third_is_taken_pair_by_pair() -> None:
    def said(person: str, *grades: float) -> list[tuple[str, str, float]]:
        return [(f"answer-{n}", person, grade) for n, grade in enumerate(grades)]

    two = between_people(said("ana", 1, 1, 0, 0, 1, 0, 1, 1, 0, 0) + said("bo", 1, 1, 0, 0, 1, 0, 0, 1, 0, 1))
    assert (two.annotators, two.answers, two.doubly) == (2, 10, 10)
    assert two.agreement == pytest.approx(0.8)
    assert two.kappa == pytest.approx(0.6)
    three = between_people(said("ana", 1, 0, 1, 0) + said("bo", 1, 0, 1, 0) + said("cleo", 0, 1, 0, 1))
    assert three.kappa == pytest.approx((1 - 1 - 1) / 3)
    alone = between_people(said("ana", 1, 0))
    assert (alone.doubly, alone.kappa, alone.agreement) == (0, None, None)
    assert between_people(said("ana", 1, 1) + said("bo", 1, 1)).kappa is None  # chance alone would do as well


def test_a_judge_that_favours_a_place_is_told_from_one_that_wavers() -> None:
    def biased(*swapped: tuple[float, float]) -> tuple[float | None, float | None, int]:
        found = calibrate(pairs(20, 0, 0, 20), SETTINGS, METRIC, now=1.0, swapped=swapped)
        return found.position_bias, found.first_bias, found.position_pairs

    assert biased((1, 1), (0, 0), (0.5, 0.5)) == (0.0, 0.0, 3)
    assert biased((1, 0), (1, 0), (1, 1), (0, 0)) == (0.5, 0.5, 4)
    assert biased((1, 0), (0, 1)) == (1.0, 0.0, 2)
    assert biased() == (None, None, 0)


def test_pairs_for_the_order_are_of_one_input_first_and_then_beside_the_expected_answer(tmp_path: Path) -> None:
    lines = [
        {"input": "a", "output": "one", "label": 1},
        {"input": "a", "output": "two", "label": 0},
        {"input": "b", "output": "same", "label": 1, "expected_output": "same"},
        {"input": "c", "output": "said", "label": 0, "expected_output": "meant"},
    ]
    file = tmp_path / "labels.jsonl"
    file.write_text("\n".join(json.dumps(line) for line in lines))
    found = comparable(read_labels(file, "helpfulness"))
    assert [(left.sample.output, right.sample.output) for left, right in found] == [("one", "two"), ("said", "meant")]


def test_a_panel_is_named_with_all_its_judges() -> None:
    panel = JudgeSettings(model="p:m", panel=("p:x", "q:y"))
    assert calibrate([], panel, METRIC, now=0.0).model == "p:m (panel with p:x, q:y)"
