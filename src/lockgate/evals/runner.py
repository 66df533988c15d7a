"""Runs trials: every one ends, every result is kept, nothing is run twice.

Results are scored as they come, stored in batches off the hot path, and dropped: memory holds numbers only. What is
stored is found again under (version, case, trial), so a crash resumes where it was and a grown golden set runs only its
new cases.

While the first answers are waited for there is nothing to do, and after the last calls nothing to hold up: what comes
after the trials is imported then, numpy among it. Before the first call it would hold that up, in between those that
follow, and after the last answer the verdict.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from importlib import import_module
from typing import Any

import msgspec

from lockgate import clock as clocks
from lockgate.errors import LockgateError
from lockgate.evals.grid import ERROR, SCORED, SKIPPED, UNSCORED
from lockgate.evals.model import Case, Status, Subject, score_key
from lockgate.evals.running.meter import METER, Caps, Meter, Spend
from lockgate.evals.running.outcome import NOT_THE_AGENT, Cells, Outcome, Progress, Tally, Trouble
from lockgate.evals.running.pace import Pace
from lockgate.evals.running.place import Attempt, Place
from lockgate.evals.running.saving import Saving
from lockgate.evals.running.scoring import Scoring, score_trial
from lockgate.evals.running.watchdog import SLACK, Watchdog
from lockgate.evals.scorers import SCORERS, Sample
from lockgate.evals.simulation.model import trial_key
from lockgate.evals.store import CHUNK, CallRecord, TrialRecord, TrialStore
from lockgate.money import show_usd
from lockgate.results import RunResult

TRIES = 8
"""Times a trial is begun anew because of a provider's rate limit or another trial, before it is left for another
evaluation."""
STALLED = 0.5
"""Seconds that the event loop must have stood still before what a trial met is put down to that."""
CALLS_SECONDS = 0.005
"""In which the call of a trial that has just begun has left."""
ANSWER_SECONDS = 0.001
"""In which an answer that has come ends its trial."""

_CODES: dict[Status, int] = {"scored": SCORED, "skipped": SKIPPED, "unscored": UNSCORED, "error": ERROR}


async def run_trials(
    open_subject: Callable[[], AbstractAsyncContextManager[Subject]],
    cases: Sequence[Case],
    trials: int,
    scorings: Sequence[Scoring],
    *,
    concurrency: int,
    timeout: float,
    store: TrialStore,
    spend: Spend | None = None,
    caps: Caps | None = None,
    progress: Callable[[Progress], None] | None = None,
    clock: clocks.Clock = clocks.system,
) -> Outcome:
    """Run each case ``trials`` times and score it with every metric: :class:`Trials`, all at once."""
    whole = Trials(
        cases,
        scorings,
        concurrency=concurrency,
        timeout=timeout,
        store=store,
        spend=spend,
        caps=caps,
        progress=progress,
        clock=clock,
    )
    return await whole.run(open_subject, range(len(cases)), trials)


async def _report(work: Trials, progress: Callable[[Progress], None]) -> None:
    while True:
        progress(work.progress())
        await asyncio.sleep(0.2)


class Trials:
    """The trials of one version, which may be run part by part."""

    def __init__(
        self,
        cases: Sequence[Case],
        scorings: Sequence[Scoring],
        *,
        concurrency: int,
        timeout: float,
        store: TrialStore,
        spend: Spend | None = None,
        caps: Caps | None = None,
        progress: Callable[[Progress], None] | None = None,
        clock: clocks.Clock = clocks.system,
        most: int = 0,
        needed_after: Sequence[str] = (),
    ) -> None:
        """``most``: trials that may be run in all, for showing how far this is; ``needed_after``: modules that are
        imported while calls are under way."""
        self.cases = cases
        self.most = most
        self.scorings = scorings
        self.store = store
        self.timeout = timeout
        self.spend = spend or Spend()
        self.caps = caps
        self.pace = Pace(concurrency)
        self.concurrency = concurrency
        self.watch = progress
        self.under_way: dict[tuple[int, int], Meter] = {}
        self.kept_calls: dict[tuple[str, int], dict[str, list[Any]]] = {}
        self.tries: Counter[tuple[int, int]] = Counter()
        self.clock = clock
        self.digests: list[str] = []
        self.expectations: list[str] = []
        for case in cases:
            self.digests.append(trial_key(case))
            self.expectations.append(case.expectation_digest)
        self.started = time.monotonic()
        self.pending: deque[int] = deque()  # row + trial × cases: a number is a quarter of a pair
        self.tally = Tally()
        self.cells = {scoring.metric.name: Cells(len(cases)) for scoring in scorings}
        self.costs, self.seconds = Cells(len(cases)), Cells(len(cases))
        self.ended: list[bytearray] = []  # by trial, then row
        self.needed_after = needed_after
        self.all_begun = asyncio.Event()
        self.asks = any(SCORERS[scoring.metric.scorer].runs != "inline" for scoring in scorings)

    async def run(
        self, open_subject: Callable[[], AbstractAsyncContextManager[Subject]], rows: Sequence[int], trials: int
    ) -> Outcome:
        """Run the cases of these ``rows`` (those of before among them) up to ``trials`` times each.

        ``open_subject`` is only entered when something is left to run. A trial that takes longer than ``timeout``
        seconds, or raises, is a failed trial; one that met a failing provider is missing, and counted in ``failures``.
        So is one that ``caps`` (what a trial may use) cut short. Fewer than ``concurrency`` run while a provider limits
        its rate. Raises :class:`Unavailable` when results cannot be stored, :class:`InputError` when a case cannot be
        run at all.
        """
        self._widen(trials)
        tally = self.tally
        tally.total = len(rows) * trials
        for kind in NOT_THE_AGENT & set(tally.failures):
            del tally.failures[kind]  # these are tried again
        self.saving = Saving(self.store, self._paid_calls)
        reporter = asyncio.create_task(_report(self, self.watch)) if self.watch else None
        try:
            await asyncio.to_thread(self.store.recover)
            await self._take_stored(rows, trials)
            if self.pending:
                async with open_subject() as subject, Watchdog(self.timeout + SLACK) as self.watchdog:
                    await self._run_pending(subject)
            tally.stopped = tally.stopped or self.spend.refused > 0  # also where only a judge was not asked
        finally:
            self.saving.close()
            if reporter is not None:
                reporter.cancel()
            if self.watch is not None:
                self.watch(self.progress())
        return Outcome(
            **msgspec.structs.asdict(tally),
            grids={name: cells.grid() for name, cells in self.cells.items()},
            costs=self.costs.grid().values,
            seconds=self.seconds.grid().values,
        )

    def _widen(self, trials: int) -> None:
        while len(self.ended) < trials:
            self.ended.append(bytearray(len(self.cases)))
        for cells in (self.costs, self.seconds, *self.cells.values()):
            cells.widen(trials)

    def progress(self) -> Progress:
        tally = self.tally
        return Progress(
            done=tally.cached + tally.ran,
            total=max(self.most, tally.total),
            cached=tally.cached,
            failed=tally.failed,
            cost_nano=self.spend.total,
            seconds=time.monotonic() - self.started,
        )

    async def _take_stored(self, rows: Sequence[int], trials: int) -> None:
        """Score what an earlier evaluation ran; what it did not is pending, the first trial of every case first."""
        METER.set(Meter(self.spend, self.pace))  # what judges ask about stored trials is held against the money too
        slow = [scoring for scoring in self.scorings if SCORERS[scoring.metric.scorer].runs != "inline"]
        missing: list[int] = []
        stale: list[tuple[str, int]] = []
        new = [row for row in rows if not all(ended[row] for ended in self.ended[:trials])]
        any_stored = await asyncio.to_thread(self.store.any)
        if any_stored and self.asks:
            self.kept_calls = await asyncio.to_thread(self.store.calls)
        for start in range(0, len(new), CHUNK):
            some = new[start : start + CHUNK]
            digests = [self.digests[row] for row in some]
            results = await asyncio.to_thread(self.store.results, digests) if any_stored else {}
            wanted = {score_key(scoring.digest, self.expectations[row]) for scoring in slow for row in some}
            known = await asyncio.to_thread(self.store.scores, digests, wanted) if slow and results else {}
            found: deque[tuple[int, int, RunResult]] = deque()
            for row in some:
                for trial in range(trials):
                    if self.ended[trial][row]:
                        continue
                    result = results.get((self.digests[row], trial))
                    if result is None or self._cut_by_other_caps(result):
                        if result is not None:
                            stale.append((self.digests[row], trial))
                        missing.append(row + trial * len(self.cases))
                        continue
                    found.append((row, trial, result))
            await self._score_stored(found, known)
            await self.saving.save()
        if stale:
            await asyncio.to_thread(self.store.forget_trials, stale)
        missing.sort()
        self.pending = deque(missing)

    async def _score_stored(
        self,
        found: deque[tuple[int, int, RunResult]],
        known: dict[tuple[str, int, str], tuple[float | None, str, str]],
    ) -> None:
        """As many at a time as trials run, and stored as they come: a judge may have to be asked about each."""

        async def work() -> None:
            while found:
                await self.pace.start()
                try:
                    if found:
                        row, trial, result = found.popleft()
                        self.tally.cached += 1
                        if self.asks:
                            METER.set(self._meter(row, trial))
                        await self._take(row, trial, result, known)
                        self.under_way.pop((row, trial), None)
                finally:
                    self.pace.end()

        if not self.asks:
            await work()
            return
        try:
            async with asyncio.TaskGroup() as group:
                saver = group.create_task(self.saving.go_on())
                await asyncio.wait(
                    [group.create_task(work()) for _ in range(max(1, min(self.concurrency, len(found))))]
                )
                saver.cancel()
        except* LockgateError as failures:
            raise failures.exceptions[0] from None

    def _cut_by_other_caps(self, result: RunResult) -> bool:
        """Whether an earlier evaluation cut the trial short at another cap than this one's: it says nothing here."""
        said = result.error or ""
        match result.error_type:
            case "trial_timeout":
                return said != f"no answer in {self.timeout:g} s"
            case "trial_cost":
                return self.caps is None or self.caps.nano is None or f"of {show_usd(self.caps.nano)}" not in said
            case "trial_tokens":
                return self.caps is None or f"tokens of {self.caps.tokens}" not in said
        return False

    async def _run_pending(self, subject: Subject) -> None:
        todo, self.pending = self.pending, deque()
        self.kept_calls = await asyncio.to_thread(self.store.calls)
        try:
            async with asyncio.TaskGroup() as group:
                saver = group.create_task(self.saving.go_on())
                places = []
                for _ in range(min(self.concurrency, len(todo))):
                    places.append(group.create_task(self._place(subject, todo)))
                    await asyncio.sleep(0)  # the first calls leave while the others are made ready
                importing = group.create_task(self._import_what_follows())
                await asyncio.wait(places)
                saver.cancel()
                importing.cancel()
        except* LockgateError as failures:
            raise failures.exceptions[0] from None

    async def _import_what_follows(self) -> None:
        names, self.needed_after = deque(self.needed_after), ()
        await asyncio.sleep(CALLS_SECONDS)
        while names and not self.tally.ran:
            import_module(names.popleft())
            await asyncio.sleep(ANSWER_SECONDS)
        await self.all_begun.wait()
        await asyncio.sleep(CALLS_SECONDS)
        for name in names:
            import_module(name)
            await asyncio.sleep(ANSWER_SECONDS)

    async def _place(self, subject: Subject, todo: deque[int]) -> None:
        place = Place(
            subject,
            timeout=self.timeout,
            begin=lambda: self._begin(todo),
            end=lambda attempt, result: self._end(attempt, result, todo),
            stalled=self.watchdog.stalled,
        )
        try:
            await place.run()
        finally:
            self.tally.left_behind += place.left_behind

    async def _begin(self, todo: deque[int]) -> Attempt | None:
        """The next trial, when it may start; None when there is none, or none may."""
        if not todo:
            return None
        await self.saving.room.wait()
        await self.pace.start()
        if self.spend.reached:
            self.tally.stopped = True
        elif self.pace.hopeless:
            self.tally.failures["rate_limited"] += len(todo)
            todo.clear()
        if self.spend.reached or not todo:
            self.pace.end()
            return None
        trial, row = divmod(todo.popleft(), len(self.cases))
        if not todo:
            self.all_begun.set()
        meter = self._meter(row, trial)
        METER.set(meter)
        return Attempt(row, trial, self.cases[row], meter, stalled=self.watchdog.stalled())

    def _meter(self, row: int, trial: int) -> Meter:
        """The meter of a trial that is run or scored now. It knows what an earlier attempt paid for."""
        digest = self.digests[row]
        meter = Meter(self.spend, self.pace, self.caps)
        meter.recorded = self.kept_calls.pop((digest, trial), {})
        meter.note = lambda *call: self.store.note(CallRecord(digest, trial, *call))
        self.under_way[row, trial] = meter
        return meter

    async def _end(self, attempt: Attempt, result: RunResult, todo: deque[int]) -> None:
        """Take the result, or put the trial back when a provider would not have it now."""
        row, trial, meter = attempt.row, attempt.trial, attempt.meter
        if not self.asks:
            del self.under_way[row, trial]
        spent = meter.close()
        self.spend.nano += max(spent, result.cost_nano - meter.replayed_nano)
        limited = result.error_type == "rate_limited"
        if limited and not meter.refused:
            self.pace.limited(None, sent_at=attempt.began)
        # connections under way ran out of time while another trial kept the event loop to itself
        cut_off = result.error_type == "model_unavailable" and self.watchdog.stalled() - attempt.stalled > STALLED
        if (limited or cut_off) and self.tries[row, trial] + 1 < TRIES and not self.pace.hopeless:
            self.tries[row, trial] += 1
            if meter.recorded:
                self.kept_calls[self.digests[row], trial] = meter.recorded
            self.under_way.pop((row, trial), None)
            todo.append(row + trial * len(self.cases))
        else:
            if result.error_type == "budget_exceeded" and self.spend.reached:
                self.tally.stopped = True
            if not limited:
                self.pace.succeeded()
            self.tally.ran += 1
            await self._take(row, trial, result)
            self.under_way.pop((row, trial), None)  # until here, what a judge was paid for
        self.pace.end()

    async def _take(
        self,
        row: int,
        trial: int,
        result: RunResult,
        known: dict[tuple[str, int, str], tuple[float | None, str, str]] | None = None,
    ) -> None:
        """Score a result, note it in the grids, and put it where it will be saved.

        ``known`` has the scores of a stored one.
        """
        case, stored = self.cases[row], known is not None
        sample = Sample(case, case.input, result)
        failed = result.status not in ("completed", "suspended")
        self.tally.cost_nano += result.cost_nano
        if failed:
            kind = result.error_type or "failed"
            self.tally.failures[kind] += 1
            self.tally.errors.setdefault(kind, result.error or "")
        if failed and result.error_type in NOT_THE_AGENT:
            return  # neither kept nor scored: missing
        self.ended[trial][row] = True
        self.costs.values[trial][row], self.seconds.values[trial][row] = result.cost_nano / 1e9, result.seconds
        if not stored and self.asks:  # paid for: kept even if a judge, or the process, fails before it is scored
            self.saving.keep(TrialRecord(self.digests[row], case.id, trial, result, self.clock(), [], scored=False))
            stored = True
        rows: list[tuple[str, float | None, str, str]] = []
        for scoring in self.scorings:
            digest = score_key(scoring.digest, self.expectations[row])
            found = known.get((self.digests[row], trial, digest)) if known else None
            if found is not None:
                value, status, reason = found
                code = _CODES[status]  # type: ignore[index]
            else:
                score = await score_trial(scoring, sample, failed=failed, timeout=self.timeout)
                value, reason, code, status = score.value, score.reason, _CODES[score.status], score.status
                if status != "unscored":  # a judge that gave no usable answer is asked again next time
                    rows.append((digest, value, status, reason))
            if not failed and status in ("error", "unscored"):
                trouble = self.tally.troubles.setdefault((scoring.metric.name, status), Trouble(reason=reason))
                trouble.count += 1
            cells = self.cells[scoring.metric.name]
            cells.status[trial][row] = code
            if value is not None:
                cells.values[trial][row] = value
        kept = None if stored else result
        self.saving.keep(TrialRecord(self.digests[row], case.id, trial, kept, self.clock(), rows))

    def _paid_calls(self) -> list[CallRecord]:
        """What trials under way have paid for since the last save: an attempt cut off goes on from there."""
        found = []
        for (row, trial), meter in self.under_way.items():
            fresh, meter.fresh = meter.fresh, []
            found += [CallRecord(self.digests[row], trial, key, number, answer) for key, number, answer in fresh]
        return found
