"""The SQL of evals: trials and their scores, kept once for good, and what each evaluation found."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from sqlalchemy import Connection, Insert, Table, bindparam, func, select, update

from lockgate.evals.model import Scorecard
from lockgate.evals.running.meter import JUDGE
from lockgate.evals.running.paid import PaidFile
from lockgate.results import RunResult
from lockgate.storage.engine import Database
from lockgate.storage.schema import eval_runs, eval_tables, trial_calls, trial_scores, trials
from lockgate.storage.upsert import insert_into

CHUNK = 400
"""Cases asked for in one query: below every engine's limit on parameters."""


class TrialRecord(msgspec.Struct, frozen=True):
    """One finished trial and its scores, as they are stored."""

    case_digest: str
    case_id: str
    trial: int
    result: RunResult | None  # None: only the scores are new
    finished_at: float
    scores: list[tuple[str, float | None, str, str]]  # scorer digest, value, status, reason
    scored: bool = True  # whether these are all: a judge may still be asked


class CallRecord(NamedTuple):
    """One answer of a model that a trial under way has paid for. ``number``: how often the same was asked before."""

    case_digest: str
    trial: int
    asked: str
    number: int
    answer: Any


class TrialStore:
    """Trials of one version (its effective digest). Writing one twice keeps the first."""

    def __init__(self, control: Database, effective_digest: str, folder: Path | None = None) -> None:
        """``folder``: where what is not in the database yet is kept safe from a kill."""
        self._control = control
        self._effective = effective_digest
        self._keeps_calls = True
        name = hashlib.sha256(effective_digest.encode()).hexdigest()[:16]
        self._paid = None if folder is None else PaidFile(folder, name)

    def note(self, record: TrialRecord | CallRecord) -> None:
        """Keep a record safe until it is saved."""
        if self._paid is not None:
            self._paid.note(msgspec.json.encode(record))

    def turn(self) -> Callable[[], None]:
        """What was noted so far is about to be saved; call what this gives when it is."""
        return (lambda: None) if self._paid is None else self._paid.turn()

    def close(self) -> None:
        """Nothing more is noted for now."""
        if self._paid is not None:
            self._paid.close()

    def recover(self) -> None:
        """Save what evaluations that were killed had noted."""
        for lines in () if self._paid is None else self._paid.left_behind():
            records = [msgspec.json.decode(line, type=TrialRecord) for line in lines if line.startswith(b"{")]
            calls = [msgspec.json.decode(line, type=CallRecord) for line in lines if line.startswith(b"[")]
            if records or calls:
                self.save(records, calls)

    def any(self) -> bool:
        """Whether there is any trial of the version."""
        query = select(trials.c.trial).where(trials.c.effective_digest == self._effective).limit(1)
        with self._control.read() as connection:
            return connection.execute(query).first() is not None

    def results(self, case_digests: Sequence[str]) -> dict[tuple[str, int], RunResult]:
        """What is there already, by case digest and trial."""
        query = select(trials.c.case_digest, trials.c.trial, trials.c.result).where(
            trials.c.effective_digest == self._effective, trials.c.case_digest.in_(case_digests)
        )
        with self._control.read() as connection:
            return {(row[0], row[1]): msgspec.convert(row[2], RunResult) for row in connection.execute(query)}

    def scores(
        self, case_digests: Sequence[str], scorer_digests: Iterable[str]
    ) -> dict[tuple[str, int, str], tuple[float | None, str, str]]:
        """Value, status and reason of scores that are there, by case digest, trial and scorer digest."""
        wanted = set(scorer_digests)
        query = select(trial_scores).where(
            trial_scores.c.effective_digest == self._effective, trial_scores.c.case_digest.in_(case_digests)
        )
        with self._control.read() as connection:
            return {
                (row.case_digest, row.trial, row.scorer_digest): (row.score, row.status, row.reason or "")
                for row in connection.execute(query)
                if row.scorer_digest in wanted
            }

    def calls(self) -> dict[tuple[str, int], dict[str, list[Any]]]:
        """What trials that were cut off had paid for: by case digest and trial, answers in order by what was asked."""
        query = (
            select(trial_calls)
            .where(trial_calls.c.effective_digest == self._effective)
            .order_by(trial_calls.c.asked, trial_calls.c.number)
        )
        found: dict[tuple[str, int], dict[str, list[Any]]] = {}
        with self._control.read() as connection:
            for row in connection.execute(query):
                answers = found.setdefault((row.case_digest, row.trial), {}).setdefault(row.asked, [])
                if len(answers) == row.number:
                    answers.append(row.answer)
        return found

    def forget(self, case_digests: Sequence[str]) -> None:
        """Drop the trials of these cases, and their scores."""
        with self._control.write() as connection:
            for table in (trial_scores, trial_calls, trials):
                mine = table.c.effective_digest == self._effective
                there = set(connection.execute(select(table.c.case_digest).where(mine).distinct()).scalars())
                going = sorted(there.intersection(case_digests))
                if len(going) == len(there):  # as a rule: all at once takes a tenth of the time
                    connection.execute(table.delete().where(mine))
                    continue
                for start in range(0, len(going), CHUNK):
                    connection.execute(
                        table.delete().where(mine, table.c.case_digest.in_(going[start : start + CHUNK]))
                    )

    def forget_trials(self, which: Sequence[tuple[str, int]]) -> None:
        """Drop single trials, by case digest and number, and their scores."""
        with self._control.write() as connection:
            for table in (trial_scores, trials):
                statement = table.delete().where(
                    table.c.effective_digest == self._effective,
                    table.c.case_digest == bindparam("of_case"),
                    table.c.trial == bindparam("of_trial"),
                )
                connection.execute(statement, [{"of_case": case, "of_trial": trial} for case, trial in which])

    def save(self, records: Sequence[TrialRecord], calls: Sequence[CallRecord] = ()) -> None:
        """Store a batch, in one transaction, with what was paid for in trials that are still under way. An agent's
        calls go when its result is there, a judge's when the scores are."""
        ran = [
            {
                "effective_digest": self._effective,
                "case_digest": record.case_digest,
                "trial": record.trial,
                "case_id": record.case_id,
                "result": record.result,
                "finished_at": record.finished_at,
            }
            for record in records
            if record.result is not None
        ]
        scored = [
            {
                "effective_digest": self._effective,
                "case_digest": record.case_digest,
                "trial": record.trial,
                "scorer_digest": digest,
                "score": value,
                "status": status,
                "reason": reason or None,
            }
            for record in records
            for digest, value, status, reason in record.scores
        ]
        ended = [record for record in records if record.result is not None or record.scored]
        paid = [{"effective_digest": self._effective, **call._asdict()} for call in calls]
        with self._control.write() as connection:
            if paid:
                self._keeps_calls = True
                connection.execute(_insert_new(connection, trial_calls), paid)
            if ran:
                connection.execute(_insert_new(connection, trials), ran)
            if ended and self._keeps_calls:
                self._drop_calls(connection, ended)
            if scored:
                connection.execute(_insert_new(connection, trial_scores), scored)

    def _drop_calls(self, connection: Connection, ended: Sequence[TrialRecord]) -> None:
        of_one = trial_calls.c.case_digest == bindparam("of_case"), trial_calls.c.trial == bindparam("of_trial")
        statement = trial_calls.delete().where(trial_calls.c.effective_digest == self._effective, *of_one)
        for only, scored in ((statement, True), (statement.where(~trial_calls.c.asked.startswith(JUDGE)), False)):
            which = [
                {"of_case": record.case_digest, "of_trial": record.trial} for record in ended if record.scored == scored
            ]
            if which:
                connection.execute(only, which)
        left = select(trial_calls.c.trial).where(trial_calls.c.effective_digest == self._effective).limit(1)
        self._keeps_calls = connection.execute(left).first() is not None


