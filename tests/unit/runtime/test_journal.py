from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Diverged
from lockgate.runtime.journal import Journal

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def recorded(*requests: tuple[Any, str, Any]) -> Journal:
    journal = Journal()
    for kind, name, request in requests:
        step, fresh = journal.take(kind, name, request)
        assert fresh
        step.status = "done"
        step.response = f"answer {step.seq}"
    return journal


def test_the_same_requests_are_answered_from_the_record_and_then_steps_are_new() -> None:
    first = recorded(("model", "m", {"a": 1}), ("tool", "t", {}))
    again = Journal(first.steps)
    assert [again.take("model", "m", {"a": 1}), again.take("tool", "t", {})] == [(s, False) for s in first.steps]
    step, fresh = again.take("tool", "t", {})
    assert fresh
    assert step.seq == 2


@pytest.mark.parametrize(
    ("kind", "name", "request_", "said"),
    [
        ("tool", "read", {"id": "B"}, "id was 'A', is 'B'"),
        ("tool", "read", {"id": "A", "more": 1}, "more was None, is 1"),
        ("tool", "write", {"id": "A"}, "recorded as tool 'read', and the replay asks for tool 'write'"),
        ("model", "read", {"id": "A"}, "asks for model 'read'"),
    ],
)
def test_another_request_is_a_divergence_that_says_where(kind: Any, name: str, request_: Any, said: str) -> None:
    journal = Journal(recorded(("tool", "read", {"id": "A"})).steps)
    with pytest.raises(Diverged, match=said.replace("'", ".")):
        journal.take(kind, name, request_)


def test_a_sealed_journal_takes_no_new_step() -> None:
    journal = Journal(recorded(("tool", "t", {})).steps, sealed=True)
    journal.take("tool", "t", {})
    with pytest.raises(Diverged, match="the record ends after 1 steps"):
        journal.take("tool", "t", {})


def test_a_nested_difference_is_named_by_its_path() -> None:
    was = {"messages": [{"role": "user", "content": "a"}]}
    journal = Journal(recorded(("model", "m", was)).steps)
    with pytest.raises(Diverged, match=r"messages\.0\.content was 'a', is 'b'"):
        journal.take("model", "m", {"messages": [{"role": "user", "content": "b"}]})


@given(JSON)
def test_a_request_means_the_same_after_it_was_stored(request: Any) -> None:
    journal = Journal(recorded(("tool", "t", request)).steps)
    stored = msgspec.json.decode(msgspec.json.encode(request))
    assert journal.take("tool", "t", stored)[1] is False


def test_a_fork_leaves_the_record_where_the_run_asks_for_something_else() -> None:
    first = Journal()
    for number in range(3):
        first.take("tool", "read", {"n": number})
    fork = Journal(first.steps, fork=True)
    assert fork.take("tool", "read", {"n": 0})[1] is False
    step, fresh = fork.take("tool", "read", {"n": 9})
    assert (fresh, step.seq) == (True, 1)
    assert fork.divergence is not None
    assert fork.divergence.expected is not None
    assert (fork.divergence.seq, fork.divergence.expected.request) == (1, {"n": 1})
    assert fork.take("tool", "read", {"n": 2}) == (fork.steps[2], True)
    assert len(fork.steps) == 3


def test_a_sealed_journal_tells_where_it_parted() -> None:
    sealed = Journal([], sealed=True)
    with pytest.raises(Diverged):
        sealed.take("model", "m", {})
    assert sealed.divergence is not None
    assert sealed.divergence.expected is None


def test_what_the_record_has_further_on_is_early_and_what_it_lacks_is_not() -> None:
    journal = Journal(recorded(("model", "m", "A"), ("model", "m", "B")).steps)
    asked = [journal.early("model", "m", request, cut_off=False) for request in ("A", "B", "C")]
    assert asked == [False, True, False]
    journal.take("model", "m", "A")
    assert not journal.early("model", "m", "B", cut_off=False)


def test_of_a_record_that_was_cut_off_something_may_be_missing() -> None:
    journal = Journal(recorded(("tool", "t", "A")).steps)
    assert journal.early("model", "m", "C", cut_off=True)
    assert not journal.early("tool", "t", "A", cut_off=True)
    journal.take("tool", "t", "A")
    assert not journal.early("model", "m", "C", cut_off=True)
