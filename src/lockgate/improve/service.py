"""Triage: finds production failures, keeps them until a person decides, and makes cases of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from sqlalchemy import Connection

from lockgate.clock import Clock
from lockgate.errors import Conflict, InputError
from lockgate.evals.model import Case
from lockgate.ids import new_id
from lockgate.improve import store, triage
from lockgate.improve.model import Candidate, FeedbackRecord, Finding, RunFacts, Status
from lockgate.storage import audit
from lockgate.storage.engine import Database

HORIZON = 7 * 86_400.0
"""Seconds looked back by a first capture, and over which a run's share of traffic is taken."""

_OVERLAP = 600.0  # seconds looked at again, for what was committed late


class Expectation(msgspec.Struct, frozen=True, kw_only=True):
    """What the agent should have done. ``output`` UNSET says nothing of the answer."""

    output: Any = msgspec.UNSET
    tools: Sequence[str] = ()
    must_not: Sequence[str] = ()
    accept_output: bool = False  # the answer it gave was right

    def given(self) -> bool:
        return self.output is not msgspec.UNSET or bool(self.tools or self.must_not) or self.accept_output


class Triage:
    """Candidates and feedback of one control database."""

    def __init__(self, control: Database, clock: Clock) -> None:
        self._control = control
        self._clock = clock
        self._seen_until: float | None = None

    def capture(self, now: float | None = None) -> int:
        """Look at what happened since the last time; returns how many findings are new.

        Any number of processes may capture, any number of times: a finding is recorded once. The cursor is this
        object's own; a new one looks back :data:`HORIZON` seconds.
        """
        now = self._clock() if now is None else now
        since = now - HORIZON if self._seen_until is None else self._seen_until - _OVERLAP
        with self._control.read() as connection:
            found = list(_findings(connection, since))
            known = store.known(connection, (finding.run_id for finding in found))
            fresh = [finding for finding in found if (finding.run_id, finding.reason) not in known]
            weights = _weights(connection, fresh, now - HORIZON)
        added = 0
        if fresh:
            with self._control.write() as connection:
                for finding, weight in zip(fresh, weights, strict=True):
                    added += store.add(connection, finding, weight=weight, now=now)
        self._seen_until = now
        return added

    def list(self, *, status: Status | None = "open", agent: str | None = None, limit: int = 50) -> list[Candidate]:
        """The candidates with the newest findings first."""
        with self._control.read() as connection:
            return store.listed(connection, status=status, agent=agent, limit=limit)

    def inputs(self, found: Sequence[Candidate]) -> dict[str, Any]:
        """By candidate, what the run was asked that tells most about it."""
        with self._control.read() as connection:
            known = store.inputs(connection, [candidate.leading.run_id for candidate in found])
        return {candidate.id: known.get(candidate.leading.run_id) for candidate in found}

    def show(self, candidate_id: str) -> tuple[Candidate, RunFacts]:
        """The candidate and the run that tells most about it. Raises :class:`NotFound`."""
        with self._control.read() as connection:
            candidate = store.get(connection, candidate_id)
            return candidate, store.facts(connection, candidate.leading.run_id)

    def promote(
        self,
        candidate_id: str,
        golden: Path,
        expectation: Expectation,
        *,
        who: str,
        append: Callable[[Path, Case], None],
        existing: Sequence[Case] = (),
        tags: Sequence[str] = (),
        cluster: str | None = None,
        case_id: str | None = None,
    ) -> Case:
        """Append the candidate to the golden set as a case and close it.

        ``append`` writes one case to a JSONL file; ``existing`` are the cases there, from which the new one's
        traffic weight follows. Raises :class:`Conflict` when it is decided already, :class:`InputError` when nothing
        is expected.
        """
        with self._control.write() as connection:
            candidate = _open(connection, candidate_id)
            run = store.facts(connection, candidate.leading.run_id)
            case = triage.to_case(
                candidate,
                run,
                expected_output=_expected_output(run, expectation),
                expected_tools=expectation.tools,
                must_not=expectation.must_not,
                tags=tags,
                cluster=cluster,
                weight=triage.case_weight(candidate.weight, existing),
                case_id=case_id,
            )
            self._decide(connection, candidate, "promoted", who, case_id=case.id, golden=str(golden))
            append(golden, case)  # last, so that a file that cannot be written leaves the candidate open
        return case

    def reject(self, candidate_id: str, *, who: str, why: str = "") -> Candidate:
        """Close the candidate without a case. Raises :class:`Conflict` when it is decided already."""
        with self._control.write() as connection:
            candidate = _open(connection, candidate_id)
            self._decide(connection, candidate, "rejected", who, why=why)
            return store.get(connection, candidate_id)

    def flag(self, run_id: str, *, who: str, note: str = "") -> Candidate:
        """Make a candidate of any run, also one that went well."""
        with self._control.write() as connection:
            finding = triage.flagged(store.facts(connection, run_id), who, note)
            now = self._clock()
            (weight,) = _weights(connection, [finding], now - HORIZON)
            store.add(connection, finding, weight=weight, now=now)
            return store.of_signature(connection, finding.signature)

    def give_feedback(self, run_id: str, rating: int, *, comment: str = "", author: str) -> FeedbackRecord:
        """Record what a user said of a run: ``rating`` 1 or -1. A -1 becomes a candidate at the next capture."""
        if rating not in (1, -1):
            raise InputError(f"a rating is 1 or -1, not {rating!r}", remedy="--rating up, or --rating down")
        record = FeedbackRecord(
            id=new_id("feedback"),
            run_id=run_id,
            rating=rating,
            comment=comment,
            author=author,
            created_at=self._clock(),
        )
        with self._control.write() as connection:
            store.facts(connection, run_id)
            store.add_feedback(connection, record)
        return record

    def _decide(self, connection: Connection, candidate: Candidate, status: Status, who: str, **details: str) -> None:
        now = self._clock()
        store.decide(connection, candidate, status=status, case_id=details.get("case_id"), now=now, who=who)
        audit.record(
            connection, at=now, actor=who, action=f"candidate.{status}", subject=candidate.id, details=dict(details)
        )


