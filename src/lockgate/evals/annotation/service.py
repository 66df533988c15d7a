"""The annotation queue: draws answers for people, takes their grades, and hands them on as labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import InputError, NotFound
from lockgate.evals.annotation import store
from lockgate.evals.annotation.model import Grade, Item, Queue, Shown, Source, shown_fields
from lockgate.evals.annotation.sampling import in_turn, kind_of, share_of, weights
from lockgate.evals.judges.agreement import between_people
from lockgate.evals.judges.labels import Label, answer_digest
from lockgate.evals.model import Case, Metric, score_key
from lockgate.evals.scorers.questions import question_of
from lockgate.evals.scorers.sample import Sample
from lockgate.evals.simulation.model import trial_key
from lockgate.ids import new_id
from lockgate.results import RunResult
from lockgate.storage.engine import Database

MOST_RUNS = 5000
"""Live runs, the newest first, that answers are drawn from."""


class Annotations:
    """The queue of one control database."""

    def __init__(self, control: Database, clock: Clock) -> None:
        self._control = control
        self._clock = clock

    def draw_trials(
        self,
        agent: str,
        metric: Metric,
        cases: Sequence[Case],
        scorer_digest: str,
        count: int,
        *,
        double: float = 0.2,
        seed: str = "",
        root: Path = Path(),
    ) -> list[Item]:
        """Queue up to ``count`` answers that stored trials of the agent's versions gave to these cases.

        They are drawn in turn from strata by what the judge said and the case's first tag; ``double`` is the share that
        two people are to grade. What is in the queue already is not drawn again.
        """
        by_digest = {trial_key(case, root): case for case in cases}
        strata: dict[str, list[Any]] = {}
        kept_under = {digest: score_key(scorer_digest, case.expectation_digest) for digest, case in by_digest.items()}
        for key, score in store.scored_trials(self._control, agent, kept_under):
            tags = by_digest[key[1]].tags
            strata.setdefault(", ".join([kind_of(score), *tags[:1]]), []).append(key)
        if not strata:
            raise InputError(f"no stored trials of {agent!r} on these cases", remedy="lockgate eval runs them")

        def load(key: Any) -> tuple[Case, RunResult]:
            return by_digest[key[1]], msgspec.convert(store.trial_result(self._control, key), RunResult)

        return self._queue(agent, metric, "trial", strata, load, count, double, seed)

    def draw_runs(
        self,
        agent: str,
        metric: Metric,
        environment: str,
        result_of: Callable[[str], RunResult],
        count: int,
        *,
        days: float = 30.0,
        double: float = 0.2,
        seed: str = "",
    ) -> list[Item]:
        """Queue up to ``count`` answers that the agent gave to users; strata are by its runs' lowest live score."""
        since = self._clock() - days * 86_400
        strata: dict[str, list[Any]] = {}
        for run_id, given, lowest in store.scored_runs(self._control, agent, environment, since, MOST_RUNS):
            strata.setdefault(kind_of(lowest), []).append((run_id, given))
        if not strata:
            raise InputError(
                f"no completed runs of {agent!r} in {environment!r} in the last {days:g} days",
                remedy="give another --env or --days, or draw from trials",
            )

        def load(row: Any) -> tuple[Case, RunResult]:
            run_id, given = row
            return Case(id=run_id, input=given, source_run=run_id), result_of(run_id)

        return self._queue(agent, metric, "run", strata, load, count, double, seed)

    def _queue(
        self,
        agent: str,
        metric: Metric,
        source: Source,
        strata: Mapping[str, Sequence[Any]],
        load: Callable[[Any], tuple[Case, RunResult]],
        count: int,
        double: float,
        seed: str,
    ) -> list[Item]:
        random = Random(f"{agent} {metric.name} {seed}")  # noqa: S311 - a draw that can be repeated
        known = {item.answer for item in store.listed(self._control, agent=agent, metric=metric.name)}
        drawn: list[tuple[str, str, Shown]] = []
        taken: Counter[str] = Counter()
        for stratum, key in in_turn(strata, random):
            if len(drawn) == count:
                break
            case, result = load(key)
            digest = answer_digest(case.input, result.output, shown_fields(case))
            if result.output is None or digest in known:
                continue
            known.add(digest)
            taken[stratum] += 1
            drawn.append((stratum, digest, Shown(case=case, result=result)))
        heavy = weights({name: len(members) for name, members in strata.items()}, taken)
        twice = share_of(drawn, double, random)
        now = self._clock()
        items = [
            Item(
                id=new_id("answer"),
                agent=agent,
                metric=metric.name,
                answer=digest,
                question=question_of(metric),
                sample=sample,
                source=source,
                stratum=stratum,
                weight=heavy[stratum],
                wanted=2 if place in twice else 1,
                created_at=now,
            )
            for place, (stratum, digest, sample) in enumerate(drawn)
        ]
        store.add_items(self._control, items)
        return items

    def waiting(self, annotator: str, *, agent: str | None = None, metric: str | None = None) -> list[Item]:
        """What this person has not graded and still needs a grade; answers another person has graded come last."""
        given = self._grades(agent, metric)
        found = []
        for item in store.listed(self._control, agent=agent, metric=metric):
            by = given.get(item.id, {})
            if annotator not in by and len(by) < item.wanted:
                found.append((len(by), item))
        return [item for _, item in sorted(found, key=lambda pair: pair[0])]

    def get(self, id: str) -> Item:
        """One answer of the queue."""
        found = store.item_named(self._control, id)
        if found is None:
            raise NotFound(f"no answer {id!r} in the queue", remedy="lockgate annotate next")
        return found

    def grade(self, id: str, annotator: str, value: float | None, note: str = "") -> Grade:
        """Keep what a person says of an answer; ``None``: they cannot tell. Said twice, the later counts."""
        if not annotator.strip():
            raise InputError("nobody is named", remedy="give --as WHO")
        self.get(id)
        found = Grade(item_id=id, annotator=annotator, value=value, note=note, created_at=self._clock())
        store.save_grade(self._control, found)
        return found

    def queues(self, *, agent: str | None = None, metric: str | None = None) -> list[Queue]:
        """How far each metric of each agent is, and how far people agree."""
        given = self._grades(agent, metric)
        by_queue: dict[tuple[str, str], list[Item]] = {}
        for item in store.listed(self._control, agent=agent, metric=metric):
            by_queue.setdefault((item.agent, item.metric), []).append(item)
        found = []
        for (name, of), items in sorted(by_queue.items()):
            people = between_people(
                (item.answer, grade.annotator, grade.value)
                for item in items
                for grade in given.get(item.id, {}).values()
                if grade.value is not None
            )
            found.append(
                Queue(
                    agent=name,
                    metric=of,
                    answers=len(items),
                    graded=sum(len(given.get(item.id, {})) >= item.wanted for item in items),
                    grades=sum(len(given.get(item.id, {})) for item in items),
                    annotators=sorted({who for item in items for who in given.get(item.id, {})}),
                    doubly=people.doubly,
                    agreement=people.agreement,
                    kappa=people.kappa,
                )
            )
        return found

    def labels(self, metric: Metric, *, agent: str | None = None) -> list[Label]:
        """Every grade of a metric as a label, for :meth:`lockgate.evals.judges.service.Judges.calibrate`.

        Grades of another question, from before the rubric's was changed, are left out.
        """
        given = self._grades(agent, metric.name)
        question = question_of(metric)
        found = [
            Label(
                item=item.answer,
                sample=Sample(item.sample.case, item.sample.case.input, item.sample.result),
                human=grade.value,
                weight=item.weight,
                annotator=grade.annotator,
            )
            for item in store.listed(self._control, agent=agent, metric=metric.name)
            for grade in given.get(item.id, {}).values()
            if grade.value is not None and item.question == question
        ]
        if not found:
            raise InputError(
                f"nobody has graded an answer for {metric.name!r} yet", remedy="lockgate annotate sample, then label"
            )
        return found

    def lines(self, *, agent: str | None = None, metric: str | None = None) -> list[dict[str, Any]]:
        """Every grade as a line of labels, as ``lockgate judge calibrate --labels`` reads it."""
        given = self._grades(agent, metric)
        return [
            {
                "metric": item.metric,
                "agent": item.agent,
                "input": item.sample.case.input,
                "output": item.sample.result.output,
                "label": grade.value,
                **shown_fields(item.sample.case),
                **({"tools_used": used} if (used := msgspec.to_builtins(item.sample.result.tools_used)) else {}),
                "annotator": grade.annotator,
                "at": grade.created_at,
                "weight": item.weight,
                **({"note": grade.note} if grade.note else {}),
            }
            for item in store.listed(self._control, agent=agent, metric=metric)
            for grade in given.get(item.id, {}).values()
            if grade.value is not None
        ]

    def _grades(self, agent: str | None, metric: str | None) -> dict[str, dict[str, Grade]]:
        found: dict[str, dict[str, Grade]] = {}
        for grade in store.grades(self._control, agent=agent, metric=metric):
            found.setdefault(grade.item_id, {})[grade.annotator] = grade
        return found
