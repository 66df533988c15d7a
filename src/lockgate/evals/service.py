"""Evaluations: run what is missing, decide, keep what was found.

What takes numpy is imported where it is used, after the first call: see :mod:`lockgate.evals.runner`.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import msgspec

from lockgate.clock import Clock
from lockgate.errors import NotFound, Unavailable
from lockgate.evals import golden, store
from lockgate.evals.grid import Grid
from lockgate.evals.inputs import check_inputs
from lockgate.evals.looking import Run, kept_open, planned, until_settled, within_trials
from lockgate.evals.model import Case, MutantCard, Rubric, Scorecard, SelfCheck, Subject
from lockgate.evals.remarks import (
    COULD_NOT,
    Calibrations,
    check_ran,
    check_strict,
    could_not,
    labels_of,
    no_judge,
    warnings_of,
    with_calibration,
)
from lockgate.evals.rubric import check_decides, needs_judge, with_field_metrics
from lockgate.evals.runner import Trials, run_trials
from lockgate.evals.running.meter import AskVectors, Caps, Spend, counted, counted_vectors
from lockgate.evals.running.outcome import Outcome, Progress
from lockgate.evals.running.scoring import Scoring, prepare
from lockgate.evals.scorers.judge import Ask
from lockgate.evals.scorers.making import embeds_by, make_scorer
from lockgate.evals.simulation.model import trial_key
from lockgate.evals.store import CHUNK, TrialStore
from lockgate.ids import new_id
from lockgate.money import to_nano
from lockgate.results import RunResult
from lockgate.storage.engine import Database

if TYPE_CHECKING:
    from lockgate.evals.embeddings import Embed
    from lockgate.evals.gate import Decision
    from lockgate.evals.selfcheck import Mutation


NEEDED_AFTER = (
    "lockgate.evals.gate",
    "lockgate.evals.operations",
    "lockgate.evals.tables",
    "numpy.ma",  # numpy's own quantiles and draws want these two
    "numpy.random",
)
"""What the verdict takes, beside what is imported above."""


class Contender(NamedTuple):
    """A version under test: what it is called, its digests, and how to make it ready (only if something is to run)."""

    agent: str
    label: str
    behaviour_digest: str
    effective_digest: str
    open: Callable[[], AbstractAsyncContextManager[Subject]]


class Mutant(NamedTuple):
    """A version made worse on purpose, for :meth:`Evals.self_check`."""

    name: str
    what: str
    open: Callable[[], AbstractAsyncContextManager[Subject]]


class GoldenSet(NamedTuple):
    """Cases and where they came from, for showing."""

    name: str
    cases: Sequence[Case]


Open = Callable[[], AbstractAsyncContextManager[Subject]]
OpenAsk = Callable[[], AbstractAsyncContextManager[Ask]]
OpenEmbeddings = Callable[[str, str], AskVectors]
"""Gives a provider's embeddings, by ``PROVIDER:MODEL`` and environment."""
Watch = Callable[[str, Progress], None]
"""Told how far the trials of one version (by its label) are."""


