"""Keys in a pool: each asks as often as it may, the next one takes over, and nobody waits for minutes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import UpstreamBusy
from lockgate.gateway.upstreams.balance import Quota
from lockgate.gateway.upstreams.pool import Pool
from lockgate.project.model import ResolvedProvider, ResolvedUpstream


def provider(first: int | None, *further: int | None) -> ResolvedProvider:
    return ResolvedProvider(
        name="openai",
        kind="openai",
        base_url="https://a/v1",
        api_key="${env:ONE}",
        weights=None,
        timeout=5.0,
        requests_per_minute=first,
        upstreams=tuple(
            ResolvedUpstream(base_url="https://a/v1", api_key="${env:TWO}", requests_per_minute=quota)
            for quota in further
        ),
    )


@given(st.integers(1, 600), st.lists(st.floats(0, 30), max_size=60))
def test_in_no_minute_is_more_asked_than_the_quota_and_ten_seconds_worth(per_minute: int, pauses: list[float]) -> None:
    quota, now, asked = Quota(per_minute), 1000.0, []
    for pause in pauses:
        now += pause
        while quota.wait(now) <= 0:
            quota.ask(now)
            asked.append(now)
    for end in asked:
        within = sum(end - 60 < one <= end for one in asked)
        assert within <= per_minute + max(1, per_minute / 6) + 1


async def test_the_next_key_takes_over_and_then_it_is_said_when_to_come_back() -> None:
    pool = Pool(provider(6, 12), ["one", "two"], lambda provider, upstream, is_open: None)
    taken = [(await pool.take()).id for _ in range(3)]
    assert sorted(taken) == ["one", "two", "two"]  # ten seconds' worth of each
    with pytest.raises(UpstreamBusy, match="used up") as full:
        await pool.take()
    assert full.value.sent is False
    assert 3 < (full.value.retry_after or 0) <= 5


async def test_a_key_without_a_quota_takes_what_is_over() -> None:
    pool = Pool(provider(6, None), ["one", "two"], lambda provider, upstream, is_open: None)
    taken = [(await pool.take()).id for _ in range(20)]
    assert taken.count("one") == 1


async def test_workers_share_a_quota() -> None:
    pool = Pool(provider(60), ["one"], lambda provider, upstream, is_open: None, workers=10)
    assert (await pool.take()).id == "one"
    with pytest.raises(UpstreamBusy):
        await pool.take()


async def test_a_changed_file_keeps_what_was_asked_under_the_same_quota() -> None:
    pool = Pool(provider(6), ["one"], lambda provider, upstream, is_open: None)
    await pool.take()
    pool.configure(provider(6), ["one"])
    with pytest.raises(UpstreamBusy):
        await pool.take()
    pool.configure(provider(60), ["one"])
    assert (await pool.take()).id == "one"
