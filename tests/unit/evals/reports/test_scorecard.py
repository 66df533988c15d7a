"""A scorecard as people read it."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest

from lockgate.evals.figures import apart, show, signed
from lockgate.evals.model import Change, Interval, MetricCard, Scorecard, Slice, Unit
from lockgate.evals.reports.markdown import markdown
from lockgate.evals.reports.terminal import draw


def drawn(found: Scorecard) -> str:
    from rich.console import Console

    screen = io.StringIO()
    draw(found, Console(file=screen, width=100))
    return screen.getvalue()


@pytest.fixture
def failed(make_card: Callable[..., Scorecard], make_metric: Callable[..., MetricCard]) -> Scorecard:
    """A gate that failed, against a baseline."""
    return make_card(
        verdict="fail",
        reasons=["exact_match: 0.50 < 0.80 (0.40..0.60)"],
        metrics=[
            make_metric(
                "cost_usd", unit="usd", direction="lower", mean=0.004, interval=Interval(0.003, 0.005), minimum=None
            ),
            make_metric(
                "exact_match",
                verdict="fail",
                mean=0.5,
                baseline_mean=0.9,
                difference=-0.4,
                difference_interval=Interval(-0.5, -0.3),
                margin=0.05,
            ),
            make_metric("exact_match.item", blocking=False, verdict="fail", minimum=None),
        ],
        slices=[Slice(kind="tag", name="long|msg", metric="exact_match", cases=9, mean=0.1, baseline_mean=0.9)],
        broken=[Change(case_id=f"c{number}", metric="exact_match", before=1.0, after=0.0) for number in range(9)],
        flaky=["c3"],
        failures={"trial_timeout": 2},
        warnings=["the golden set has 20 cases"],
        judge="ollama:judge",
        baseline_label="triage@1 (def)",
    )


def test_the_markdown_begins_with_the_marker_a_bot_looks_for(make_card: Callable[..., Scorecard]) -> None:
    assert markdown(make_card()).startswith("<!-- lockgate:scorecard:triage -->\n## ✅ triage@2 (abc): pass\n")


def test_the_markdown_says_what_failed_where_and_on_which_cases(failed: Scorecard) -> None:
    text = markdown(failed)
    assert "- exact_match: 0.50 &lt; 0.80" in text
    assert "| exact_match | ❌ | 0.50 (0.80..0.95) | ≥ 0.80, margin 0.05 | 0.90 | −0.40 (−0.50..−0.30) |" in text
    assert "**Newly broken**: 9 cases: `c0`" in text
    assert "`c7`, …" in text
    assert "judge ollama:judge (uncalibrated)" in text
    assert "failed: 2 × trial_timeout" in text


def test_quality_stands_before_cost_and_a_field_below_its_whole(failed: Scorecard) -> None:
    lines = [line.split(" | ")[0] for line in markdown(failed).splitlines() if line.startswith("| ")]
    assert [line for line in lines if "match" in line or "cost" in line] == [
        "| exact_match",
        "| exact_match.item _(advisory)_",
        "| cost_usd",
    ]


def test_ids_from_outside_cannot_put_html_into_a_comment(make_card: Callable[..., Scorecard]) -> None:
    evil = make_card(flaky=["<img src=x>`"], reasons=["<script>"], verdict="fail")
    assert "<img" not in markdown(evil)
    assert "<script" not in markdown(evil)


def test_the_terminal_shows_the_same(failed: Scorecard) -> None:
    text = drawn(failed)
    assert text.startswith("FAIL  triage@2 (abc)")
    assert "exact_match: 0.50 < 0.80" in text
    assert "tag long|msg: exact_match 0.10 (baseline 0.90), 9 cases" in text
    assert "warning: the golden set has 20 cases" in text


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.834, "score", "0.83"),
        (0.0042, "usd", "$0.0042"),
        (3.5, "usd", "$3.50"),
        (0.031, "rate", "3.1%"),
        (1.2, "seconds", "1.20 s"),
        (12345.6, "tokens", "12,346"),
        (1.25, "count", "1.25"),
    ],
)
def test_figures_are_shown_as_people_read_them(value: float, unit: Unit, shown: str) -> None:
    assert show(value, unit) == shown


def test_differences_carry_their_sign() -> None:
    assert signed(-0.4, "score") == "−0.40"
    assert signed(0.0, "usd") == "+$0.00"


def test_a_figure_and_its_limit_are_never_shown_alike_when_they_differ() -> None:
    assert apart(0.5, 0.69, "score") == ("0.50", "0.69")
    assert apart(0.6875, 0.69, "score") == ("0.688", "0.690")
    assert apart(0.05001, 0.05, "rate") == ("5.001%", "5.000%")
    assert apart(0.69, 0.69, "score") == ("0.69", "0.69")
