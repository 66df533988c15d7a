"""Every trial ends, every result is kept, nothing is run twice."""

from __future__ import annotations

import asyncio
import math
import os
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.evals.grid import ERROR, MISSING, SCORED, UNSCORED
from lockgate.evals.model import Case, Metric, Rubric, Subject
from lockgate.evals.runner import run_trials
from lockgate.evals.running import place, saving, scoring
from lockgate.evals.running.meter import Spend
from lockgate.evals.running.outcome import Outcome, Progress
from lockgate.evals.running.scoring import prepare
from lockgate.evals.scorers.judge import JudgeReply
from lockgate.evals.scorers.making import make_scorer
from lockgate.evals.scorers.sample import Mark, Sample, Scorer
from lockgate.evals.store import CallRecord, TrialRecord, TrialStore
from lockgate.results import RunResult
from lockgate.storage.engine import Database, open_database

CASES = [Case(id=f"c{number}", input=f"say {number}", expected_output=f"say {number}") for number in range(6)]
EXACT = Metric(name="exact_match", scorer="exact_match")
COST = Metric(name="cost_usd", scorer="cost_usd", unit="usd", direction="lower")


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    found = open_database(tmp_path / "control.db", "control")
    yield found
    found.close()


async def echo(case: Case, trial: int) -> RunResult:
    return RunResult(status="completed", output=case.input, cost_nano=1_000_000)


class Opened:
    """Counts how often a subject is made ready, and what it is asked."""

    def __init__(self, subject: Subject = echo) -> None:
        self.subject = subject
        self.times = 0
        self.asked: list[tuple[str, int]] = []

    @asynccontextmanager
    async def __call__(self) -> AsyncIterator[Subject]:
        self.times += 1

        async def counted(case: Case, trial: int) -> RunResult:
            self.asked.append((case.id, trial))
            return await self.subject(case, trial)

        yield counted


async def run(
    database: Database,
    opened: Opened,
    *,
    cases: Sequence[Case] = CASES,
    trials: int = 1,
    metrics: Sequence[Metric] = (EXACT, COST),
    make: Callable[[Metric], Scorer] | None = None,
    **options: Any,
) -> Outcome:
    scorings = prepare(Rubric(metrics=tuple(metrics)), make or (lambda metric: make_scorer(metric, Path())))
    store = options.pop("store", None) or TrialStore(database, "sha256:e")
    options = {"concurrency": 3, "timeout": 5.0} | options
    return await run_trials(opened, cases, trials, scorings, store=store, **options)


async def test_results_are_scored_and_found_again_without_being_run(database: Database) -> None:
    opened = Opened()
    first = await run(database, opened, trials=2)
    assert (first.ran, first.cached, first.cost_nano) == (12, 0, 12_000_000)
    assert (first.grids["exact_match"].values == 1.0).all()
    second = await run(database, opened, trials=3)
    assert (second.ran, second.cached) == (6, 12)
    assert sorted(opened.asked[12:]) == sorted((case.id, 2) for case in CASES)
    third = await run(database, opened, trials=3)
    assert (third.ran, opened.times) == (0, 2)  # nothing left to run: the subject is not even made ready
    assert third.cost_nano == 18_000_000


async def test_another_version_does_not_find_this_ones_trials(database: Database) -> None:
    opened = Opened()
    await run(database, opened)
    await run(database, opened, store=TrialStore(database, "sha256:other"))
    assert len(opened.asked) == 12


async def test_a_new_label_scores_the_same_trial_again_without_running_it(database: Database) -> None:
    import msgspec

    opened = Opened()
    await run(database, opened)
    relabelled = [msgspec.structs.replace(case, expected_output="other") for case in CASES]
    found = await run(database, opened, cases=relabelled)
    assert (found.ran, found.grids["exact_match"].values.max()) == (0, 0.0)


async def test_what_a_kill_kept_from_the_database_is_found_in_a_file(database: Database, tmp_path: Path) -> None:
    result = RunResult(status="completed", output="hello")
    killed = TrialStore(database, "sha256:e", tmp_path / "paid")
    killed.note(TrialRecord(CASES[0].digest, "c0", 0, result, 1.0, []))
    killed.turn()
    killed.note(CallRecord(CASES[1].digest, 0, "asked", 0, {"answer": 1}))
    assert killed._paid is not None
    other = TrialStore(database, "sha256:e", tmp_path / "paid")
    other.recover()
    assert other.results([CASES[0].digest]) == {}  # its process lives, and saves it itself
    first, second = killed._paid._files
    os.write(second, b'["torn')
    for file in (first, second):
        os.close(file)  # as the end of a process does
    other.recover()
    assert other.results([CASES[0].digest]) == {(CASES[0].digest, 0): result}
    assert other.calls() == {(CASES[1].digest, 0): {"asked": [{"answer": 1}]}}
    assert list((tmp_path / "paid").iterdir()) == []