def _open(connection: Connection, candidate_id: str) -> Candidate:
    candidate = store.get(connection, candidate_id)
    if candidate.status != "open":
        case = f" as case {candidate.case_id!r}" if candidate.case_id else ""
        raise Conflict(f"{candidate_id} was {candidate.status}{case} by {candidate.decided_by}")
    return candidate


def _expected_output(run: RunFacts, expectation: Expectation) -> Any:
    if not expectation.given():
        raise InputError(
            "a case needs something to be expected",
            remedy="say --expect '…', --expect-file FILE, --accept-output, --expect-tool NAME or --must-not TEXT",
        )
    if not expectation.accept_output:
        return None if expectation.output is msgspec.UNSET else expectation.output
    if expectation.output is not msgspec.UNSET:
        raise InputError("--accept-output and an expected output exclude each other", remedy="give one of them")
    if run.output is None:
        raise InputError(f"run {run.id} has no output to accept", remedy="say what is expected with --expect '…'")
    return run.output


def _findings(connection: Connection, since: float) -> Iterator[Finding]:
    settings = store.eval_settings(connection)
    floors = {place: triage.floors(evals) for place, evals in settings.items()}
    highest = max((floor for known in floors.values() for floor in known.values()), default=0.0)
    for run in store.failed_runs(connection, since):
        if finding := triage.ended(run):
            yield finding
    for run, metric, score, why in store.scores(connection, since, below=max(highest, triage.DEFAULT_FLOOR)):
        if finding := triage.scored(run, metric, score, why, floors.get((run.environment, run.agent), {})):
            yield finding
    for run, tool, why, who in store.rejected_approvals(connection, since):
        yield triage.refused(run, tool, why, who)
    for run, rating, comment in store.bad_ratings(connection, since):
        if finding := triage.complained(run, rating, comment):
            yield finding
    for rollout_id, why, own in store.rollbacks(connection, since):
        yield from triage.rolled_back(own, rollout_id, why)


def _weights(connection: Connection, findings: Sequence[Finding], since: float) -> Sequence[float]:
    """For each finding, the share of the agent's runs that one run is: of those scored, when a score found it."""
    everywhere = store.run_counts(connection, since) if findings else {}
    of_metric: dict[str, dict[tuple[str, str], int]] = {}
    weights = []
    for finding in findings:
        counts = everywhere
        if finding.reason == "low_score":
            if finding.cause not in of_metric:
                of_metric[finding.cause] = store.scored_counts(connection, since, finding.cause)
            counts = of_metric[finding.cause]
        weights.append(1.0 / max(1, counts.get((finding.environment, finding.agent), 1)))
    return weights
