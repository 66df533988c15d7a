"""The W3C header, as the standard's own examples have it."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.telemetry.context import TraceContext, format_traceparent, new_span_id, new_trace_id, parse_traceparent

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_a_valid_header_is_read() -> None:
    expected = TraceContext(bytes.fromhex(TRACE), bytes.fromhex(SPAN), True)
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-01") == expected
    assert parse_traceparent(f"00-{TRACE}-{SPAN}-00") == expected._replace(sampled=False)


def test_a_later_version_is_read_as_far_as_it_is_known() -> None:
    assert parse_traceparent(f"01-{TRACE}-{SPAN}-01-what-comes-next") is not None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "garbage",
        f"ff-{TRACE}-{SPAN}-01",
        f"00-{TRACE}-{SPAN}-01-more",
        f"00-{'0' * 32}-{SPAN}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"00-{TRACE.upper()}-{SPAN}-01",
        f"00-{TRACE[:-1]}-{SPAN}-01",
    ],
)
def test_a_malformed_header_means_a_new_trace(header: str | None) -> None:
    assert parse_traceparent(header) is None


@given(st.binary(min_size=16, max_size=16).filter(any), st.binary(min_size=8, max_size=8).filter(any), st.booleans())
def test_what_is_written_is_read_back(trace: bytes, span: bytes, sampled: bool) -> None:
    assert parse_traceparent(format_traceparent(trace, span, sampled=sampled)) == TraceContext(trace, span, sampled)


@given(st.text())
def test_no_header_breaks_the_parser(header: str) -> None:
    parse_traceparent(header)


def test_new_ids_have_the_standard_lengths() -> None:
    assert (len(new_trace_id()), len(new_span_id())) == (16, 8)


def test_a_new_trace_id_begins_with_its_second_and_is_no_other_ones() -> None:
    before = int(time.time())
    made = {new_trace_id() for _ in range(1000)}
    assert len(made) == 1000
    assert all(before <= int.from_bytes(one[:4]) <= time.time() for one in made)
