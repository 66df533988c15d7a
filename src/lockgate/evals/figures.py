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


def apart(one: float, other: float, unit: Unit) -> tuple[str, str]:
    """Both, with as many digits as it takes to tell them apart.

    >>> apart(0.6875, 0.69, "score"), apart(0.5, 0.69, "score")
    (('0.688', '0.690'), ('0.50', '0.69'))
    """
    texts = show(one, unit), show(other, unit)
    before, factor, after = {"usd": ("$", 1, ""), "seconds": ("", 1, " s"), "rate": ("", 100, "%")}.get(
        unit, ("", 1, "")
    )
    places = 2
    while texts[0] == texts[1] and one != other and places < 15:
        places += 1
        texts = (f"{before}{one * factor:.{places}f}{after}", f"{before}{other * factor:.{places}f}{after}")
    return texts


def signed(value: float, unit: Unit) -> str:
    """The same with its sign, for differences."""
    return ("−" if value < 0 else "+") + show(abs(value), unit)
