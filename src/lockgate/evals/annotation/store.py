"""The SQL of the annotation queue."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from sqlalchemy import func, select

from lockgate.evals.annotation.model import Grade, Item
from lockgate.evals.store import CHUNK
from lockgate.storage.engine import Database
from lockgate.storage.schema import annotation_items as items
from lockgate.storage.schema import annotation_labels as labels
from lockgate.storage.schema import eval_runs, run_scores, runs, trial_scores, trials
from lockgate.storage.upsert import insert_into


def add_items(control: Database, found: Sequence[Item]) -> int:
    """Put answers into the queue; those that are in it for this metric stay as they are. Returns how many are new."""
    with control.write() as connection:
        before = connection.execute(select(func.count()).select_from(items)).scalar_one()
        for item in found:
            connection.execute(
                insert_into(connection, items).values(**msgspec.to_builtins(item)).on_conflict_do_nothing()
            )
        after = connection.execute(select(func.count()).select_from(items)).scalar_one()
    return int(after - before)


def listed(control: Database, *, agent: str | None = None, metric: str | None = None) -> list[Item]:
    """The queue, in the order in which answers were drawn."""
    query = select(items).order_by(items.c.created_at, items.c.id)
    if agent is not None:
        query = query.where(items.c.agent == agent)
    if metric is not None:
        query = query.where(items.c.metric == metric)
    with control.read() as connection:
        return [msgspec.convert(row, Item, from_attributes=True) for row in connection.execute(query)]


def item_named(control: Database, id: str) -> Item | None:
    """One answer of the queue."""
    with control.read() as connection:
        row = connection.execute(select(items).where(items.c.id == id)).first()
    return None if row is None else msgspec.convert(row, Item, from_attributes=True)


def grades(control: Database, *, agent: str | None = None, metric: str | None = None) -> list[Grade]:
    """All grades, the oldest first."""
    query = select(labels).join(items, items.c.id == labels.c.item_id).order_by(labels.c.created_at)
    if agent is not None:
        query = query.where(items.c.agent == agent)
    if metric is not None:
        query = query.where(items.c.metric == metric)
    with control.read() as connection:
        return [msgspec.convert(row, Grade, from_attributes=True) for row in connection.execute(query)]


def save_grade(control: Database, grade: Grade) -> None:
    """Keep a person's grade; a second one of the same person takes the place of the first."""
    values = msgspec.to_builtins(grade)
    changed = {name: values[name] for name in ("value", "note", "created_at")}
    with control.write() as connection:
        statement = insert_into(connection, labels).values(**values)
        connection.execute(statement.on_conflict_do_update(index_elements=["item_id", "annotator"], set_=changed))


def scored_trials(
    control: Database, agent: str, score_keys: Mapping[str, str]
) -> list[tuple[tuple[str, str, int], float | None]]:
    """The trials of an agent's versions on these cases (their keys), and what the judge said of each, if it did.

    ``score_keys``: by case digest, what the judge's scores of the case are kept under.
    """
    versions = select(eval_runs.c.effective_digest).where(eval_runs.c.agent == agent).distinct()
    digests = list(score_keys)
    keys: list[tuple[str, str, int]] = []
    scores: dict[tuple[str, str, int], float] = {}
    with control.read() as connection:
        for start in range(0, len(digests), CHUNK):
            some = digests[start : start + CHUNK]
            for table, extra in ((trials, ()), (trial_scores, (trial_scores.c.scorer_digest, trial_scores.c.score))):
                columns = (table.c.effective_digest, table.c.case_digest, table.c.trial, *extra)
                of_these = table.c.effective_digest.in_(versions) & table.c.case_digest.in_(some)
                for row in connection.execute(select(*columns).where(of_these)):
                    if not extra:
                        keys.append((row[0], row[1], row[2]))
                    elif row[3] == score_keys[row[1]] and row[4] is not None:
                        scores[row[0], row[1], row[2]] = row[4]
    return [(key, scores.get(key)) for key in sorted(keys)]


def trial_result(control: Database, key: tuple[str, str, int]) -> Any:
    """One trial's result, as it is stored."""
    effective, case, trial = key
    query = select(trials.c.result).where(
        trials.c.effective_digest == effective, trials.c.case_digest == case, trials.c.trial == trial
    )
    with control.read() as connection:
        return connection.execute(query).scalar_one()


def scored_runs(
    control: Database, agent: str, environment: str, since: float, limit: int
) -> list[tuple[str, Any, float | None]]:
    """Completed runs of an agent's: id, input and the lowest of its live scores."""
    lowest = (
        select(func.min(run_scores.c.score)).where(run_scores.c.run_id == runs.c.id).correlate(runs).scalar_subquery()
    )
    query = (
        select(runs.c.id, runs.c.input, lowest)
        .where(
            runs.c.agent == agent,
            runs.c.environment == environment,
            runs.c.status == "completed",
            runs.c.started_at >= since,
        )
        .order_by(runs.c.started_at.desc())
        .limit(limit)
    )
    with control.read() as connection:
        return [(row[0], row[1], row[2]) for row in connection.execute(query)]