class Evals:
    """Runs evaluations and remembers them."""

    def __init__(
        self,
        control: Database,
        clock: Clock,
        *,
        open_embeddings: OpenEmbeddings | None = None,
        folder: Path | None = None,
    ) -> None:
        """``open_embeddings`` gives the embeddings of a provider's model, for metrics that name one; ``folder`` is
        where trials are kept safe from a kill until the database has them."""
        self._control = control
        self._clock = clock
        self._open_embeddings = open_embeddings
        self._folder = folder

    async def evaluate(
        self,
        candidate: Contender,
        rubric: Rubric,
        dataset: GoldenSet,
        *,
        root: Path,
        environment: str,
        baseline: Contender | None = None,
        open_judge: OpenAsk | None = None,
        model_override: str | None = None,
        fresh: bool = False,
        buy_trials: int | None = None,
        kind: Literal["quality", "safety", "fallback", "compare"] = "quality",
        watch: Watch | None = None,
        needed_after: Sequence[str] = (),
        notes: Sequence[str] = (),
    ) -> Scorecard:
        """Run the golden set on the candidate, and on the baseline what of it is missing there, and decide.

        An agent's own gate is looked at before all has run, and stops when the verdict is settled, unless the rubric
        asks for the whole. ``buy_trials``: while the verdict is inconclusive and trials can settle it, run more, up to
        so many a case. The looks are fixed beforehand, and share one level (:mod:`lockgate.evals.sequential`).
        ``fresh`` forgets the candidate's earlier trials first.
        ``notes`` are further warnings for the scorecard; ``needed_after`` names modules that the caller needs then, to
        be imported while answers are waited for.
        ``root`` is what paths in the rubric are from. Raises :class:`~lockgate.errors.InputError` when the rubric
        decides nothing, or a judge or what a metric is scored from is missing, :class:`~lockgate.errors.Unavailable`
        when too little could be run, or the judge of a strict blocking metric is not calibrated.
        """
        check_decides(rubric)
        buys = within_trials(rubric, len(dataset.cases), buy_trials)
        check_inputs(rubric, dataset.cases, lambda metric: make_scorer(metric, root))
        judged = needs_judge(rubric, dataset.cases)
        if judged and open_judge is None:
            raise no_judge(judged)
        calibrations = self._calibrations(rubric, judged, candidate.agent)
        check_strict(rubric, calibrations)
        if buys != buy_trials:
            notes = [*notes, f"evals.max_trials lets {buys} trials a case be bought, not {buy_trials}"]
        card_id, started = new_id("eval"), self._clock()
        effective = _kept_under(candidate, model_override)
        row: dict[str, Any] = {
            "id": card_id,
            "agent": candidate.agent,
            "kind": kind,
            "behaviour_digest": candidate.behaviour_digest,
            "effective_digest": effective,
            "baseline_effective": baseline.effective_digest if baseline else None,
            "dataset_digest": golden.digest_of(dataset.cases),
            "rubric_digest": rubric.digest,
            "started_at": started,
        }
        in_thread = asyncio.get_running_loop().run_in_executor  # at once: what follows takes this one's time
        begun = [in_thread(None, store.start_evaluation, self._control, row)]
        full = with_field_metrics(rubric, dataset.cases)
        spend = Spend(limit=None if rubric.max_usd is None else to_nano(rubric.max_usd))
        async with AsyncExitStack() as stack:
            full, scorings = await self._scorings(stack, full, root, environment, open_judge, spend)

            async def trials_of(contender: Contender, effective: str) -> tuple[Trials, Open]:
                opened = await stack.enter_async_context(kept_open(contender.open))
                trials = Trials(
                    dataset.cases,
                    scorings,
                    concurrency=rubric.concurrency,
                    timeout=rubric.timeout,
                    store=TrialStore(self._control, effective, self._folder),
                    spend=spend,
                    caps=_caps(rubric),
                    progress=None if watch is None else lambda progress: watch(contender.label, progress),
                    clock=self._clock,
                    most=len(dataset.cases) * rubric.trials,
                    needed_after=(*NEEDED_AFTER, *needed_after),
                )
                return trials, opened

            known = golden.outlines(dataset.cases)
            trials, opened = await trials_of(candidate, effective)
            if fresh:
                begun.append(in_thread(None, trials.store.forget, trials.digests))
            async with opened() if fresh else nullcontext():  # meanwhile: it will be wanted
                await asyncio.gather(*begun)
            others: Run | None = None
            if baseline is not None:
                others = partial(Trials.run, *await trials_of(baseline, baseline.effective_digest))
            seen = await until_settled(
                full,
                known,
                planned(full, known, buys, early=kind == "quality" and not rubric.whole),
                partial(trials.run, opened),
                others,
                labels=labels_of(calibrations, candidate.agent),
                check=check_ran,
            )
        from lockgate.evals.operations import costs_by_tag, mean_cost, quantiles
        from lockgate.evals.tables import CaseTable, key_of, pack

        decision, outcome, other, cases = seen.decision, seen.candidate, seen.baseline, known
        if len(seen.rows) < len(cases):
            cases = [cases[row] for row in seen.rows]
        keys = [key_of(trials.digests[row]) for row in seen.rows]
        table = CaseTable(keys, cases, outcome.grids, outcome.costs, outcome.seconds)
        card = Scorecard(
            **row,
            label=candidate.label,
            environment=environment,
            dataset=dataset.name,
            cases=len(cases),
            dataset_cases=len(dataset.cases),
            trials=seen.stage.trials,
            clusters=len({case.cluster or f"\0{case.id}" for case in cases}),
            level=seen.stage.level.bound,
            looks=seen.looks,
            settled_early=seen.stage.early and decision.verdict != "inconclusive",
            bought_trials=max(0, seen.stage.trials - rubric.trials) * len(cases),
            flaky_cases=decision.flaky_cases,
            latency=quantiles(outcome.seconds),
            baseline_latency=None if other is None else quantiles(other.seconds),
            run_usd=mean_cost(outcome),
            baseline_run_usd=mean_cost(other),
            costs=costs_by_tag(cases, outcome, other),
            verdict=decision.verdict,
            reasons=decision.reasons,
            metrics=[with_calibration(metric, calibrations) for metric in decision.metrics],
            baseline_label=baseline.label if baseline else None,
            slices=decision.slices,
            broken=decision.broken,
            fixed=decision.fixed,
            flaky=decision.flaky,
            failures=dict(outcome.failures),
            failed_trials=outcome.failed,
            cached_trials=outcome.cached,
            cost_nano=outcome.cost_nano,
            spent_nano=spend.nano,
            seconds=self._clock() - started,
            judge=rubric.judge.shown if judged and rubric.judge else None,
            judge_calibrated=bool(judged) and all(found is not None and found.good for found in calibrations.values()),
            model_override=model_override,
            warnings=[
                *notes,
                *warnings_of(
                    rubric, known if kind in ("quality", "compare") else (), outcome, other, calibrations, spend
                ),
            ],
            left_behind=outcome.left_behind + (other.left_behind if other else 0),
            scorer_digests={scoring.metric.name: scoring.digest for scoring in scorings},
        )
        store.finish_evaluation(self._control, card, ended_at=self._clock(), table=pack(table))
        return card

    async def self_check(
        self,
        candidate: Contender,
        rubric: Rubric,
        dataset: GoldenSet,
        *,
        root: Path,
        environment: str = "prod",
        mutants: Sequence[Mutant] = (),
        open_judge: OpenAsk | None = None,
        watch: Watch | None = None,
    ) -> SelfCheck:
        """How often the gate blocks the version held against itself, and which of the ``mutants`` it catches.

        Mutants of answers are made of the version's own trials and cost nothing but the judge; ``mutants`` are versions
        made worse on purpose, and run. Trials are kept, so that a second check runs none.
        """
        from lockgate.evals.gate import decide
        from lockgate.evals.selfcheck import MUTATIONS, false_blocks

        twice = msgspec.structs.replace(rubric, trials=max(2, rubric.trials))
        full = with_field_metrics(twice, dataset.cases)
        spend = Spend(limit=None if rubric.max_usd is None else to_nano(rubric.max_usd))
        own = TrialStore(self._control, candidate.effective_digest)
        digests = [trial_key(case, root) for case in dataset.cases]
        async with AsyncExitStack() as stack:
            full, scorings = await self._scorings(stack, full, root, environment, open_judge, spend)

            async def run(label: str, store: TrialStore, trials: int, opened: Any) -> Outcome:
                return await run_trials(
                    opened,
                    dataset.cases,
                    trials,
                    scorings,
                    concurrency=rubric.concurrency,
                    timeout=rubric.timeout,
                    store=store,
                    spend=spend,
                    caps=_caps(rubric),
                    progress=None if watch is None else lambda progress: watch(label, progress),
                    clock=self._clock,
                )

            healthy = await run(candidate.label, own, twice.trials, candidate.open)
            if healthy.not_the_agent >= COULD_NOT * healthy.total:
                raise could_not(healthy)
            if healthy.stopped:
                raise Unavailable("max_usd was reached before each case had two trials", remedy="raise max_usd")
            check = false_blocks(full, dataset.cases, healthy.grids)
            found: list[MutantCard] = []
            skipped: list[str] = []
            results = {
                key: result
                for start in range(0, len(digests), CHUNK)
                for key, result in own.results(digests[start : start + CHUNK]).items()
            }
            for mutation in MUTATIONS:
                if mutation.name == "tools not called" and not any(one.tools_used for one in results.values()):
                    skipped.append(f"{mutation.name}: the agent calls none")
                    continue
                subject = _mutated(mutation, dataset.cases, digests, results)
                store = TrialStore(self._control, _kept_under(candidate, f"self-check: {mutation.name}"))
                store.forget(digests)  # made of the version's own trials as they are now
                outcome = await run(mutation.name, store, twice.trials, lambda subject=subject: ready(subject))
                decision = decide(full, dataset.cases, outcome.grids, healthy.grids)
                found.append(_mutant_card(mutation.name, mutation.what, decision, 0))
            for mutant in mutants:
                store = TrialStore(self._control, _kept_under(candidate, f"self-check: {mutant.name}: {mutant.what}"))
                outcome = await run(mutant.name, store, rubric.trials, mutant.open)
                if outcome.stopped or outcome.not_the_agent:
                    skipped.append(f"{mutant.name}: not all of its trials could be run")
                    continue
                before = {
                    name: Grid(grid.values[:, : rubric.trials], grid.status[:, : rubric.trials])
                    for name, grid in healthy.grids.items()
                }
                decision = decide(full, dataset.cases, outcome.grids, before)
                found.append(_mutant_card(mutant.name, mutant.what, decision, outcome.ran))
        return msgspec.structs.replace(check, mutants=found, not_tried=skipped)

    async def _scorings(
        self,
        stack: AsyncExitStack,
        rubric: Rubric,
        root: Path,
        environment: str,
        open_judge: OpenAsk | None,
        spend: Spend,
    ) -> tuple[Rubric, list[Scoring]]:
        """The rubric's metrics, ready to score: other tools, the judge and providers of embeddings are opened."""
        rubric = await _with_peers(stack, rubric, root)
        ask = None
        if needs_judge(rubric) and open_judge is not None:
            ask = counted(await stack.enter_async_context(open_judge()), spend)
        embeds: dict[str, Embed] = {}
        for named in filter(None, map(embeds_by, rubric.metrics)):
            if self._open_embeddings is not None and named not in embeds:
                embeds[named] = counted_vectors(self._open_embeddings(named, environment), spend)
        embed = embeds.__getitem__ if embeds else None
        return rubric, prepare(
            rubric, lambda metric: make_scorer(metric, root, ask=ask, judge=rubric.judge, embed=embed)
        )

    def _calibrations(self, rubric: Rubric, judged: Sequence[str], agent: str) -> Calibrations:
        if not judged:
            return {}
        from lockgate.evals.judges.service import Judges

        known = Judges(self._control, self._clock)
        return {
            metric.name: None if rubric.judge is None else known.calibration(rubric.judge, metric, agent)
            for metric in rubric.metrics
            if metric.name in judged
        }

    def compare_runs(self, before: str, after: str) -> Scorecard:
        """Two stored evaluations, by id: the second held against the first. Nothing is run or stored."""
        return self.compare_cards(self.get(before), self.get(after))

    def compare_cards(self, before: Scorecard, after: Scorecard) -> Scorecard:
        """Two scorecards: paired where what both saw is stored here, else by their means alone."""
        from lockgate.evals.comparing import compare_cards, compare_tables, paired
        from lockgate.evals.tables import unpack

        given = {"id": new_id("comparison"), "started_at": self._clock()}
        packed = [store.table_of(self._control, card.id) for card in (before, after)]
        if packed[0] is None or packed[1] is None:
            return compare_cards(before, after, **given)
        return compare_tables(before, after, paired(unpack(packed[0], cases=False), unpack(packed[1])), **given)

    def whole_run(self, effective_digest: str, cases: Sequence[Case], rubric: Rubric) -> Scorecard | None:
        """The newest stored evaluation in which the version ran all of these cases, as often as this rubric asks, and
        was scored by it."""
        for id in store.whole_evaluations(self._control, effective_digest, golden.digest_of(cases)):
            card = self.get(id)
            whole = card.cases == card.dataset_cases and not any(one.missing for one in card.metrics)
            if whole and card.rubric_digest == rubric.digest and card.trials == rubric.trials:
                return card
        return None

    def keep_self_check(self, card: Scorecard, check: SelfCheck) -> Scorecard:
        """The scorecard with what the gate found of itself, kept in the place of the first."""
        whole = msgspec.structs.replace(card, self_check=check)
        store.finish_evaluation(self._control, whole, ended_at=self._clock())
        return whole

    def last(self, effective_digest: str | None = None, *, agent: str | None = None) -> Scorecard | None:
        """The newest finished evaluation: of a version, of an agent, or of all."""
        found = store.last_scorecard(self._control, effective_digest=effective_digest, agent=agent)
        return None if found is None else msgspec.convert(found, Scorecard)

    def last_of_each_agent(self) -> list[Scorecard]:
        """The newest finished evaluation of every agent, by name."""
        agents = store.evaluated_agents(self._control)
        cards = (self.last(agent=agent) for agent in agents)
        return [card for card in cards if card is not None]

    def get(self, id: str) -> Scorecard:
        """One evaluation by its id."""
        found = store.scorecard_by_id(self._control, id)
        if found is None:
            raise NotFound(f"no finished evaluation {id!r}", remedy="lockgate eval")
        return msgspec.convert(found, Scorecard)


