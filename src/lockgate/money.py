"""Money is an integer of nano-USD (1e-9 USD) wherever it is added up or compared with a cap.

Floats of USD appear only at the edges: configuration read in, figures printed out.
"""

from __future__ import annotations

from decimal import ROUND_CEILING, Decimal

Nano = int
"""Nano-USD. 64 bits hold nine billion dollars."""

NANO = 1_000_000_000


def to_nano(usd: Decimal | float | int | str) -> Nano:
    """USD to nano-USD, rounded up, so that a cost is never under-counted.

    >>> to_nano("0.0000000001")
    1
    """
    return int((Decimal(str(usd)) * NANO).to_integral_value(ROUND_CEILING))


def to_usd(nano: Nano) -> float:
    """Nano-USD to USD, for showing."""
    return nano / NANO


def show_usd(nano: Nano) -> str:
    """As a person reads it: ``$12.50``, ``$0.0042``, ``$0.00000031``.

    >>> show_usd(12_500_000_000), show_usd(4_200_000), show_usd(0)
    ('$12.50', '$0.0042', '$0.00')
    """
    usd = nano / NANO
    if usd == 0 or abs(usd) >= 1:
        return f"${usd:,.2f}"
    digits = Decimal(nano).scaleb(-9)
    places = max(2, 1 - digits.adjusted())
    return f"${digits:.{places}f}"


def show_change(nano: Nano) -> str:
    """What is added, or taken away.

    >>> show_change(-4_200_000), show_change(12_500_000_000)
    ('-$0.0042', '+$12.50')
    """
    return f"{'-' if nano < 0 else '+'}{show_usd(abs(nano))}"