async def test_what_is_saved_leaves_the_file_and_what_came_meanwhile_stays(database: Database, tmp_path: Path) -> None:
    store = TrialStore(database, "sha256:e", tmp_path / "paid")
    store.note(CallRecord("sha256:c", 0, "first", 0, {}))
    saved = store.turn()
    store.note(CallRecord("sha256:c", 0, "second", 0, {}))
    saved()
    (kept,) = (path.read_text() for path in (tmp_path / "paid").iterdir() if path.stat().st_size)
    assert "second" in kept
    assert "first" not in kept
    opened = Opened()
    assert (await run(database, opened, store=TrialStore(database, "sha256:f", tmp_path / "paid"))).ran == 6
    assert len(list((tmp_path / "paid").iterdir())) == 2  # the other version's; its own are gone


async def test_a_subject_that_never_returns_is_a_failed_trial(database: Database) -> None:
    async def hang(case: Case, trial: int) -> RunResult:
        if case.id == "c2":
            await asyncio.Event().wait()
        return await echo(case, trial)

    found = await run(database, Opened(hang), timeout=0.05)
    assert dict(found.failures) == {"trial_timeout": 1}
    assert found.grids["exact_match"].values[:, 0].tolist() == [1, 1, 0, 1, 1, 1]
    assert found.grids["exact_match"].status[2, 0] == ERROR


async def test_a_subject_that_will_not_be_cancelled_is_left_behind(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(place, "GRACE", 0.02)
    release = asyncio.Event()

    async def stubborn(case: Case, trial: int) -> RunResult:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return await echo(case, trial)

    found = await run(database, Opened(stubborn), cases=CASES[:1], timeout=0.02)
    assert (found.left_behind, dict(found.failures)) == (1, {"trial_timeout": 1})
    release.set()


async def test_a_subject_that_raises_is_a_failed_trial_with_its_error(database: Database) -> None:
    async def broken(case: Case, trial: int) -> RunResult:
        raise ZeroDivisionError("oh")

    found = await run(database, Opened(broken))
    assert dict(found.failures) == {"subject_error": 6}
    assert found.errors == {"subject_error": "ZeroDivisionError: oh"}
    stored = TrialStore(database, "sha256:e").results([CASES[0].digest])[(CASES[0].digest, 0)]
    assert stored.error == "ZeroDivisionError: oh"


async def test_a_case_that_cannot_be_run_at_all_stops_the_evaluation(database: Database) -> None:
    async def refuses(case: Case, trial: int) -> RunResult:
        raise InputError("fixtures[0] has no 'tool'", remedy="name it")

    with pytest.raises(InputError, match=r"case 'c\d' cannot be run: fixtures"):
        await run(database, Opened(refuses))


async def test_a_failing_provider_leaves_trials_missing_and_they_are_tried_again(database: Database) -> None:
    up = False

    async def flaky(case: Case, trial: int) -> RunResult:
        if up or case.id != "c4":
            return await echo(case, trial)
        return RunResult(status="failed", error_type="model_unavailable", error="down")

    opened = Opened(flaky)
    found = await run(database, opened)
    assert (found.not_the_agent, found.grids["exact_match"].status[4, 0]) == (1, MISSING)
    up = True
    again = await run(database, opened)
    assert (again.ran, again.cached, again.failed) == (1, 5, 0)


async def test_the_limit_on_spending_stops_new_trials(database: Database) -> None:
    found = await run(database, Opened(), concurrency=1, spend=Spend(limit=3_000_000))
    assert (found.ran, found.stopped) == (3, True)
    assert (found.grids["exact_match"].status == MISSING).sum() == 3


async def test_at_most_so_many_run_at_once(database: Database) -> None:
    running = most = 0

    async def watched(case: Case, trial: int) -> RunResult:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0)
        running -= 1
        return await echo(case, trial)

    await run(database, Opened(watched), trials=3, concurrency=4)
    assert most == 4


