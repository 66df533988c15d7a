"""``lockgate budgets``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lockgate.console import JsonFlag, emit, table
from lockgate.limits.alerts import used_percent
from lockgate.limits.model import Balance
from lockgate.money import show_usd, to_usd


def budgets(
    agent: Annotated[str | None, typer.Option(help="Only this agent's budgets, in every environment.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Also what single runs have used.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show what is spent, held and left of each budget today (days are UTC).

    Held is money reserved for calls under way; it is settled to their true cost when they end.

    Example: lockgate budgets --agent refund-triage
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    found = app.ledger.balances(app.holds if app.holds_path.exists() else None)
    shown = [balance for balance in found if _is_wanted(balance, agent, runs)]
    if agent is not None and not shown:
        app.versions.locked(agent)  # an agent that does not exist is an error, one that spent nothing is not
    emit([_row(balance) for balance in shown], json, lambda: _draw(shown))


def _is_wanted(balance: Balance, agent: str | None, runs: bool) -> bool:
    kind, _, name = balance.account.partition(":")
    if agent is not None:
        return kind == "agent" and name.partition(":")[2] == agent
    return kind != "run" or runs


def _row(balance: Balance) -> dict[str, Any]:
    row: dict[str, Any] = {"account": balance.account, "window": balance.window, "unit": balance.unit}
    for name, figure in (
        ("cap", balance.cap),
        ("settled", balance.settled),
        ("held", balance.held),
        ("left", balance.left),
    ):
        if balance.unit == "usd":
            row[f"{name}_usd"] = None if figure is None else to_usd(figure)
        else:
            row[name] = figure
    return row | {"used_percent": used_percent(balance), "refused": balance.refused}


def _draw(balances: list[Balance]) -> None:
    from lockgate.console import console

    if not balances:
        console().print("Nothing is spent yet today.")
        return

    def figure(balance: Balance, value: int | None) -> str:
        if value is None:
            return "–"
        return show_usd(value) if balance.unit == "usd" else f"{value:,} {balance.unit}"

    def percent(balance: Balance) -> str:
        used = used_percent(balance)
        return "" if used is None else f"{used:.0f} %"

    table(
        ("budget", "window", "spent", "held", "left", "cap", "used", "refused"),
        (
            (
                balance.account,
                balance.window,
                figure(balance, balance.settled),
                figure(balance, balance.held),
                figure(balance, balance.left),
                figure(balance, balance.cap),
                percent(balance),
                str(balance.refused or ""),
            )
            for balance in balances
        ),
    )