async def _with_peers(stack: AsyncExitStack, rubric: Rubric, root: Path) -> Rubric:
    """Other tools' metrics are made ready, and know their package's version."""
    if not any(":" in metric.scorer for metric in rubric.metrics):
        return rubric
    from lockgate.evals import peers

    versions = await stack.enter_async_context(peers.running(rubric.metrics, root))
    return msgspec.structs.replace(rubric, metrics=peers.versioned(rubric.metrics, versions)) if versions else rubric


def _mutated(
    mutation: Mutation, cases: Sequence[Case], digests: list[str], results: dict[tuple[str, int], RunResult]
) -> Subject:
    place = {case.id: row for row, case in enumerate(cases)}
    missing = RunResult(status="failed", error_type="no_answer", error="the version itself has no such trial")

    async def subject(case: Case, trial: int) -> RunResult:
        row = place[case.id]
        mine = results.get((digests[row], trial), missing)
        other = results.get((digests[(row + 1) % len(digests)], trial), missing)
        return msgspec.structs.replace(mutation.change(mine, other), cost_nano=0)

    return subject


def _mutant_card(name: str, what: str, decision: Decision, ran: int) -> MutantCard:
    reason = decision.reasons[0] if decision.reasons else ""
    return MutantCard(name=name, what=what, verdict=decision.verdict, reason=reason, trials_run=ran)


def _kept_under(candidate: Contender, model_override: str | None) -> str:
    """Trials on another model are kept apart: they say nothing of the version's own."""
    if model_override is None:
        return candidate.effective_digest
    return "sha256:" + hashlib.sha256(f"{candidate.effective_digest} {model_override}".encode()).hexdigest()


def _caps(rubric: Rubric) -> Caps:
    usd = rubric.trial_max_usd
    return Caps(nano=None if usd is None else to_nano(usd), tokens=rubric.trial_max_tokens)


@asynccontextmanager
async def ready(subject: Subject) -> AsyncIterator[Subject]:
    """A subject that needs no making ready, for :class:`Contender`."""
    yield subject
