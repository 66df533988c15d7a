"""Runs both sides on the same cases, and asks the judge about each pair of answers in both orders."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from random import Random

import msgspec
import numpy as np

from lockgate.clock import Clock
from lockgate.errors import LockgateError, Unavailable
from lockgate.evals.ab.outcome import AbCard, Preferred, Side, summary, tally
from lockgate.evals.judges.pairwise import prefer
from lockgate.evals.model import Case, Rubric
from lockgate.evals.operations import quantiles
from lockgate.evals.runner import run_trials
from lockgate.evals.running.meter import METER, Meter, Spend, counted
from lockgate.evals.running.outcome import Outcome, Progress
from lockgate.evals.running.pace import Pace
from lockgate.evals.scorers.judge import Ask
from lockgate.evals.scorers.sample import as_text, input_text
from lockgate.evals.service import Contender, GoldenSet, OpenAsk
from lockgate.evals.store import CHUNK, TrialRecord, TrialStore
from lockgate.money import show_usd, to_nano
from lockgate.results import RunResult
from lockgate.storage.engine import Database

QUESTION = "Which answer serves better the person who wrote the input? Length alone is no merit."
AT_ONCE = 8
"""Pairs that the judge is asked about at a time."""
COULD_NOT = 0.5
"""From this share of pairs without a usable verdict on, nothing is said."""

BY_POSITION = "the verdict changed with the order"
Watch = Callable[[str, Progress], None]


async def run_ab(
    control: Database,
    clock: Clock,
    a: Contender,
    b: Contender,
    rubric: Rubric,
    dataset: GoldenSet,
    open_judge: OpenAsk,
    *,
    question: str = QUESTION,
    seed: str = "",
    watch: Watch | None = None,
) -> AbCard:
    """Run what is missing of both sides, and have the judge say of each pair which answer it prefers.

    Which side stands first in the first question is drawn by ``seed``; the second question turns them round, and a
    verdict that follows the order is a tie. A trial that failed loses against one that did not, without being asked
    about. Verdicts are kept: the same pair is not paid for twice. Raises :class:`~lockgate.errors.Unavailable` when
    a limit or a failing provider left too little.
    """
    spend = Spend(limit=None if rubric.max_usd is None else to_nano(rubric.max_usd))
    outcomes: list[Outcome] = []
    for side in (a, b):
        outcomes.append(
            await run_trials(
                side.open,
                dataset.cases,
                rubric.trials,
                [],
                concurrency=rubric.concurrency,
                timeout=rubric.timeout,
                store=TrialStore(control, side.effective_digest),
                spend=spend,
                progress=None if watch is None else lambda progress, side=side: watch(side.label, progress),  # type: ignore[misc]
                clock=clock,
            )
        )
        _check_ran(side, outcomes[-1])
    answers = [_results(control, side, dataset.cases) for side in (a, b)]
    verdicts = TrialStore(control, b.effective_digest)
    kept_under = _kept_under(a, rubric, question)
    digests = [case.digest for case in dataset.cases]
    known = {
        key[:2]: value
        for start in range(0, len(digests), CHUNK)
        for key, value in verdicts.scores(digests[start : start + CHUNK], [kept_under]).items()
    }
    random = Random(f"ab {seed}")  # noqa: S311 - an order that can be repeated
    pairs = [(case, trial, random.random() < 0.5) for case in dataset.cases for trial in range(rubric.trials)]
    async with AsyncExitStack() as stack:
        ask: Ask | None = None
        if any(_needs_judge(answers, case, trial) and (case.digest, trial) not in known for case, trial, _ in pairs):
            ask = counted(await stack.enter_async_context(open_judge()), spend)
        turn, pace = asyncio.Semaphore(AT_ONCE), Pace(AT_ONCE)

        async def judged(case: Case, trial: int, b_first: bool) -> Preferred:
            left, right = (answers[side].get((case.digest, trial)) for side in (0, 1))
            if left is None or right is None or not _both_done(left, right):
                return _by_outcome(case, trial, left, right)
            stored = known.get((case.digest, trial))
            if stored is not None:
                return Preferred(
                    case_id=case.id, trial=trial, b=stored[0], reason=stored[2], by_position=stored[2] == BY_POSITION
                )
            assert ask is not None
            METER.set(Meter(spend, pace))
            texts = as_text(left.output), as_text(right.output)
            first, second = reversed(texts) if b_first else texts
            async with turn:
                try:
                    found = await prefer(ask, question, input_text(case.input), first, second)
                except (LockgateError, TimeoutError) as failure:
                    return Preferred(case_id=case.id, trial=trial, b=None, reason=str(failure))
            value = found.mark.value
            if value is None:
                return Preferred(case_id=case.id, trial=trial, b=None, reason=found.mark.reason)
            for_b = value if b_first else 1 - value
            reason = BY_POSITION if found.by_position else found.mark.reason
            score = (kept_under, for_b, "scored", reason)
            verdicts.save([TrialRecord(case.digest, case.id, trial, None, clock(), [score])])
            return Preferred(case_id=case.id, trial=trial, b=for_b, reason=reason, by_position=found.by_position)

        seen = list(await asyncio.gather(*(judged(*pair) for pair in pairs)))
    counts = tally(seen)
    _check_judged(seen, counts["unscored"], spend)
    mean, interval, winner = summary(dataset.cases, seen)
    return AbCard(
        agent=b.agent,
        question=question,
        dataset=dataset.name,
        cases=len(dataset.cases),
        pairs=len(seen),
        preference=mean,
        interval=interval,
        winner=winner,
        a=_side(a, outcomes[0], answers[0]),
        b=_side(b, outcomes[1], answers[1]),
        judge=rubric.judge.shown if rubric.judge else "",
        seed=seed,
        spent_nano=spend.nano,
        pairs_seen=seen,
        **counts,
    )


def _kept_under(a: Contender, rubric: Rubric, question: str) -> str:
    content = ["ab", a.effective_digest, msgspec.to_builtins(rubric.judge), question]
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def _results(control: Database, side: Contender, cases: Sequence[Case]) -> dict[tuple[str, int], RunResult]:
    store, digests = TrialStore(control, side.effective_digest), [case.digest for case in cases]
    return {
        key: result
        for start in range(0, len(digests), CHUNK)
        for key, result in store.results(digests[start : start + CHUNK]).items()
    }


def _both_done(left: RunResult, right: RunResult) -> bool:
    return left.status == "completed" and right.status == "completed"


def _needs_judge(answers: Sequence[dict[tuple[str, int], RunResult]], case: Case, trial: int) -> bool:
    left, right = (side.get((case.digest, trial)) for side in answers)
    return left is not None and right is not None and _both_done(left, right)


def _by_outcome(case: Case, trial: int, left: RunResult | None, right: RunResult | None) -> Preferred:
    """Of a pair in which not both answered: who did is better."""
    done = [one is not None and one.status == "completed" for one in (left, right)]
    if done[0] == done[1]:
        return Preferred(case_id=case.id, trial=trial, b=0.5, reason="neither answered")
    return Preferred(case_id=case.id, trial=trial, b=float(done[1]), reason=f"{'A' if done[1] else 'B'} failed")


def _side(side: Contender, outcome: Outcome, results: dict[tuple[str, int], RunResult]) -> Side:
    tokens = [result.usage.output_tokens for result in results.values()]
    return Side(
        label=side.label,
        trials=outcome.total,
        failed=outcome.failed,
        mean_cost_usd=outcome.cost_nano / 1e9 / max(1, outcome.total),
        mean_output_tokens=float(np.mean(tokens)) if tokens else 0.0,
        latency=quantiles(outcome.seconds),
    )


def _check_ran(side: Contender, outcome: Outcome) -> None:
    if outcome.stopped:
        raise Unavailable("max_usd was reached before both sides were run", remedy="raise --max-usd")
    if outcome.total and outcome.not_the_agent >= COULD_NOT * outcome.total:
        raise Unavailable(
            f"{outcome.not_the_agent} of {outcome.total} trials of {side.label} met a failing provider",
            remedy="is the model server up and its key right? Finished trials are kept",
        )


def _check_judged(seen: Sequence[Preferred], unscored: int, spend: Spend) -> None:
    if spend.refused:
        raise Unavailable(
            f"max_usd was reached with {unscored} of {len(seen)} pairs not judged ({show_usd(spend.nano)} spent)",
            remedy="raise --max-usd; verdicts are kept",
        )
    if seen and unscored >= COULD_NOT * len(seen):
        why = next((one.reason for one in seen if one.b is None), "")
        raise Unavailable(
            f"the judge gave no usable verdict on {unscored} of {len(seen)} pairs: {why}",
            remedy="another judge, or a question that it can answer",
        )
