"""Token buckets: never more than the rate and a burst, given back when unused, shared fairly."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.errors import LimitExceeded
from lockgate.limits.holdtable import HoldTable
from lockgate.limits.model import Account, Hold, Rate

NOW = 1_795_000_000.0
REQUESTS = Rate(name="key:prod:k1", per_minute=60.0)
TOKENS = Rate(name="key:prod:k1", per_minute=600.0, unit="tokens")
SLOTS = Account(name="key:prod:k1", window="", cap=2, unit="concurrent")
RUN = Account(name="run:r1", window="", cap=10, unit="calls")


@pytest.fixture
def table(tmp_path: Path) -> Iterator[HoldTable]:
    opened = HoldTable(tmp_path / "holds.table")
    yield opened
    opened.close()


def test_a_call_takes_from_its_buckets_and_says_what_is_left(table: HoldTable) -> None:
    hold = table.hold([RUN], 0, tokens=150, rates=[REQUESTS, TOKENS], now=NOW)
    assert [(one.unit, one.limit, one.remaining, one.reset) for one in hold.standings] == [
        ("requests", 60.0, 59, 1.0),
        ("tokens", 600.0, 450, 15.0),
    ]


def test_unused_tokens_go_back_and_a_call_that_was_never_sent_gives_back_all(table: HoldTable) -> None:
    def remaining() -> list[int]:
        probe = table.hold([], 0, tokens=0, rates=[REQUESTS, TOKENS], now=NOW)
        table.release(probe)
        return [one.remaining for one in probe.standings]

    table.settle(table.hold([RUN], 0, tokens=400, rates=[REQUESTS, TOKENS], now=NOW), 0, tokens=100)
    assert remaining() == [58, 500]  # 59 after the call; the probe itself took one
    table.release(table.hold([RUN], 0, tokens=400, rates=[REQUESTS, TOKENS], now=NOW))
    assert remaining() == [58, 500]


def test_a_refused_call_takes_nothing(table: HoldTable) -> None:
    table.hold([], 0, tokens=500, rates=[TOKENS], now=NOW)
    with pytest.raises(LimitExceeded, match="600 tokens a minute: it is used up") as refused:
        table.hold([RUN], 0, tokens=200, rates=[REQUESTS, TOKENS], now=NOW)
    assert refused.value.retry_after == pytest.approx(10.0)  # 100 tokens at 10 a second
    assert [balance.held for balance in table.balances()] == [0]
    [standing] = table.hold([], 0, rates=[REQUESTS], now=NOW).standings
    assert standing.remaining == 59


def test_waiting_as_long_as_told_is_enough(table: HoldTable) -> None:
    table.hold([], 0, tokens=600, rates=[TOKENS], now=NOW)
    with pytest.raises(LimitExceeded) as refused:
        table.hold([], 0, tokens=70, rates=[TOKENS], now=NOW)
    assert refused.value.retry_after is not None
    table.hold([], 0, tokens=70, rates=[TOKENS], now=NOW + refused.value.retry_after + 1e-6)


def test_a_call_above_the_whole_rate_is_told_that_waiting_cannot_help(table: HoldTable) -> None:
    with pytest.raises(LimitExceeded, match="this call alone may need 601 tokens") as refused:
        table.hold([], 0, tokens=601, rates=[TOKENS], now=NOW)
    assert refused.value.retry_after is None


def test_calls_under_way_are_limited_and_end_with_the_call(table: HoldTable) -> None:
    first = table.hold([SLOTS], 0, now=NOW)
    second = table.hold([SLOTS], 0, now=NOW)
    with pytest.raises(LimitExceeded, match="2 calls under way") as refused:
        table.hold([SLOTS], 0, now=NOW)
    assert refused.value.retry_after == 1.0
    table.settle(first, 0)
    table.release(second)
    assert [(balance.settled, balance.held) for balance in table.balances()] == [(0, 0)]
    assert table.drop_rates(NOW) == 1


def test_a_bucket_in_use_is_kept(table: HoldTable) -> None:
    hold = table.hold([], 0, tokens=1, rates=[TOKENS], now=NOW)
    assert table.drop_rates(NOW + 60) == 0
    table.settle(hold, 0, tokens=1)
    assert table.drop_rates(NOW + 60) == 1


steps = st.lists(st.tuples(st.floats(0, 30), st.integers(0, 300), st.sampled_from("arsk")), max_size=60)


@given(steps=steps)
@settings(max_examples=60)
def test_no_stretch_of_time_has_more_than_a_burst_and_what_flows_in(steps: list[tuple[float, int, str]]) -> None:
    with TemporaryDirectory() as folder:
        table = HoldTable(Path(folder) / "holds.table")
        now, taken = NOW, list[tuple[float, int]]()
        for wait, tokens, _ in steps:
            now += wait
            try:
                table.settle(table.hold([], 0, tokens=tokens, rates=[TOKENS], now=now), 0, tokens=tokens)
            except LimitExceeded:
                continue
            taken.append((now, tokens))
        for first, (start, _) in enumerate(taken):
            total = 0
            for at, tokens in taken[first:]:
                total += tokens
                assert total <= 600 + 10 * (at - start) + 1
        table.close()


@given(greed=st.integers(2, 20), modest=st.floats(0.1, 0.45), members=st.integers(1, 3))
@settings(max_examples=20)
def test_a_member_that_asks_for_less_than_its_share_gets_it(greed: int, modest: float, members: int) -> None:
    """One member asks for ``greed`` times the whole rate; the others, together, for less than half of their shares."""
    rate = 60.0  # one a second
    with TemporaryDirectory() as folder:
        table = HoldTable(Path(folder) / "holds.table")
        shares = members + 1
        got, refused = Counter[str](), Counter[tuple[str, bool]]()

        def ask(member: str, at: float) -> None:
            try:
                shared = Rate(name="tenant:prod:acme", per_minute=rate, member=member)
                hold: Hold = table.hold([], 0, rates=[shared], now=NOW + at)
            except LimitExceeded:
                refused[member, at > 20] += 1
            else:
                table.settle(hold, 0)
                got[member] += 1

        events = [(i / greed, "greedy") for i in range(300 * greed)]
        every = shares / modest  # seconds between two requests of a modest member
        events += [(5 + m + i * every, f"modest{m}") for m in range(members) for i in range(int(290 / every))]
        for at, member in sorted(events):
            ask(member, at)
        assert not [key for key in refused if key[0] != "greedy" and key[1]]  # once it is known that they are there
        assert sum(got.values()) >= 0.9 * 300  # and what they leave over is not wasted
        table.close()
