"""A day's calls played again with more traffic."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from lockgate.limits.model import Account
from lockgate.limits.reconcile import Paid
from lockgate.limits.simulate import simulate

DAY = "2026-11-18"


def paid(cost: int, at: float = 0.0, tenant: str = "acme") -> Paid:
    return Paid(
        span_id="0" * 16, at=at, environment="prod", tenant=tenant, agent="triage", key="k", run_id=None, model="m/x",
        cost_nano=cost,
    )  # fmt: skip


def of_tenant(cap: int | None) -> object:
    return lambda call: [Account(name=f"tenant:prod:{call.tenant}", window=DAY, cap=cap)]


def test_traffic_multiplies_the_bill_and_a_cap_stops_the_rest() -> None:
    calls = [paid(100, at=float(number)) for number in range(10)]
    bill = simulate(calls, 20, of_tenant(12_000))  # type: ignore[arg-type]
    assert (bill.recorded, bill.uncapped, bill.capped) == (1_000, 20_000, 12_000)
    assert (bill.asked, bill.denied) == (200, 80)
    [stop] = bill.stops
    assert (stop.account, stop.tenant, stop.agent, stop.calls, stop.nano) == (
        "tenant:prod:acme", "acme", "triage", 80, 8_000,
    )  # fmt: skip
    assert stop.first_at == 6.0


def test_one_tenants_cap_does_not_stop_another() -> None:
    bill = simulate([paid(100), paid(900, tenant="zoo")], 10, of_tenant(2_000))  # type: ignore[arg-type]
    assert {stop.tenant: stop.nano for stop in bill.stops} == {"zoo": 7_200}
    assert bill.capped == 1_000 + 1_800


@given(
    costs=st.lists(st.integers(1, 1000), max_size=30),
    factor=st.floats(0.5, 50),
    cap=st.none() | st.integers(0, 50_000),
)
def test_what_is_let_through_and_what_is_not_add_up(costs: list[int], factor: float, cap: int | None) -> None:
    bill = simulate([paid(cost, at=float(at)) for at, cost in enumerate(costs)], factor, of_tenant(cap))  # type: ignore[arg-type]
    denied = sum(stop.nano for stop in bill.stops)
    assert abs(bill.uncapped - bill.capped - denied) <= 2 + len(bill.stops)
    assert bill.capped <= (cap if cap is not None else bill.uncapped) + 1
    assert bill.asked + 1e-6 >= bill.denied
