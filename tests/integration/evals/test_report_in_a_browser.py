"""The HTML report in a real browser: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lockgate.evals.model import (
    Case,
    Change,
    Flaky,
    Interval,
    MetricCard,
    MutantCard,
    Quantiles,
    Scorecard,
    SelfCheck,
    Slice,
    TagCost,
)
from lockgate.evals.reports.cases import CaseView, TrialView, view
from lockgate.evals.reports.html import html
from lockgate.results import RunResult, ToolUse

pytestmark = [pytest.mark.integration_only, pytest.mark.timeout(400)]
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
BROKEN, FIXED, FLAKY = ("case-3", "case-17"), ("case-5",), ("case-9",)


def metric(name: str, **fields: Any) -> MetricCard:
    given: dict[str, Any] = {"scorer": name, "unit": "score", "direction": "higher", "blocking": True}
    given |= {"verdict": "pass", "reason": "", "cases": 40, "scored": 80}
    return MetricCard(name=name, **(given | fields))


def card() -> Scorecard:
    """A gate that failed, against a baseline, with everything a report can show."""
    cost = {"unit": "usd", "direction": "lower", "mean": 0.0041, "interval": Interval(0.0038, 0.0044)}
    late = {"unit": "seconds", "direction": "lower", "mean": 1.3, "interval": Interval(1.1, 1.5), "blocking": False}
    return Scorecard(
        id="eval_01m7",
        agent="refund-triage",
        label="refund-triage@3 (4f2a91c07d1e)",
        behaviour_digest="sha256:4f2a91c07d1e",
        effective_digest="sha256:9c1e55aa01bd",
        environment="prod",
        dataset="evals/golden/refund-triage.jsonl",
        dataset_digest="sha256:71c2aa90be11",
        rubric_digest="sha256:r",
        cases=40,
        trials=2,
        verdict="fail",
        reasons=["field_match: 0.81 < 0.85 (0.74..0.87)", "field_match: 0.08 worse than the baseline, margin 0.05"],
        metrics=[
            metric(
                "field_match",
                verdict="fail",
                mean=0.81,
                interval=Interval(0.74, 0.87),
                minimum=0.85,
                margin=0.05,
                baseline_mean=0.89,
                difference=-0.08,
                difference_interval=Interval(-0.13, -0.03),
                detectable=0.06,
            ),
            metric("faithfulness", mean=0.93, interval=Interval(0.88, 0.97), minimum=0.85, baseline_mean=0.92),
            metric("cost_usd", maximum=0.05, baseline_mean=0.0039, **cost),
            metric("latency_seconds", verdict=None, maximum=3.0, baseline_mean=1.1, **late),
        ],
        baseline_label="refund-triage@2 (aa01bd9c1e55)",
        baseline_effective="sha256:aa01bd9c1e55",
        slices=[
            Slice(kind="tag", name="multilingual", metric="field_match", cases=8, mean=0.55, baseline_mean=0.85),
            Slice(kind="tag", name="long", metric="field_match", cases=6, mean=0.7, baseline_mean=0.8),
            Slice(kind="cluster", name="returns", metric="field_match", cases=12, mean=0.76, baseline_mean=0.9),
        ],
        broken=[Change(case_id=id, metric="field_match", before=1.0, after=0.0) for id in BROKEN],
        fixed=[Change(case_id=id, metric="field_match", before=0.0, after=1.0) for id in FIXED],
        flaky=list(FLAKY),
        flaky_cases=[Flaky(case_id=id, metric="field_match", lowest=0, highest=1, sd=0.7, trials=2) for id in FLAKY],
        failures={"trial_timeout": 1},
        failed_trials=1,
        cost_nano=328_000_000,
        spent_nano=402_000_000,
        seconds=48.2,
        judge="ollama:llama3.1:70b",
        warnings=["the judge ollama:llama3.1:70b is not calibrated against human labels: faithfulness"],
        started_at=1_790_000_000.0,
        clusters=31,
        latency=Quantiles(p50=1.1, p90=1.9, p95=2.2, p99=2.9, highest=3.4),
        baseline_latency=Quantiles(p50=0.9, p90=1.6, p95=1.8, p99=2.1, highest=2.2),
        baseline_run_usd=0.0052,
        costs=[
            TagCost(tag="long", runs=12, mean_usd=0.0082, highest_usd=0.012, baseline_mean_usd=0.008, mean_seconds=1.9),
            TagCost(tag="multilingual", runs=16, mean_usd=0.0049, highest_usd=0.006, mean_seconds=1.3),
        ],
        self_check=SelfCheck(
            gates=100,
            false_blocks=3,
            false_block_rate=0.03,
            false_block_interval=Interval(0.0, 0.08),
            level=0.05,
            inconclusive=2,
            mutants=[
                MutantCard(name="answers swapped", what="every answer is another case's", verdict="fail", reason=""),
                MutantCard(name="prompt cut", what="half of the system prompt", verdict="inconclusive", reason=""),
            ],
        ),
        scorer_digests={},
    )


def trial(number: int, case: str, good: bool, chance: random.Random) -> TrialView:
    decision = "approve" if good else "escalate"
    output = {"order_id": f"A-{case.partition('-')[2]}", "item": "coffee grinder", "decision": decision}
    result = RunResult(
        status="completed",
        output=output,
        tools_used=[ToolUse(name="read_orders", arguments={})],
        seconds=round(0.6 + chance.random() * 1.6, 2),
        cost_nano=4_000_000,
    )
    scores = {
        "field_match": (1.0 if good else 0.0, "scored", "" if good else "decision: 'escalate', not 'approve'"),
        "faithfulness": (round(0.8 + chance.random() / 5, 2), "scored", ""),
    }
    return TrialView(trial=number, result=result, scores=scores)


def views(found: Scorecard) -> list[CaseView]:
    chance = random.Random(7)
    shown = []
    for number in range(40):
        id = f"case-{number}"
        bad = id in BROKEN or number % 11 == 0
        given = Case(
            id=id,
            input=f"My coffee grinder came broken, order A-{number}. I would like my money back, please.",
            expected_output={"order_id": f"A-{number}", "decision": "approve"},
            tags=["multilingual"] if number % 5 == 0 else ["long"] if number % 6 == 0 else ["plain"],
        )
        now = [trial(turn, id, not bad and not (id in FLAKY and turn), chance) for turn in range(2)]
        before = [trial(turn, id, id not in FIXED, chance) for turn in range(2)]
        marks = view(found, given, {}, {}, {}).marks
        marks = [mark for mark in marks if mark != "missing"] + (["failed"] if bad else [])
        shown.append(CaseView(case=given, trials=now, baseline=before, marks=marks))
    return shown


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium")
    assert path, "install Debian's chromium: this test is about a real browser"
    with sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield found
        found.close()


class Opened:
    """The report in a tab, and what the browser had to say."""

    def __init__(self, page: Any, address: str) -> None:
        self.page = page
        self.said: list[str] = []
        self.requested: list[str] = []
        page.on("console", lambda message: self.said.append(message.text))
        page.on("pageerror", lambda error: self.said.append(str(error)))
        page.on("request", lambda request: self.requested.append(request.url))
        page.goto(address)
        self.requested.remove(address)


@pytest.fixture
def report(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    found = card()
    file = tmp_path / "report.html"
    file.write_text(html(found, views(found)), encoding="utf-8")
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    opened = Opened(page, file.as_uri())
    yield opened
    assert opened.said == []  # no error, and nothing that the page's own policy had to stop
    assert opened.requested == []
    page.close()


def visible(report: Opened) -> int:
    return int(report.page.locator("details.case:visible").count())


def test_every_metric_has_its_charts_on_the_page(report: Opened) -> None:
    charts = report.page.locator("table.metrics svg")
    assert charts.count() == 5  # an interval for each of four metrics, and the one difference
    for number in range(charts.count()):
        box = charts.nth(number).bounding_box()
        assert box["width"] > 100
        assert box["height"] > 10
    assert report.page.locator("svg.histogram:visible").count() == 2
    band = report.page.locator("table.metrics svg .range").first
    assert report.page.evaluate("one => getComputedStyle(one).fill", band.element_handle()) != "rgb(0, 0, 0)"
    assert report.page.locator("h1 .verdict").inner_text() == "FAIL"


def test_the_page_is_no_wider_than_its_window(report: Opened) -> None:
    for width in (1200, 390):
        report.page.set_viewport_size({"width": width, "height": 800})
        assert report.page.evaluate("document.documentElement.scrollWidth") <= width


def test_cases_are_filtered_by_mark_tag_and_text(report: Opened) -> None:
    page = report.page
    assert visible(report) == 40
    page.get_by_role("button", name="broken").click()
    assert visible(report) == len(BROKEN)
    assert page.locator("#count").inner_text() == "2 of 40"
    page.get_by_role("button", name="all").click()
    page.get_by_label("Tag").select_option("multilingual")
    assert visible(report) == 8
    page.get_by_label("Search").fill("case-15")
    assert visible(report) == 1
    page.get_by_label("Search").fill("no such thing")
    assert visible(report) == 0
    page.get_by_label("Search").fill("")
    page.get_by_label("Tag").select_option("")
    assert visible(report) == 40


def test_a_case_shows_both_answers_side_by_side_with_what_differs(report: Opened) -> None:
    case = report.page.locator("details.case", has_text="case-17").first
    pair = case.locator(".pair").first
    assert not pair.is_visible()
    case.locator("summary").click()
    assert pair.is_visible()
    left, right = pair.locator("pre").nth(0).bounding_box(), pair.locator("pre").nth(1).bounding_box()
    assert left["y"] == right["y"]
    assert left["x"] + left["width"] <= right["x"]
    assert pair.locator("del").inner_text() == "approve"
    assert pair.locator("ins").inner_text() == "escalate"
    assert "decision: 'escalate', not 'approve'" in case.inner_text()
