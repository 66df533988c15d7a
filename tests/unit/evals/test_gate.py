"""Verdicts from tables of scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockgate.evals.gate import Decision, decide
from lockgate.evals.grid import ERROR, MISSING, SCORED, SKIPPED, UNSCORED, Grid
from lockgate.evals.measuring import Labels
from lockgate.evals.model import Case, MetricCard
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.sequential import Level


def cases(count: int, **fields: Any) -> list[Case]:
    return [Case(id=f"c{number}", input="x", **fields) for number in range(count)]


def grid(values: Any, status: Any = SCORED) -> Grid:
    array = np.asarray(values, dtype=float)
    array = array[:, None] if array.ndim == 1 else array
    codes = np.full(array.shape, SCORED if not np.isscalar(status) else status, dtype=np.uint8)
    if not np.isscalar(status):
        given = np.asarray(status, dtype=np.uint8)
        codes[:] = given[:, None] if given.ndim == 1 else given
    return Grid(array, codes)


def right(good: int, of: int) -> list[float]:
    return [1.0] * good + [0.0] * (of - good)


def verdict(
    rule: Any,
    values: Any,
    before: Any = None,
    *,
    metric: str = "exact_match",
    of: list[Case] | None = None,
    **evals: Any,
) -> tuple[Decision, MetricCard]:
    """The gate over one metric; ``values`` and ``before`` are a grid or its values."""
    rubric = parse_rubric({"thresholds": {metric: rule}, **evals}, Path())
    mine = values if isinstance(values, Grid) else grid(values)
    golden = of or cases(len(mine.values))
    quiet = {"error_rate": grid(np.zeros(mine.values.shape))}
    other = None
    if before is not None:
        other = {metric: before if isinstance(before, Grid) else grid(before), **quiet}
    found = decide(rubric, golden, {metric: mine, **quiet}, other)
    card = next(card for card in found.metrics if card.name == metric)
    return found, card


# --- against a threshold --------------------------------------------------------------------------------------


def test_a_mean_on_its_threshold_passes_and_below_it_fails_with_the_arithmetic() -> None:
    assert verdict(0.8, right(48, 60))[0].verdict == "pass"
    found, card = verdict(0.8, right(47, 60))
    assert found.verdict == "fail"
    assert card.reason.startswith("0.78 < 0.80 (0.68..0.87)")
    assert found.reasons == [f"exact_match: {card.reason}"]


def test_a_strict_threshold_is_for_the_lower_end_and_may_be_inconclusive() -> None:
    rule = {"min": 0.8, "strict": True}
    assert verdict(rule, right(59, 60))[0].verdict == "pass"
    found, card = verdict(rule, right(50, 60))
    assert found.verdict == "inconclusive"
    assert "does not settle ≥ 0.80 (strict)" in card.reason
    assert verdict(rule, right(35, 60))[0].verdict == "fail"


def test_costs_pass_below_their_maximum_and_show_money() -> None:
    assert verdict(0.05, [0.04] * 50, metric="cost_usd")[0].verdict == "pass"
    found, card = verdict(0.05, [0.04, 0.08] * 25, metric="cost_usd")
    assert found.verdict == "fail"
    assert card.reason.startswith("$0.060 > $0.050")


def test_an_advisory_metric_never_decides() -> None:
    found, card = verdict({"min": 0.8, "blocking": False}, right(0, 60))
    assert (found.verdict, card.verdict) == ("pass", "fail")


def test_what_must_never_happen_fails_on_one_trial_whatever_the_mean() -> None:
    rubric = parse_rubric({"rubric": {"never": ["must_not"]}}, Path())
    values = np.ones((60, 3))
    values[7, 2] = 0
    quiet = grid(np.zeros((60, 3)))
    found = decide(rubric, cases(60), {"must_not": grid(values), "error_rate": quiet}, None)
    assert found.verdict == "fail"
    assert "must never be broken, and was in 1 of 60 cases: c7" in found.reasons[0]


# --- failures are evidence ------------------------------------------------------------------------------------


def test_trials_that_failed_count_as_the_worst_value() -> None:
    status = [ERROR] * 20 + [SCORED] * 40
    found, card = verdict(0.8, grid([0.0] * 20 + [1.0] * 40, status))
    assert (found.verdict, card.mean, card.errors) == ("fail", pytest.approx(2 / 3), 20)


def test_trials_that_never_ran_are_the_worst_case_and_never_a_pass() -> None:
    few = grid([np.nan] * 3 + [1.0] * 57, [MISSING] * 3 + [SCORED] * 57)
    found, card = verdict(0.8, few)
    assert (found.verdict, card.mean) == ("pass", 0.95)  # it holds even if those three are wrong
    many = grid([np.nan] * 20 + [1.0] * 40, [MISSING] * 20 + [SCORED] * 40)
    found, card = verdict(0.8, many)
    assert found.verdict == "inconclusive"
    assert "20 trials did not run" in card.reason


def test_the_cost_of_what_never_ran_is_unknown_so_nothing_passes() -> None:
    some = grid([np.nan] + [0.01] * 49, [MISSING] + [SCORED] * 49)
    assert verdict(0.05, some, metric="cost_usd")[0].verdict == "inconclusive"


def test_a_metric_that_no_case_could_be_scored_on_is_not_green() -> None:
    found, card = verdict(0.8, grid([np.nan] * 50, SKIPPED))
    assert found.verdict == "inconclusive"
    assert card.reason == "no case could be scored (50 skipped, 0 unscored)"


def test_a_judge_that_leaves_too_much_unscored_cannot_pass_a_version() -> None:
    some = grid([np.nan] * 5 + [1.0] * 55, [UNSCORED] * 5 + [SCORED] * 55)
    assert verdict(0.8, some)[0].verdict == "pass"
    most = grid([np.nan] * 10 + [1.0] * 50, [UNSCORED] * 10 + [SCORED] * 50)
    found, card = verdict(0.8, most)
    assert found.verdict == "inconclusive"
    assert "left 10 of 60 answers unscored" in card.reason


def test_missing_trials_of_the_baseline_do_not_flatter_the_candidate() -> None:
    before = grid([np.nan] * 30 + [1.0] * 30, [MISSING] * 30 + [SCORED] * 30)
    _, card = verdict({"margin": 0.2}, right(60, 60), before)
    assert (card.baseline_mean, card.difference) == (1.0, 0.0)


def test_a_case_that_did_not_run_is_not_newly_broken() -> None:
    after = grid([np.nan] * 20 + [1.0] * 39 + [0.0], [MISSING] * 20 + [SCORED] * 40)
    found, _ = verdict({"margin": 0.2}, after, right(60, 60))
    assert [change.case_id for change in found.broken] == ["c59"]


# --- against the baseline -------------------------------------------------------------------------------------


def test_equal_versions_pass_a_margin_that_the_set_can_show_and_not_a_finer_one() -> None:
    same = right(50, 60)
    assert verdict({"margin": 0.1}, same, same)[0].verdict == "pass"
    found, card = verdict({"margin": 0.02}, same, same)
    assert found.verdict == "inconclusive"
    assert "more cases are missing, not more trials: add about" in card.reason
    assert card.detectable == pytest.approx(0.0487, abs=1e-3)


def test_a_clear_loss_fails_though_the_threshold_holds() -> None:
    found, card = verdict({"min": 0.5, "margin": 0.05}, right(40, 60), right(60, 60))
    assert found.verdict == "fail"
    assert "surely worse by more than the margin 0.05: 1.00 → 0.67" in card.reason
    assert [change.case_id for change in found.broken[:2]] == ["c40", "c41"]
    assert found.fixed == []


def test_without_a_margin_only_a_sure_loss_fails() -> None:
    assert verdict(0.5, right(57, 60), right(60, 60))[0].verdict == "pass"
    found, card = verdict(0.5, right(45, 60), right(60, 60))
    assert found.verdict == "fail"
    assert "surely worse than the baseline" in card.reason


def test_a_gain_passes_and_names_what_was_fixed() -> None:
    found, _ = verdict({"margin": 0.05}, right(60, 60), right(40, 60))
    assert found.verdict == "pass"
    assert len(found.fixed) == 20


def test_a_margin_of_cost_is_a_share_of_the_baselines() -> None:
    before = [0.010, 0.012] * 30
    dearer = [0.0105, 0.0126] * 30
    assert verdict({"max": 1, "margin": 0.2}, dearer, before, metric="cost_usd")[0].verdict == "pass"
    found, card = verdict({"max": 1, "margin": 0.2}, [0.02, 0.02] * 30, before, metric="cost_usd")
    assert found.verdict == "fail"
    assert "surely worse by more than the margin 20%" in card.reason


def test_a_cost_without_a_margin_is_held_against_its_maximum_alone() -> None:
    found, card = verdict({"max": 1}, [0.02] * 60, [0.01] * 60, metric="cost_usd")
    assert (found.verdict, card.p_worse) == ("pass", None)
    assert card.difference == pytest.approx(0.01)


def test_cases_that_share_a_cluster_count_as_one() -> None:
    clustered = [Case(id=f"c{number}", input="x", cluster=f"g{number // 20}") for number in range(60)]
    before, after = right(60, 60), right(40, 60)
    assert verdict({"margin": 0.05}, after, before)[0].verdict == "fail"
    assert verdict({"margin": 0.05}, after, before, of=clustered)[0].verdict == "inconclusive"  # one cluster of three


def test_more_trials_are_advised_when_the_trials_disagree_and_more_cases_when_the_cases_do() -> None:
    rng = np.random.default_rng(1)
    noisy = (rng.random((60, 2)) < 0.5).astype(float)
    noisy_before = (rng.random((60, 2)) < 0.45).astype(float)
    assert "more trials a case (--buy-trials)" in verdict({"margin": 0.05}, noisy, noisy_before)[1].reason
    uneven, uneven_before = right(40, 60), right(20, 40) + right(15, 20)
    assert "add about" in verdict({"margin": 0.02}, uneven, uneven_before)[1].reason


def test_the_correction_for_many_metrics_is_holms() -> None:
    """A loss with p = 0.03 alone fails, and beside another blocking metric that is compared too does not."""
    before, after = right(60, 60), right(55, 60)
    alone = parse_rubric({"thresholds": {"exact_match": 0.1, "error_rate": {"max": 0.5, "blocking": False}}}, Path())
    grids = {"exact_match": grid(after), "error_rate": grid(np.zeros(60))}
    others = {"exact_match": grid(before), "error_rate": grid(np.zeros(60))}
    found = decide(alone, cases(60), grids, others)
    assert found.metrics[0].p_worse == pytest.approx(1 / 32, abs=0.005)  # McNemar's exact test of 5 lost, 0 won
    many = parse_rubric(
        {"thresholds": {"exact_match": 0.1, "contains": 0.1, "regex": {"pattern": "x", "min": 0}}}, Path()
    )
    for name in ("contains", "regex"):
        grids[name], others[name] = grid(before), grid(before)
    together = decide(many, cases(60), grids, others)
    assert (found.verdict, together.verdict) == ("fail", "pass")


# --- where it hurts -------------------------------------------------------------------------------------------


def test_the_worst_slice_is_the_kind_of_case_that_lost_most() -> None:
    golden = [
        Case(id=f"c{number}", input="x", tags=["long" if number % 3 == 0 else "short"], cluster=f"g{number % 10}")
        for number in range(60)
    ]
    after = [0.0 if "long" in case.tags else 1.0 for case in golden]
    found, _ = verdict(0.1, after, right(60, 60), of=golden)
    worst = found.slices[0]
    assert (worst.kind, worst.name, worst.cases, worst.mean, worst.baseline_mean) == ("tag", "long", 20, 0.0, 1.0)
    assert "short" not in {part.name for part in found.slices}


def test_a_slice_of_two_cases_is_not_shown() -> None:
    golden = [Case(id=f"c{number}", input="x", tags=["rare"] if number < 2 else ["usual"]) for number in range(60)]
    found, _ = verdict(0.1, [0.0, 0.0] + [1.0] * 58, of=golden)
    assert "rare" not in {part.name for part in found.slices}


def test_cases_that_are_right_in_one_trial_and_wrong_in_another_are_flaky() -> None:
    values = np.ones((40, 3))
    values[5, 1] = 0
    values[6] = 0
    assert verdict(0.1, values)[0].flaky == ["c5"]


def test_the_regression_mean_and_the_traffic_mean_are_told_apart() -> None:
    golden = [Case(id="a", input="x", weight=9), Case(id="b", input="x", weight=1)]
    _, card = verdict(0.1, [1.0, 0.0], of=golden)
    assert (card.mean, card.traffic_mean) == (0.5, 0.9)


def test_weights_of_slices_move_the_mean_that_decides() -> None:
    golden = [Case(id="a", input="x", tags=["vip"]), Case(id="b", input="x")]
    _, card = verdict(0.1, [1.0, 0.0], of=golden, rubric={"slices": {"vip": 3}})
    assert card.mean == 0.75


def test_two_equal_versions_are_rarely_told_apart() -> None:
    """150 gates of equal versions with clusters and two trials: at most 5 % may fail (3 SD allowed)."""
    rng = np.random.default_rng(9)
    golden = [Case(id=f"c{number}", input="x", cluster=f"g{number // 2}") for number in range(40)]
    failed = 0
    for _ in range(150):
        chance = np.repeat(rng.beta(4, 1, 20), 2)[:, None]
        after, before = (rng.random((40, 2)) < chance, rng.random((40, 2)) < chance)
        failed += verdict({"margin": 0.05}, after, before, of=golden)[0].verdict == "fail"
    assert failed <= 150 * 0.05 + 3 * (150 * 0.05 * 0.95) ** 0.5


# --- trials as pass^k and pass@k ------------------------------------------------------------------------------


def test_pass_k_and_pass_at_k_are_unbiased_for_k_below_the_trials() -> None:
    """c of n trials pass: pass^k = C(c, k)/C(n, k), pass@k = 1 - C(n - c, k)/C(n, k)."""
    table = grid([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 0], [1, 0, 0, 0, 0]])
    every = verdict({"min": 0.1, "aggregate": "pass^2"}, table)[1]
    assert every.mean == pytest.approx((3 / 10 + 1 + 0 + 0) / 4)
    some = verdict({"min": 0.1, "aggregate": "pass@2"}, table)[1]
    assert some.mean == pytest.approx((1 - 1 / 10 + 1 + 0 + 1 - 6 / 10) / 4)
    assert verdict({"min": 0.1}, table)[1].mean == pytest.approx((0.6 + 1 + 0 + 0.2) / 4)


def test_a_trial_passes_with_the_value_named_and_a_missing_one_does_not() -> None:
    graded = grid([[0.9, 0.8], [0.9, 0.7]])
    assert verdict({"min": 0.1, "aggregate": "pass^2", "passes": 0.8}, graded)[1].mean == 0.5
    holes = grid([[1, np.nan], [1, 1]], [[SCORED, MISSING], [SCORED, SCORED]])
    assert verdict({"min": 0.1, "aggregate": "pass^2"}, holes)[1].mean == 0.5
    unscored = grid([[1, np.nan], [1, 1]], [[SCORED, UNSCORED], [SCORED, SCORED]])
    assert verdict({"min": 0.1, "aggregate": "pass^2"}, unscored)[1].cases == 1


def test_where_less_is_better_it_is_the_share_that_did_not_hold_k_times() -> None:
    leaks = grid([[0, 1], [0, 0], [0, 0], [0, 0]])
    assert verdict({"max": 0.5, "aggregate": "pass^2"}, leaks, metric="pii_leaked")[1].mean == 0.25
    assert verdict({"max": 0.5, "aggregate": "pass@2"}, leaks, metric="pii_leaked")[1].mean == 0.0


# --- before all has run ---------------------------------------------------------------------------------------


def early(rule: Any, values: Any, seen: float, before: Any = None) -> Decision:
    rubric = parse_rubric({"thresholds": {"exact_match": rule, "error_rate": {"blocking": False}}}, Path())
    quiet = {"error_rate": grid(np.zeros(len(values)))}
    other = None if before is None else {"exact_match": grid(before), **quiet}
    at = Level(bound=0.01, holds=0.01, shown=0.005, claim=0.01, seen=seen)
    return decide(rubric, cases(len(values)), {"exact_match": grid(values), **quiet}, other, at=at)


def test_a_mean_is_settled_early_only_when_the_rest_can_hardly_change_it() -> None:
    assert early(0.8, right(49, 50), 0.5).verdict == "pass"
    assert early(0.8, right(42, 50), 0.5).verdict == "inconclusive"
    assert early(0.8, right(15, 50), 0.5).verdict == "fail"
    assert early(0.8, right(42, 50), 1.0).verdict == "pass"


def test_a_rule_that_must_never_be_broken_is_settled_early_only_by_breaking_it() -> None:
    assert early({"never": True}, right(50, 50), 0.9).verdict == "inconclusive"
    assert early({"never": True}, right(49, 50), 0.1).verdict == "fail"
    assert early({"never": True}, right(50, 50), 1.0).verdict == "pass"


def test_a_difference_is_settled_early_by_its_own_bound() -> None:
    assert early({"margin": 0.2}, right(50, 50), 0.5, right(50, 50)).verdict == "pass"
    assert early({"margin": 0.05}, right(50, 50), 0.5, right(50, 50)).verdict == "inconclusive"
    assert early({"margin": 0.05}, right(20, 50), 0.5, right(50, 50)).verdict == "fail"


# --- what people said -----------------------------------------------------------------------------------------


def test_a_judge_that_is_too_kind_is_corrected_by_peoples_labels_before_the_threshold() -> None:
    rubric = parse_rubric({"thresholds": {"exact_match": 0.8}}, Path())
    grids = {"exact_match": grid(right(90, 100)), "error_rate": grid(np.zeros(100))}
    judge = np.array(right(36, 40))
    kind = Labels(judge, np.where(np.arange(40) < 28, judge, 0.0))  # 0.9 by the judge, 0.7 by people
    assert decide(rubric, cases(100), grids, None).verdict == "pass"
    found = decide(rubric, cases(100), grids, None, labels={"exact_match": kind})
    card = found.metrics[0]
    assert (found.verdict, card.labels, card.judge_mean) == ("fail", 40, 0.9)
    assert card.mean == pytest.approx(0.7)
    assert card.interval is not None
    assert card.interval.low < 0.6 < 0.7 < card.interval.high  # two doubts are wider than one


def test_a_difference_needs_no_correction_because_the_judge_errs_on_both_alike() -> None:
    rubric = parse_rubric({"thresholds": {"exact_match": {"margin": 0.2}}}, Path())
    grids = {"exact_match": grid(right(90, 100)), "error_rate": grid(np.zeros(100))}
    labels = Labels(np.array(right(36, 40)), np.array(right(28, 40)))
    plain = decide(rubric, cases(100), grids, grids).metrics[0]
    found = decide(rubric, cases(100), grids, grids, labels={"exact_match": labels}).metrics[0]
    assert (found.difference, found.difference_interval) == (plain.difference, plain.difference_interval)
    assert found.baseline_mean == pytest.approx(0.7)


# --- what would settle it -------------------------------------------------------------------------------------


def test_more_trials_are_advised_where_they_are_the_noise_and_more_cases_where_they_are_not() -> None:
    random = np.random.default_rng(3)
    noisy = [grid((random.random((300, 2)) < 0.5).astype(float)) for _ in range(2)]
    found, card = verdict({"margin": 0.03}, noisy[0], noisy[1])
    assert found.verdict == "inconclusive"
    assert card.more_trials
    steady = grid(np.repeat(np.array(right(150, 300))[:, None], 2, axis=1))
    moved = grid(np.repeat(np.array([*right(140, 150), *right(10, 150)])[:, None], 2, axis=1))
    found, card = verdict({"margin": 0.02}, moved, steady)
    assert (found.verdict, card.more_trials) == ("inconclusive", None)
    assert card.more_cases
    assert "more cases are missing, not more trials" in card.reason