def case_means(control: Database, case_digests: Sequence[str], score_keys: Set[str]) -> tuple[dict[str, float], int]:
    """The mean of these scores by case digest, over the trials of all versions, and how many versions there are."""
    sums: dict[str, list[float]] = {}
    versions: set[str] = set()
    for start in range(0, len(case_digests), CHUNK):
        query = select(
            trial_scores.c.case_digest,
            trial_scores.c.effective_digest,
            trial_scores.c.score,
            trial_scores.c.scorer_digest,
        ).where(trial_scores.c.case_digest.in_(case_digests[start : start + CHUNK]), trial_scores.c.score.is_not(None))
        with control.read() as connection:
            for case_digest, effective_digest, score, key in connection.execute(query):
                if key in score_keys:
                    sums.setdefault(case_digest, []).append(score)
                    versions.add(effective_digest)
    return {digest: sum(values) / len(values) for digest, values in sums.items()}, len(versions)


def start_evaluation(control: Database, row: dict[str, Any]) -> None:
    """Record that an evaluation began; ``row`` has the columns of ``eval_runs``."""
    with control.write() as connection:
        connection.execute(eval_runs.insert(), row)


def finish_evaluation(control: Database, card: Scorecard, *, ended_at: float, table: bytes | None = None) -> None:
    """Record what it found and, as packed by :mod:`lockgate.evals.tables`, what it saw case by case."""
    with control.write() as connection:
        if table is not None:
            connection.execute(eval_tables.insert().values(evaluation=card.id, data=table))
        connection.execute(
            update(eval_runs)
            .where(eval_runs.c.id == card.id)
            .values(verdict=card.verdict, scorecard=msgspec.to_builtins(card), ended_at=ended_at)
        )


