"""``lockgate budgets``."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from lockgate.console import JsonFlag, console, emit, group, table
from lockgate.errors import InputError
from lockgate.limits.alerts import taken_percent
from lockgate.limits.model import Balance
from lockgate.money import Nano, show_change, show_usd, to_nano, to_usd

if TYPE_CHECKING:
    from lockgate.limits.charges import Charge
    from lockgate.limits.reconcile import Line, Paid
    from lockgate.limits.simulate import Bill

budgets = group(
    "Show what is spent, held and left of each budget, how fast, and for how long.\n\n"
    "Held is money reserved for calls under way; it is settled to their true cost when they end.\n\n"
    "Example: lockgate budgets --agent refund-triage",
    alone=True,
)


@budgets.callback()
def show(
    context: typer.Context,
    agent: Annotated[str | None, typer.Option(help="Only this agent's budgets, in every environment.")] = None,
    tenant: Annotated[str | None, typer.Option(help="Only this tenant's budgets, in every environment.")] = None,
    runs: Annotated[bool, typer.Option("--runs", help="Also what single runs and sessions have used.")] = False,
    json: JsonFlag = False,
) -> None:
    if context.invoked_subcommand is not None:
        return
    from lockgate.bootstrap import open_app

    app = open_app()
    holds = app.holds if app.holds_path.exists() else None
    found = app.ledger.balances(holds, capped=app.capped(), day=app.day)
    burning = app.ledger.burning()
    shown = [balance for balance in found if _is_wanted(balance, agent, tenant, runs)]
    if agent is not None and not shown:
        app.versions.locked(agent)  # an agent that does not exist is an error, one that spent nothing is not
    rows = [(balance, burning.get(balance.key, 0.0)) for balance in shown]
    at_bound = app.ledger.at_bound({balance.key for balance in shown})
    emit([_row(*row) for row in rows], json, lambda: _draw(rows, *at_bound))


@budgets.command("simulate")
def simulate(
    traffic: Annotated[str, typer.Option("--traffic", help="How many times the recorded calls: x20.")] = "x1",
    iterations: Annotated[int, typer.Option("--iterations", min=1, help="Rounds of each run, of one recorded.")] = 1,
    day: Annotated[
        str | None,
        typer.Option("--day", help="The day whose calls are played, in each environment's time zone. Default: today."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Say what a day's recorded calls would cost with more traffic, what the caps would deny, and whom.

    Exits with 1 when calls would be denied.

    Example: lockgate budgets simulate --traffic x20 --iterations 3
    """
    from lockgate.bootstrap import open_app
    from lockgate.limits.book import Caller
    from lockgate.limits.budgets import accounts_for
    from lockgate.limits.simulate import simulate as play
    from lockgate.limits.windows import bounds, window_of

    app = open_app()
    zone = app.project.config.limits.time_zone or "UTC"
    zones = {environment: app.books(environment).zone for environment in app.project.config.environments}
    days = {one: day or window_of(app.clock(), "day", one).partition(" ")[0] for one in {zone, *zones.values()}}
    try:
        times = float(traffic.lower().removeprefix("x"))
    except ValueError:
        times = 0.0
    if not 0 < times < 1e6:
        raise InputError(f"--traffic is {traffic!r}", remedy="write a number above 0, such as x20")
    try:
        played = {one: bounds(f"{name} {one}") for one, name in days.items()}
    except ValueError:
        raise InputError(f"--day is {day!r}", remedy="write 2026-11-21") from None
    deployed = app.ledger.deployed()

    def accounts(call: Any) -> list[Any]:
        if call.environment not in app.project.config.environments:
            return []
        book = app.books(call.environment)
        key = call.key if call.key and call.key != call.run_id else ""
        caller = Caller(
            tenant=call.tenant, key=key, agent=call.agent, model=call.model or "",
            task=call.task, labels=call.labels, session=call.session,
        )  # fmt: skip
        return accounts_for(
            environment=call.environment, tenant=call.tenant, now=call.at, agent=call.agent,
            settings=deployed.get((call.environment, call.agent or "")), day=book.day(call.at),
            limits=book.limits(caller, call.at)[0],
        )  # fmt: skip

    def is_played(call: Paid) -> bool:
        begin, end = played[zones.get(call.environment, zone)]
        return begin <= call.at < end

    begins, ends = zip(*played.values(), strict=True)
    calls = filter(is_played, app.accounting.calls(min(begins), max(ends)))
    bill = play(calls, times * iterations, accounts)
    own = {environment: {"day": days[one], "time_zone": one} for environment, one in zones.items()}
    shown = {
        "day": days[zone], "time_zone": zone, "environments": own, "traffic": times, "iterations": iterations,
        **_bill(bill),
    }  # fmt: skip
    on = ", ".join([f"{days[zone]} {zone}", *(f"{e}: {days[z]} {z}" for e, z in zones.items() if z != zone)])
    emit(shown, json, lambda: _draw_bill(bill, times, iterations, on, zones))
    if bill.denied:
        raise typer.Exit(1)