async def test_an_interrupted_evaluation_keeps_what_it_finished(database: Database) -> None:
    enough = asyncio.Event()

    async def slow_after_three(case: Case, trial: int) -> RunResult:
        if case.id in ("c0", "c1", "c2"):
            return await echo(case, trial)
        enough.set()
        await asyncio.Event().wait()
        raise AssertionError

    evaluation = asyncio.create_task(run(database, Opened(slow_after_three), concurrency=1))
    async with asyncio.timeout(60):
        await enough.wait()
    evaluation.cancel()
    with pytest.raises(asyncio.CancelledError):
        await evaluation
    opened = Opened()
    found = await run(database, opened)
    assert (found.cached, sorted(opened.asked)) == (3, [("c3", 0), ("c4", 0), ("c5", 0)])


class LateThread(ThreadPoolExecutor):
    """What it is given first waits until all trials have ended."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.submit(time.sleep, 0.3)


async def test_what_is_about_to_be_stored_when_the_last_trial_ends_is_stored(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def last_is_slow(case: Case, trial: int) -> RunResult:
        await asyncio.sleep(0.1 if case.id == "c5" else 0.0)
        return await echo(case, trial)

    monkeypatch.setattr("lockgate.evals.running.saving.ThreadPoolExecutor", LateThread)
    await run(database, Opened(last_is_slow))
    assert (await run(database, Opened())).cached == 6


class FullDisk(TrialStore):
    """A store whose disk is full."""

    def save(self, records: Sequence[TrialRecord], calls: Sequence[CallRecord] = ()) -> None:
        raise OSError("database or disk is full")


async def test_a_full_disk_ends_the_evaluation_with_a_remedy(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(saving, "BATCH_SECONDS", 0.01)

    async def slow(case: Case, trial: int) -> RunResult:
        await asyncio.sleep(0.02)
        return await echo(case, trial)

    with pytest.raises(Unavailable, match="cannot be stored: database or disk is full"):
        await run(database, Opened(slow), trials=100, concurrency=1, store=FullDisk(database, "sha256:e"))


async def test_a_scorer_that_raises_or_gives_nan_counts_as_the_worst_value(database: Database) -> None:
    def make(metric: Metric) -> Scorer:
        def score(sample: Sample) -> Mark:
            if sample.case is not None and sample.case.id == "c0":
                raise ValueError("broken scorer")
            return Mark(math.nan if sample.case is not None and sample.case.id == "c1" else 1.0)

        return score

    found = await run(database, Opened(), metrics=[EXACT], make=make)
    grid = found.grids["exact_match"]
    assert grid.values[:, 0].tolist() == [0, 0, 1, 1, 1, 1]
    assert grid.status[:, 0].tolist() == [ERROR, ERROR, SCORED, SCORED, SCORED, SCORED]


async def test_a_python_scorer_that_hangs_is_given_up(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scoring, "SCORER_SECONDS", 0.03)
    release = threading.Event()

    def make(metric: Metric) -> Scorer:
        def score(sample: Sample) -> Mark:
            release.wait()
            return Mark(1.0)

        return score

    metric = Metric(name="own", scorer="python", options={"python": "own.py:score"})
    found = await run(database, Opened(), cases=CASES[:1], metrics=[metric], make=make)
    assert (found.grids["own"].values[0, 0], found.grids["own"].status[0, 0]) == (0.0, ERROR)
    release.set()


async def test_a_judge_is_asked_once_a_trial_and_again_only_where_it_gave_no_verdict(database: Database) -> None:
    replies = ["I would rather not."] + ['{"verdict": "yes"}'] * 20
    asked = 0

    async def ask(messages: list[dict[str, str]], schema: dict[str, Any]) -> JudgeReply:
        nonlocal asked
        asked += 1
        return JudgeReply(text=replies[asked - 1])

    metric = Metric(name="helpfulness", scorer="helpfulness")

    def make(wanted: Metric) -> Scorer:
        return make_scorer(wanted, Path(), ask=ask)

    first = await run(database, Opened(), metrics=[metric], make=make, concurrency=1)
    assert (asked, (first.grids["helpfulness"].status == UNSCORED).sum()) == (6, 1)
    second = await run(database, Opened(), metrics=[metric], make=make)
    assert (asked, (second.grids["helpfulness"].status == SCORED).sum()) == (7, 6)


async def test_stored_trials_are_judged_as_many_at_a_time_as_trials_run(database: Database) -> None:
    await run(database, Opened())
    together = asyncio.Barrier(3)

    async def ask(messages: list[dict[str, str]], schema: dict[str, Any]) -> JudgeReply:
        async with asyncio.timeout(60), together:  # nobody is answered before three are asked
            return JudgeReply(text='{"reason": "r", "verdict": "yes"}')

    metric = Metric(name="helpfulness", scorer="helpfulness")
    opened = Opened()
    found = await run(database, opened, metrics=[metric], make=lambda wanted: make_scorer(wanted, Path(), ask=ask))
    assert (found.cached, opened.asked) == (6, [])
    assert (found.grids["helpfulness"].values == 1.0).all()


async def test_a_judge_that_is_away_leaves_answers_unscored(database: Database) -> None:
    async def ask(messages: list[dict[str, str]], schema: dict[str, Any]) -> JudgeReply:
        raise Unavailable("the judge is away")

    metric = Metric(name="helpfulness", scorer="helpfulness")
    found = await run(database, Opened(), metrics=[metric], make=lambda wanted: make_scorer(wanted, Path(), ask=ask))
    assert (found.grids["helpfulness"].status == UNSCORED).all()


async def test_progress_ends_with_everything_done(database: Database) -> None:
    seen: list[Progress] = []
    await run(database, Opened(), progress=seen.append)
    assert (seen[-1].done, seen[-1].total, seen[-1].cost_nano) == (6, 6, 6_000_000)


async def test_a_trial_cut_by_a_shorter_timeout_is_run_again_with_a_longer_one_and_not_with_the_same(
    database: Database,
) -> None:
    async def slow(case: Case, trial: int) -> RunResult:
        await asyncio.sleep(0.1)
        return await echo(case, trial)

    opened = Opened(slow)
    await run(database, opened, cases=CASES[:1], timeout=0.02)
    assert (await run(database, opened, cases=CASES[:1], timeout=0.02)).cached == 1
    again = await run(database, opened, cases=CASES[:1], timeout=5.0)
    assert (again.ran, again.failed) == (1, 0)
    assert (await run(database, opened, cases=CASES[:1], timeout=5.0)).failed == 0


async def test_a_rate_limited_trial_is_begun_again_and_none_is_lost(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockgate.evals.running import pace

    monkeypatch.setattr(pace, "BACKOFF", 0.001)
    refused = set()

    async def busy(case: Case, trial: int) -> RunResult:
        if case.id not in refused:
            refused.add(case.id)
            return RunResult(status="failed", error_type="rate_limited", error="429")
        return await echo(case, trial)

    found = await run(database, Opened(busy))
    assert (found.ran, found.failed, found.total) == (6, 0, 6)


async def test_what_a_rate_limited_trial_paid_for_is_not_paid_for_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lockgate.evals.running import pace
    from lockgate.evals.running.meter import METER

    monkeypatch.setattr(pace, "BACKOFF", 0.001)
    paid = []

    async def busy(case: Case, trial: int) -> RunResult:
        meter = METER.get()
        assert meter is not None
        if meter.replay("question") is not None:
            return await echo(case, trial)
        paid.append(case.id)
        meter.keep("question", {"answer": 1})
        async with asyncio.timeout(60):
            while meter.fresh:  # until it is in the database  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        return RunResult(status="failed", error_type="rate_limited", error="429")

    found = await run(database, Opened(busy))
    assert (found.ran, found.failed, sorted(paid)) == (6, 0, [case.id for case in CASES])


async def test_a_connection_lost_while_another_trial_kept_the_loop_to_itself_is_made_again(database: Database) -> None:
    connecting, held, lost = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def subject(case: Case, trial: int) -> RunResult:
        if case.id == CASES[0].id:
            await connecting.wait()
            time.sleep(1.7)  # noqa: ASYNC251 - computes, and awaits nothing
            held.set()
        elif not lost.is_set() and case.id == CASES[1].id:
            connecting.set()
            await held.wait()
            lost.set()
            return RunResult(status="failed", error_type="model_unavailable", error="no connection within 5 s")
        return RunResult(status="completed", output=case.expected_output)

    outcome = await run(database, Opened(subject), cases=CASES[:2])
    assert (outcome.ran, dict(outcome.failures)) == (2, {})
