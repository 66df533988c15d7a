from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from lockgate.errors import Conflict, LockgateError, NotFound, Refused
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.storage.schema import audit as audit_table
from lockgate.testing import FakeClock
from lockgate.tools.contracts import hash_of
from lockgate.tools.model import Approval
from lockgate.tools.service import EXPIRES_AFTER, Approvals


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def approvals(control: Database, clock: FakeClock) -> Approvals:
    return Approvals(control, clock)


Request = Callable[..., Approval]


@pytest.fixture
def request_(approvals: Approvals) -> Request:
    def request(**fields: Any) -> Approval:
        defaults: dict[str, Any] = {"run_id": "run_1", "seq": 0, "agent": "support", "environment": "prod"}
        defaults |= {"tool": "refund", "arguments": {"amount": 40}, "effective_digest": "v", "policy_digest": "p"}
        return approvals.request(**(defaults | fields))

    return request


def claim(approvals: Approvals, approval: Approval, **fields: Any) -> Approval:
    bound = {"arguments_hash": hash_of({"amount": 40}), "effective_digest": "v", "policy_digest": "p"}
    return approvals.claim(approval.id, **(bound | fields))


def actions(control: Database) -> list[tuple[str, str]]:
    with control.read() as connection:
        audit.verify(connection)
        rows = connection.execute(audit_table.select().order_by(audit_table.c.seq)).mappings()
        return [(row["action"], row["actor"]) for row in rows]


def test_every_act_of_an_approvals_life_is_audited(control: Database, approvals: Approvals, request_: Request) -> None:
    asked = request_()
    approvals.approve(asked.id, "ann", "seen it")
    claim(approvals, asked)
    done = approvals.executed(asked.id)
    assert (done.status, done.decided_by, done.reason, done.executed_at) == ("executed", "ann", "seen it", 1.7e9)
    assert actions(control) == [
        ("approval.requested", "agent:support"),
        ("approval.approved", "ann"),
        ("approval.executing", "run:run_1"),
        ("approval.executed", "run:run_1"),
    ]


def test_arguments_are_not_in_the_audit_log_but_their_hash_is(control: Database, request_: Request) -> None:
    asked = request_(arguments={"iban": "DE00"})
    with control.read() as connection:
        [row] = connection.execute(audit_table.select()).mappings()
    assert "DE00" not in str(row["details"])
    assert row["details"]["arguments"] == asked.arguments_hash


def test_of_many_who_claim_at_once_one_gets_it(approvals: Approvals, request_: Request) -> None:
    asked = request_()
    approvals.approve(asked.id, "ann")
    got: list[Any] = []

    def try_it() -> None:
        try:
            got.append(claim(approvals, asked))
        except LockgateError as error:
            got.append(error)

    threads = [threading.Thread(target=try_it) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(isinstance(one, Approval) for one in got) == 1
    assert sum(isinstance(one, (Refused, Conflict)) for one in got) == 5


def test_of_two_who_decide_at_once_one_does(approvals: Approvals, request_: Request) -> None:
    asked = request_()
    outcomes: list[Any] = []

    def decide(act: Callable[..., Any]) -> None:
        try:
            outcomes.append(act(asked.id, "someone").status)
        except Conflict:
            outcomes.append("conflict")

    threads = [threading.Thread(target=decide, args=(act,)) for act in (approvals.approve, approvals.reject)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes.count("conflict") == 1
    assert approvals.get(asked.id).status in outcomes


def test_a_claim_for_other_arguments_changes_nothing(approvals: Approvals, request_: Request) -> None:
    asked = request_()
    approvals.approve(asked.id, "ann")
    with pytest.raises(Refused, match="other arguments"):
        claim(approvals, asked, arguments_hash=hash_of({"amount": 4000}))
    assert claim(approvals, asked).status == "executing"


def test_what_nobody_decides_expires(approvals: Approvals, request_: Request, clock: FakeClock) -> None:
    waiting, unused = request_(), request_(seq=1)
    approvals.approve(unused.id, "ann")
    clock.advance(EXPIRES_AFTER - 1)
    assert approvals.expire() == []
    clock.advance(1)
    assert {one.id for one in approvals.expire()} == {waiting.id, unused.id}
    assert approvals.expire() == []
    with pytest.raises(Conflict, match="has expired"):
        approvals.approve(waiting.id, "ann")


def test_the_end_of_a_run_withdraws_what_it_asked_for(approvals: Approvals, request_: Request) -> None:
    pending, executing, other = request_(), request_(seq=1), request_(run_id="run_2")
    approvals.approve(executing.id, "ann")
    claim(approvals, executing)
    approvals.withdraw("run_1")
    assert [approvals.get(one.id).status for one in (pending, executing, other)] == ["expired", "unknown", "pending"]


def test_approvals_are_listed_by_status_and_agent(approvals: Approvals, request_: Request) -> None:
    first, second = request_(), request_(seq=1, agent="other")
    approvals.reject(second.id, "ann")
    assert [one.id for one in approvals.listed(status="pending")] == [first.id]
    assert [one.id for one in approvals.listed(agent="other")] == [second.id]
    assert len(approvals.listed()) == 2
    assert approvals.of_step("run_1", 0) == first
    assert approvals.of_step("run_1", 9) is None


def test_an_unknown_approval_is_not_found(approvals: Approvals) -> None:
    for act in (approvals.get, lambda name: approvals.approve(name, "ann"), approvals.executed):
        with pytest.raises(NotFound, match="apr_x"):
            act("apr_x")
