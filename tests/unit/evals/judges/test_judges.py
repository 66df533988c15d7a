"""Judges held against people, and means corrected by labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockgate.errors import InputError
from lockgate.evals.judges.calibration import Pair, calibrate, judge_digest
from lockgate.evals.judges.correction import corrected
from lockgate.evals.judges.labels import read_labels
from lockgate.evals.judges.pairwise import prefer
from lockgate.evals.model import JudgeSettings, Metric
from lockgate.evals.scorers.judge import JudgeReply

SETTINGS = JudgeSettings(model="p:m")
METRIC = Metric(name="helpfulness", scorer="helpfulness", version="sha256:v")


def pairs(*counts: int, length: int = 10) -> list[Pair]:
    kinds = ((1.0, 1.0), (1.0, 0.0), (0.0, 1.0), (0.0, 0.0))
    return [
        Pair(item="i", human=human, judge=judge, length=length)
        for (human, judge), count in zip(kinds, counts, strict=True)
        for _ in range(count)
    ]


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


@pytest.mark.parametrize(("labels", "more"), [(40, 400), (40, 0), (100, 200)])
def test_corrected_means_cover_the_truth_though_the_judge_is_lenient(labels: int, more: int) -> None:
    random = np.random.default_rng(7)
    covered, rounds = 0, 60
    for _ in range(rounds):
        human = (random.random(labels + more) < 0.7).astype(float)
        judge = np.where(random.random(labels + more) < 0.85, human, 1.0)
        found = corrected(judge[labels:], judge[:labels], human[:labels])
        covered += found.low <= 0.7 <= found.high
    assert covered / rounds >= 0.85  # at 0.90 less than this comes in 7 of 100 such simulations; the seed is fixed


def test_a_lenient_judges_mean_is_pulled_down_and_few_labels_are_refused() -> None:
    human = np.array([0.0, 1.0] * 20)
    found = corrected(np.ones(200), np.ones(40), human)
    assert found.mean == pytest.approx(0.5)
    assert found.low < 0.5 < found.high
    with pytest.raises(ValueError, match="at least 20"):
        corrected(np.ones(200), np.ones(5), np.ones(5))


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