@budgets.command("reconcile")
def reconcile(
    days: Annotated[int, typer.Option("--days", min=1, max=92, help="How many days back.")] = 2, json: JsonFlag = False
) -> None:
    """Hold the ledger against the spans, and correct charges whose true figure can be had by now.

    The ledger is to have what the spans tell, what is charged for calls that left no span, and what became of charges
    at their bound when they were corrected (a span keeps the bound). It is done every night too; what does not agree
    is an alert. Exits with 1 when something does not.

    Example: lockgate budgets reconcile
    """
    from lockgate.bootstrap import open_app
    from lockgate.ticks import Reconciliation

    lines = Reconciliation(open_app()).tell(days)
    wrong = [line for line in lines if not line.agrees]
    emit([_line(line) for line in lines], json, lambda: _draw_lines(lines))
    if wrong:
        raise typer.Exit(1)


@budgets.command("charges")
def charges(json: JsonFlag = False) -> None:
    """List calls that were charged at their bound, because what they used is not known (yet).

    The reason is no_usage (the answer did not say, or was cut off), died (the process that made the call; or nobody
    ended a hold of /v1/holds), batch (it has not ended yet), batch_no_usage (it ended, and does not say) or lost (a
    machine, with what it had leased).

    Example: lockgate budgets charges
    """
    from lockgate.bootstrap import open_app
    from lockgate.limits.store import BATCH

    app = open_app()
    app.accounting.note()
    found, elsewhere = app.charges.open(), app.charges.elsewhere()
    rows: list[dict[str, Any]] = [
        {
            "id": charge.id,
            "at": charge.at,
            "reason": charge.reason,
            "charged_usd": to_usd(_most(charge, "usd")),
            "charged_tokens": _most(charge, "tokens"),
            "charged_calls": _most(charge, "calls"),
            "accounts": sorted({key[0] for key, _ in charge.parts}),
        }
        for charge in found
    ]

    def render() -> None:
        columns = ("id", "reason", "charged", "accounts")
        if elsewhere:
            named = ", ".join(elsewhere)
            console().print(f"Other machines have some that are listed and corrected there: {named}.", markup=False)
        if not rows:
            console().print("Nothing is charged at its bound" + (" here." if elsewhere else "."))
            return

        def charged(row: dict[str, Any]) -> str:
            others = [f"{row[f'charged_{unit}']:,} {unit}" for unit in ("tokens", "calls") if row[f"charged_{unit}"]]
            return f"${row['charged_usd']:.6f}" if row["charged_usd"] or not others else ", ".join(others)

        table(columns, [(r["id"], r["reason"], charged(r), ", ".join(r["accounts"])) for r in rows])
        if any(row["reason"] != BATCH for row in rows):
            out = "Put in what the provider's bill has: lockgate budgets correct ID --usd …"
            console().print(out, markup=False)

    emit(rows, json, render)