def last_scorecard(control: Database, *, effective_digest: str | None = None, agent: str | None = None) -> Any:
    """The newest finished scorecard of a version's, or an agent's, own gate; None when there is none.

    Of all: whatever was evaluated last, a safety suite or the backup model too.
    """
    query = select(eval_runs.c.scorecard).where(eval_runs.c.verdict.is_not(None))
    if effective_digest is not None or agent is not None:
        query = query.where(func.coalesce(eval_runs.c.scorecard["kind"].as_string(), "quality") == "quality")
    if effective_digest is not None:
        query = query.where(eval_runs.c.effective_digest == effective_digest)
    if agent is not None:
        query = query.where(eval_runs.c.agent == agent)
    query = query.order_by(eval_runs.c.ended_at.desc(), eval_runs.c.id.desc()).limit(1)
    with control.read() as connection:
        return connection.execute(query).scalar()


def last_of_kind(control: Database, agent: str, kind: str) -> tuple[float | None, str | None]:
    """When the newest evaluation of this kind began, and its verdict, if it came to one."""
    query = (
        select(eval_runs.c.started_at, eval_runs.c.verdict)
        .where(eval_runs.c.agent == agent, eval_runs.c.kind == kind)
        .order_by(eval_runs.c.started_at.desc())
        .limit(1)
    )
    with control.read() as connection:
        row = connection.execute(query).first()
    return (None, None) if row is None else (row[0], row[1])


def evaluated_agents(control: Database) -> list[str]:
    """The agents with a finished evaluation, by name."""
    query = select(eval_runs.c.agent).where(eval_runs.c.verdict.is_not(None)).distinct().order_by(eval_runs.c.agent)
    with control.read() as connection:
        return list(connection.execute(query).scalars())


def scorecard_by_id(control: Database, id: str) -> Any:
    """The scorecard of one evaluation; None when there is none."""
    with control.read() as connection:
        return connection.execute(select(eval_runs.c.scorecard).where(eval_runs.c.id == id)).scalar()


def table_of(control: Database, id: str) -> bytes | None:
    """What an evaluation saw, packed; None when it is not there."""
    query = select(eval_tables.c.data).where(eval_tables.c.evaluation == id)
    with control.read() as connection:
        found = connection.execute(query).scalar()
    return None if found is None else bytes(found)


def whole_evaluations(control: Database, effective_digest: str, dataset_digest: str) -> list[str]:
    """Evaluations of a version on exactly this golden set, the newest first."""
    query = (
        select(eval_runs.c.id)
        .where(
            eval_runs.c.effective_digest == effective_digest,
            eval_runs.c.dataset_digest == dataset_digest,
            eval_runs.c.verdict.is_not(None),
        )
        .order_by(eval_runs.c.ended_at.desc())
    )
    with control.read() as connection:
        return list(connection.execute(query).scalars())


def _insert_new(connection: Connection, table: Table) -> Insert:
    statement: Insert = insert_into(connection, table).on_conflict_do_nothing()
    return statement
