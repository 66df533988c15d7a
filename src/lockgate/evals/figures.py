"""Figures as a person reads them. Pure."""

from __future__ import annotations

from lockgate.evals.model import Unit
from lockgate.money import show_usd


def show(value: float, unit: Unit) -> str:
    """``0.83``, ``$0.0042``, ``1.20 s``, ``3.1%``.

    >>> show(0.834, "score"), show(0.0042, "usd"), show(0.031, "rate")
    ('0.83', '$0.0042', '3.1%')
    """
    if unit == "usd":
        return show_usd(round(value * 1e9))
    if unit == "seconds":
        return f"{value:.2f} s"
    if unit == "rate":
        return f"{value:.1%}"
    if unit == "score":
        return f"{value:.2f}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def signed(value: float, unit: Unit) -> str:
    """The same with its sign, for differences."""
    return ("−" if value < 0 else "+") + show(abs(value), unit)