@budgets.command("correct")
def correct(
    charge: Annotated[str, typer.Argument(help="Its id, as `budgets charges` shows it.")],
    usd: Annotated[float, typer.Option("--usd", min=0, help="What the call cost, by the provider's bill.")],
    tokens: Annotated[
        int | None, typer.Option("--tokens", min=0, help="The tokens it used. Default: as they are charged.")
    ] = None,
    calls: Annotated[
        int | None,
        typer.Option("--calls", min=0, help="Of a lost machine: the calls it made. Default: as they are charged."),
    ] = None,
    above_bound: Annotated[
        bool, typer.Option("--above-bound", help="Also when that is more than what is charged now.")
    ] = False,
) -> None:
    """Charge what a call really cost, in place of its bound.

    This is done once: a figure above what is charged is refused, unless it is said to be meant.

    Example: lockgate budgets correct 4bf92f3577b34da6 --usd 0.0021 --tokens 1500
    """
    from lockgate.bootstrap import open_app
    from lockgate.limits.charges import Used, alert_key

    opened = open_app()
    nano = to_nano(usd)
    for one in opened.charges.open():
        if one.id == charge:
            _check(one, {"usd": nano, "tokens": tokens, "calls": calls}, above_bound)
    opened.charges.correct(charge, Used(nano, tokens, calls))
    opened.alerts.resolve(alert_key(charge))
    more = "".join(f", {count:,} {unit}" for count, unit in ((tokens, "tokens"), (calls, "calls")) if count)
    console().print(f"{charge} is charged at {show_usd(nano)}{more}.", markup=False)


def _check(charge: Charge, given: Mapping[str, int | None], above_bound: bool) -> None:
    """Refuse what is likely a slip, since nobody can put a correction right."""
    bounds = {unit: _most(charge, unit) for unit in given if any(key[2] == unit for key, _ in charge.parts)}
    if bounds and all(given[unit] is None for unit in bounds):
        wanted = " or ".join(f"--{unit}" for unit in bounds)
        raise InputError(f"{charge.id} is charged in {' and '.join(bounds)}", remedy=f"say what it was with {wanted}")
    for unit, bound in bounds.items():
        amount = given[unit]
        if amount is not None and amount > bound and not above_bound:
            shown = show_usd(bound) if unit == "usd" else f"{bound:,} {unit}"
            raise InputError(
                f"--{unit} is more than the {shown} that {charge.id} is charged at now",
                remedy="look at the figure again; if the provider's bill has it, add --above-bound",
            )


def _most(charge: Charge, unit: str) -> int:
    """What it comes to on the account where that is most."""
    return max((amount for key, amount in charge.parts if key[2] == unit), default=0)


# --- what is printed ------------------------------------------------------------------------------------------


def _is_wanted(balance: Balance, agent: str | None, tenant: str | None, runs: bool) -> bool:
    kind, _, name = balance.account.partition(":")
    for wanted, given in (("agent", agent), ("tenant", tenant)):
        if given is not None:
            return kind == wanted and name.partition(":")[2] == given
    return kind not in ("run", "session") or runs


def time_to_empty(balance: Balance, burn: float) -> float | None:
    """Seconds until nothing is left at this rate; None without a cap, or when nothing is being spent."""
    if balance.left is None or balance.unit == "concurrent":
        return None
    if balance.left == 0:
        return 0.0
    return balance.left / burn if burn > 0 else None


def _row(balance: Balance, burn: float) -> dict[str, Any]:
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
    per_hour = burn * 3600
    row["burn_usd_per_hour" if balance.unit == "usd" else "burn_per_hour"] = (
        per_hour / 1e9 if balance.unit == "usd" else per_hour
    )
    return row | {
        "seconds_to_empty": time_to_empty(balance, burn),
        "spent_or_held_percent": taken_percent(balance),
        "refused": balance.refused,
    }


def _figure(balance: Balance, value: float | None) -> str:
    if value is None:
        return "–"
    if balance.unit == "usd":
        return show_usd(round(value))
    return f"{value:,.0f} {'at once' if balance.unit == 'concurrent' else balance.unit}"


