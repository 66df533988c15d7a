"""Budgets near and at their cap are noticed; holds count."""

from __future__ import annotations

import pytest

from lockgate.limits.alerts import alert_message, crossing, reconcile_message, taken_percent
from lockgate.limits.model import Balance
from lockgate.limits.reconcile import Line


def balance(settled: int, held: int = 0, cap: int | None = 100, refused: int = 0, unit: str = "usd") -> Balance:
    return Balance(
        account="agent:prod:triage",
        window="2026-11-18",
        cap=cap,
        settled=settled,
        held=held,
        refused=refused,
        unit=unit,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("given", "line"),
    [
        (balance(69), None),
        (balance(70), 70),
        (balance(40, held=30), 70),
        (balance(99), 70),
        (balance(100), 100),
        (balance(60, held=40), 100),
        (balance(97, refused=1), 100),  # a call did not fit: the budget stops calls, if not at 100 % to the cent
        (balance(5, refused=1), 70),  # it may have asked for more than anybody should
        (balance(0, cap=0), None),  # somebody wants it so, and nobody was refused
        (balance(0, cap=0, refused=1), 100),
        (balance(10**12, cap=None), None),
    ],
)
def test_the_line_crossed(given: Balance, line: int | None) -> None:
    assert crossing(given) == line


def test_taken_percent_counts_holds() -> None:
    assert taken_percent(balance(40, held=31)) == 71.0
    assert taken_percent(balance(1, cap=None)) is None


def test_the_message_has_the_arithmetic() -> None:
    nano = balance(34_100_000_000, held=1_400_000_000, cap=50_000_000_000, refused=2)
    assert alert_message(nano) == (
        "agent:prod:triage (2026-11-18): 71 % of $50.00 is spent or held: $34.10 and $1.40; "
        "2 calls were refused: each may have needed more than was left ($14.50 now)"
    )
    assert alert_message(balance(0, cap=0, refused=3)).endswith(
        "(2026-11-18): the cap is 0; calls that were refused: 3"
    )
    assert "80 % of 100 tokens is spent: 80" in alert_message(balance(80, unit="tokens"))
    assert alert_message(balance(100, unit="tokens", refused=1)).endswith(
        "100; 1 call was refused: it may have needed more than was left"
    )


CENT = 10_000_000


def test_a_difference_names_what_was_corrected() -> None:
    line = Line(
        account="a",
        window="2026-11-18",
        settled=7 * CENT,
        traced=4 * CENT,
        untraced=3 * CENT,
        corrected=-2 * CENT,
        slack=0,
    )
    assert (line.difference, line.agrees) == (2 * CENT, False)
    assert reconcile_message(line).endswith("known without a trace $0.030, corrected since by -$0.020")
