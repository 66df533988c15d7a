"""When a budget deserves attention. Pure; the control plane's tick raises and resolves the alerts."""

from __future__ import annotations

from lockgate.limits.model import Balance
from lockgate.limits.reconcile import Line
from lockgate.money import show_change, show_usd

WARN_PERCENT = 70


def taken_percent(balance: Balance) -> float | None:
    """What is settled and held, in percent of the cap; None without a cap. A cap of zero is used up."""
    if balance.cap is None:
        return None
    return 100.0 * (balance.settled + balance.held) / balance.cap if balance.cap else 100.0


def crossing(balance: Balance, warn: float = WARN_PERCENT) -> float | None:
    """The highest line crossed: ``warn`` percent (near the cap, or it turned a call away), 100 (at it, or near it while
    it turned a call away), or None.

    Holds count, because what is held may be spent. A call that asks for more than there is left of a budget that is
    hardly used says more of the caller than of the budget. A cap of zero is no news while nobody comes up against it.
    """
    percent = taken_percent(balance)
    if percent is None or (balance.cap == 0 and not (balance.refused or balance.settled)):
        return None
    if percent >= 100 or (balance.refused and percent >= warn):
        return 100
    return warn if percent >= warn or balance.refused else None


def alert_message(balance: Balance) -> str:
    """One line for the alert: ``agent:prod:triage (2026-11-21): 71 % of $50.00 is spent or held: $34.10 and $1.40``.

    Calls may be refused below 100 %: by what each may need at most, which is more than what is left.
    """
    when = f" ({balance.window})" if balance.window else ""
    percent = taken_percent(balance)
    if balance.unit == "usd":
        figures = (balance.cap or 0, balance.settled, balance.held, balance.left or 0)
        cap, spent, held, left = map(show_usd, figures)
    else:
        cap, spent, held = f"{balance.cap or 0:,} {balance.unit}", f"{balance.settled:,}", f"{balance.held:,}"
        left = f"{balance.left or 0:,}"
    refused = ""
    if balance.refused:
        what = "1 call was refused: it" if balance.refused == 1 else f"{balance.refused:,} calls were refused: each"
        refused = f"; {what} may have needed more than was left" + (f" ({left} now)" if balance.left else "")
    if balance.cap == 0:
        spent = f", and {spent} is spent" if balance.settled else ""
        return f"{balance.account}{when}: the cap is 0{spent}; calls that were refused: {balance.refused:,}"
    taken = "spent or held" if balance.held else "spent"
    parts = f"{spent} and {held}" if balance.held else spent
    return f"{balance.account}{when}: {percent or 0:.0f} % of {cap} is {taken}: {parts}{refused}"


def reconcile_message(line: Line) -> str:
    """One line for an account whose calls add up to something else than was charged."""
    more = "more" if line.difference > 0 else "less"
    since = f", corrected since by {show_change(line.corrected)}" if line.corrected else ""
    return (
        f"{line.account} ({line.window}): the ledger has {show_usd(abs(line.difference))} {more} than the spans: "
        f"settled {show_usd(line.settled)}, traced {show_usd(line.told)}, "
        f"known without a trace {show_usd(line.untraced)}{since}"
    )