def _draw(rows: list[tuple[Balance, float]], bounds: int, at_bound: Nano) -> None:
    if not rows:
        console().print("Nothing is spent yet today.")
        return

    def percent(balance: Balance) -> str:
        taken = taken_percent(balance)
        return "" if taken is None else f"{taken:.0f} %"

    table(
        ("budget", "window", "spent", "held", "left", "cap", "spent or held", "an hour", "empty in", "refused"),
        (
            (
                balance.account,
                balance.window,
                _figure(balance, None if balance.unit == "concurrent" else balance.settled),
                _figure(balance, balance.held),
                _figure(balance, balance.left),
                _figure(balance, balance.cap),
                percent(balance),
                _figure(balance, burn * 3600) if burn * 3600 >= 1 else "",
                _duration(time_to_empty(balance, burn)),
                str(balance.refused or ""),
            )
            for balance, burn in rows
        ),
    )
    if bounds:
        what = "1 charge" if bounds == 1 else f"{bounds:,} charges"
        console().print(
            f"{show_usd(at_bound)} of it is the bound of {what} of which nobody knows what was used: "
            "see `lockgate budgets charges`.",
            markup=False,
        )


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return ""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.0f} s"


def _bill(bill: Bill) -> dict[str, Any]:
    return {
        "calls": bill.calls,
        "recorded_usd": to_usd(bill.recorded),
        "uncapped_usd": to_usd(bill.uncapped),
        "capped_usd": to_usd(bill.capped),
        "asked_calls": bill.asked,
        "denied_calls": bill.denied,
        "stops": [
            {
                "account": stop.account, "window": stop.window, "cap_usd": to_usd(stop.cap), "tenant": stop.tenant,
                "agent": stop.agent, "denied_calls": stop.calls, "denied_usd": to_usd(stop.nano),
                "first_at": stop.first_at,
            }
            for stop in bill.stops
        ],
    }  # fmt: skip


def _draw_bill(bill: Bill, traffic: float, iterations: int, on: str, zones: Mapping[str, str]) -> None:
    out = console()
    out.print(f"{bill.calls:,} calls are recorded ({on}), and cost {show_usd(bill.recorded)}.", markup=False)
    out.print(
        f"With traffic x{traffic:g} and {iterations} iterations: {show_usd(bill.uncapped)} without caps, "
        f"{show_usd(bill.capped)} with them; {bill.denied:,.0f} of {bill.asked:,.0f} calls would be denied.",
        markup=False,
    )
    if bill.stops:
        rows = [
            (
                f"{stop.account} {stop.window}".strip(), show_usd(stop.cap), stop.tenant, stop.agent or "–",
                f"{stop.calls:,.0f}", show_usd(stop.nano),
                _clock_there(stop.first_at, zones[stop.account.split(":")[1]]),
            )
            for stop in bill.stops
        ]  # fmt: skip
        table(("stopped by", "cap", "tenant", "agent", "calls", "worth", "from"), rows)


def _clock_there(at: float, zone: str) -> str:
    return f"{datetime.fromtimestamp(at, ZoneInfo(zone)):%H:%M} {zone}"


def _line(line: Line) -> dict[str, Any]:
    return {
        "account": line.account, "window": line.window, "settled_usd": to_usd(line.settled),
        "traced_usd": to_usd(line.told), "untraced_usd": to_usd(line.untraced),
        "corrected_usd": to_usd(line.corrected), "difference_usd": to_usd(line.difference), "agrees": line.agrees,
    }  # fmt: skip


def _draw_lines(lines: list[Line]) -> None:
    if not lines:
        console().print("Nothing was spent in these days.")
        return
    rows = [
        (
            line.account, line.window, show_usd(line.settled), show_usd(line.told),
            show_usd(line.untraced) if line.untraced else "", show_change(line.corrected) if line.corrected else "",
            "agrees" if line.agrees else f"differs by {show_usd(abs(line.difference))}",
        )
        for line in lines
    ]  # fmt: skip
    table(("budget", "window", "ledger", "spans", "without a span", "corrected", ""), rows)
