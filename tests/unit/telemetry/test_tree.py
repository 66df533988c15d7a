"""Self time and cost, with their arithmetic in the tables."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from lockgate.telemetry import tree
from lockgate.telemetry.model import ERROR, Span


def span(number: int, parent: int | None, start: int, end: int, **fields: Any) -> Span:
    identity = {"trace_id": b"t" * 16, "span_id": bytes([number]) * 8}
    identity["parent_id"] = None if parent is None else bytes([parent]) * 8  # type: ignore[assignment]
    return Span(**(identity | {"name": f"s{number}", "start_ns": start, "end_ns": end} | fields))


def test_self_time_is_what_no_child_covers() -> None:
    # 0..100 with children 10..40 and 30..60 (together 10..60) and 90..120 (10 of it inside): 100 - 50 - 10
    roots = tree.build([span(1, None, 0, 100), span(2, 1, 10, 40), span(3, 1, 30, 60), span(4, 1, 90, 120)])
    assert [root.self_ns for root in roots] == [40]


def test_children_stand_in_order_of_their_start() -> None:
    (root,) = tree.build([span(3, 1, 50, 60), span(2, 1, 10, 20), span(1, None, 0, 100)])
    assert [node.span.name for _, node in root.walk()] == ["s1", "s2", "s3"]


def test_tokens_on_an_agent_span_and_on_its_calls_count_once() -> None:
    agent = span(1, None, 0, 9, input_tokens=30, output_tokens=3, cost_nano=300)
    calls = [span(2, 1, 1, 2, input_tokens=10, output_tokens=1, cost_nano=100), span(3, 1, 3, 4, input_tokens=20)]
    (root,) = tree.build([agent, *calls])
    assert (root.input_tokens, root.output_tokens, root.cost_nano) == (30, 1, 100)


def test_a_call_seen_by_client_and_gateway_counts_as_the_gateway_saw_it() -> None:
    (root,) = tree.build([span(1, None, 0, 9, input_tokens=10), span(2, 1, 1, 8, input_tokens=12, cost_nano=5)])
    assert (root.input_tokens, root.cost_nano) == (12, 5)


def test_a_figure_on_a_branch_without_calls_below_still_counts() -> None:
    spans = [span(1, None, 0, 9), span(2, 1, 1, 2, cost_nano=5), span(3, 1, 3, 4), span(4, 3, 3, 4, cost_nano=7)]
    assert tree.totals(tree.build(spans)).cost_nano == 12


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    assert [root.span.name for root in tree.build([span(2, 99, 5, 6), span(1, None, 0, 9)])] == ["s1", "s2"]


def test_a_cycle_is_cut_rather_than_lost() -> None:
    spans = [span(1, 2, 0, 9), span(2, 1, 1, 8), span(3, 3, 2, 3), span(4, None, 0, 1)]
    assert tree.totals(tree.build(spans)).spans == 4


def test_errors_are_counted_below_too() -> None:
    (root,) = tree.build([span(1, None, 0, 9), span(2, 1, 1, 2, status=ERROR), span(3, 2, 1, 2, status=ERROR)])
    assert root.errors == 2


def test_a_trace_nested_deeper_than_python_recurses_is_built() -> None:
    spans = [
        Span(
            trace_id=b"t" * 16,
            span_id=number.to_bytes(8, "big"),
            parent_id=(number - 1).to_bytes(8, "big") if number > 1 else None,
            name="deep",
            start_ns=number,
            end_ns=10_000 - number,
        )
        for number in range(1, 3001)
    ]
    assert tree.totals(tree.build(spans)).spans == 3000


def test_an_empty_trace_is_all_zeros() -> None:
    assert tree.totals(tree.build([])) == tree.Totals(
        spans=0, errors=0, start_ns=0, end_ns=0, input_tokens=0, output_tokens=0, cost_nano=0
    )


@given(st.lists(st.tuples(st.none() | st.integers(0, 20), st.integers(0, 50), st.integers(0, 50)), max_size=20))
def test_every_span_is_in_the_tree_once_and_no_self_time_is_negative(shape: list[tuple[int | None, int, int]]) -> None:
    spans = [span(number, parent, start, start + length) for number, (parent, start, length) in enumerate(shape)]
    nodes = [node for root in tree.build(spans) for _, node in root.walk()]
    assert sorted(node.span.span_id for node in nodes) == sorted(given_span.span_id for given_span in spans)
    assert all(0 <= node.self_ns <= node.duration_ns for node in nodes)
