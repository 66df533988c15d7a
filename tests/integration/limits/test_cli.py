"""What `lockgate budgets` prints."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from zoneinfo import ZoneInfo

import msgspec
import pytest
from typer.testing import CliRunner

from lockgate.bootstrap import open_app
from lockgate.cli import app
from lockgate.limits.charges import Charge
from lockgate.limits.model import Account, Unit
from lockgate.limits.windows import day_of, window_of
from lockgate.money import to_nano
from lockgate.telemetry.model import CLIENT, OK, Span

runner = CliRunner()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "lockgate.yaml").write_text("project: p\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def today(project: Path) -> str:
    now = time.time()
    day = day_of(now)
    agent = Account(name="agent:prod:triage", window=day, cap=to_nano(50))
    run = Account(name="run:run_1", window="", cap=10, unit="calls")
    holds = open_app().holds
    holds.settle(holds.hold([agent, run], to_nano(34.1), now=now), to_nano(34.1))
    holds.hold([agent], to_nano("1.4"), now=now)
    holds.hold([Account(name="tenant:prod:acme", window=day, cap=None)], 5, now=now)
    holds.close()
    return day


def test_what_is_spent_held_and_left_of_a_budget(today: str) -> None:
    shown = runner.invoke(app, ["budgets"]).output
    [line] = [line for line in shown.splitlines() if line.startswith("agent:prod:triage")]
    assert line.split() == ["agent:prod:triage", today, "$34.10", "$1.40", "$14.50", "$50.00", "71", "%"]
    assert "run:run_1" not in shown
    assert "tenant:prod:acme" in shown


def test_json_is_in_usd_or_in_the_accounts_unit(today: str) -> None:
    rows = msgspec.json.decode(runner.invoke(app, ["budgets", "--json", "--runs"]).output)
    by_account = {row["account"]: row for row in rows}
    agent = by_account["agent:prod:triage"]
    assert [agent[f"{name}_usd"] for name in ("cap", "settled", "held", "left")] == [50.0, 34.1, 1.4, 14.5]
    assert agent["spent_or_held_percent"] == pytest.approx(71.0)
    run = by_account["run:run_1"]
    assert (run["unit"], run["cap"], run["settled"], run["left"]) == ("calls", 10, 1, 9)


def test_calls_under_way_at_once_are_shown_as_held(project: Path) -> None:
    (project / "lockgate.yaml").write_text("project: p\nlimits: {tenants: {acme: {concurrent: 3}}}\n")
    holds = open_app().holds
    holds.hold([Account(name="tenant:dev:acme", window="", cap=3, unit="concurrent")], 0, now=time.time())
    holds.close()
    shown = runner.invoke(app, ["budgets", "--tenant", "acme"]).output
    [line] = [line for line in shown.splitlines() if line.startswith("tenant:dev:acme")]
    assert line.split()[1:] == ["–", "1", "at", "once", "2", "at", "once", "3", "at", "once", "33", "%"]


@pytest.mark.usefixtures("today")
def test_one_agents_budgets_alone() -> None:
    rows = msgspec.json.decode(runner.invoke(app, ["budgets", "--json", "--agent", "triage"]).output)
    assert [row["account"] for row in rows] == ["agent:prod:triage"]


@pytest.mark.usefixtures("today")
def test_an_agent_that_does_not_exist_is_an_error() -> None:
    shown = runner.invoke(app, ["budgets", "--agent", "traige"])
    assert (shown.exit_code, "no agent 'traige'" in shown.output) == (2, True)


def test_a_project_that_never_ran_has_no_table_made_for_it(project: Path) -> None:
    shown = runner.invoke(app, ["budgets"])
    assert (shown.exit_code, shown.output) == (0, "Nothing is spent yet today.\n")
    assert not (project / ".lockgate" / "holds.table").exists()


@pytest.fixture
def recorded(project: Path) -> None:
    """Ten calls of a tenant today, of a cent each, in the spans and in the ledger."""
    (project / "lockgate.yaml").write_text("project: p\nlimits: {tenants: {acme: {daily_usd: 1.0}}}\n")
    opened, now = open_app(), time.time()
    account = Account(name="tenant:prod:acme", window=day_of(now), cap=to_nano(1))
    for number in range(10):
        opened.holds.settle(opened.holds.hold([account], to_nano("0.02"), now=now), to_nano("0.01"))
        attributes = {
            "lockgate.request_id": "r", "lockgate.environment": "prod", "lockgate.tenant": "acme", "lockgate.key": "k",
        }  # fmt: skip
        opened.spans.emit(
            Span(
                trace_id=bytes([number] * 16), span_id=bytes([number] * 8), parent_id=None, name="chat m", kind=CLIENT,
                start_ns=int(now * 1e9), end_ns=int(now * 1e9), status=OK, agent="triage", model="fake/m",
                cost_nano=to_nano("0.01"), attributes=attributes,
            )
        )  # fmt: skip
    opened.spans.close()
    opened.ledger.persist(opened.holds)
    opened.holds.close()


@pytest.mark.usefixtures("recorded")
def test_the_day_that_is_played_is_the_one_that_the_caps_are_of(project: Path) -> None:
    now = datetime.now(UTC)
    zone = "Pacific/Kiritimati" if now.hour >= 10 else "Pacific/Pago_Pago"  # where it is another day just now
    (project / "lockgate.yaml").write_text(f"project: p\nlimits: {{time_zone: {zone}}}\n")

    def played(*options: str) -> tuple[str, int]:
        bill = msgspec.json.decode(runner.invoke(app, ["budgets", "simulate", "--json", *options]).output)
        return bill["day"], bill["calls"]

    assert played() == (f"{now.astimezone(ZoneInfo(zone)):%Y-%m-%d}", 10)
    assert played("--day", f"{now:%Y-%m-%d}") == (f"{now:%Y-%m-%d}", 0)


@pytest.mark.usefixtures("recorded")
def test_an_environment_with_a_time_zone_of_its_own_has_its_own_day(project: Path) -> None:
    now = datetime.now(UTC)
    zone = "Pacific/Kiritimati" if now.hour >= 10 else "Pacific/Pago_Pago"
    (project / "lockgate.yaml").write_text(
        f"project: p\nlimits: {{tenants: {{acme: {{daily_usd: 1.0}}}}}}\n"
        f"environments: {{dev: {{}}, prod: {{limits: {{time_zone: {zone}}}}}}}\n"
    )

    def played(*options: str) -> tuple[int, list[str]]:
        asked = ["budgets", "simulate", "--json", "--traffic", "x20", *options]
        bill = msgspec.json.decode(runner.invoke(app, asked).output)
        return bill["calls"], [stop["window"] for stop in bill["stops"]]

    there = f"{now.astimezone(ZoneInfo(zone)):%Y-%m-%d}"
    assert played() == (10, [f"{there} {zone}"])
    assert played("--day", there) == (10, [f"{there} {zone}"])
    assert played("--day", f"{now:%Y-%m-%d}") == (0, [])
    shown = runner.invoke(app, ["budgets", "simulate", "--traffic", "x20"]).output
    assert f"10 calls are recorded ({now:%Y-%m-%d} UTC, prod: {there} {zone})" in " ".join(shown.split())


@pytest.mark.usefixtures("recorded")
def test_twenty_times_the_traffic_says_the_bill_and_whom_the_cap_would_stop() -> None:
    shown = runner.invoke(app, ["budgets", "simulate", "--traffic", "x20", "--iterations", "3", "--json"])
    assert shown.exit_code == 1
    bill = msgspec.json.decode(shown.output)
    assert (bill["recorded_usd"], bill["uncapped_usd"], bill["asked_calls"]) == (0.1, 6.0, 600)
    assert bill["capped_usd"] == pytest.approx(1.0, abs=0.03)
    [stop] = bill["stops"]
    assert (stop["account"], stop["tenant"], stop["agent"]) == ("tenant:prod:acme", "acme", "triage")
    assert runner.invoke(app, ["budgets", "simulate", "--traffic", "x2"]).exit_code == 0
    assert runner.invoke(app, ["budgets", "simulate", "--traffic", "much"]).exit_code == 2


@pytest.mark.usefixtures("recorded")
def test_the_ledger_agrees_with_the_spans_until_somebody_changes_it() -> None:
    assert runner.invoke(app, ["budgets", "reconcile"]).exit_code == 0
    opened = open_app()
    [balance] = opened.holds.balances()
    opened.holds.adjust(balance.key, to_nano(1))
    opened.holds.close()
    shown = runner.invoke(app, ["budgets", "reconcile"])
    assert (shown.exit_code, "differs by $1.00" in shown.output) == (1, True)


@pytest.mark.usefixtures("recorded")
def test_a_limit_that_comes_or_goes_inside_of_its_window_is_no_difference(project: Path) -> None:
    opened = open_app()
    month = Account(name="project:prod", window=day_of(time.time())[:7], cap=to_nano(9))
    later = Account(name="tenant:prod:acme", window=window_of(time.time(), "day", "Asia/Tokyo"), cap=to_nano(9))
    now = time.time()
    for account in (month, later):
        opened.holds.settle(opened.holds.hold([account], to_nano("0.02"), now=now), to_nano("0.02"))
    opened.ledger.persist(opened.holds)
    opened.holds.close()
    shown = runner.invoke(app, ["budgets", "reconcile"])  # of the ten calls before, nobody knows which count there
    assert shown.exit_code == 0, shown.output
    lines = {(line.account, line.window): line for line in open_app().accounting.reconcile()}
    assert (lines[month.key[:2]].told, lines[month.key[:2]].settled) == (to_nano("0.02"), to_nano("0.02"))


@pytest.mark.usefixtures("recorded")
def test_a_budget_says_how_fast_it_empties() -> None:
    rows = msgspec.json.decode(runner.invoke(app, ["budgets", "--json", "--tenant", "acme"]).output)
    [row] = [row for row in rows if row["account"] == "tenant:prod:acme"]
    assert row["cap_usd"] == 1.0
    assert row["seconds_to_empty"] is None or row["seconds_to_empty"] > 0


CHARGE = "4bf92f3577b34da6"


@pytest.fixture
def charge(project: Path) -> Callable[..., None]:
    """Charge a call at its bound: so many nano-USD, tokens or calls, on the budgets in those."""

    def charge(reason: str = "died", **bounds: int) -> None:
        opened, now = open_app(), time.time()
        accounts = [Account(name="tenant:prod:acme", window=day_of(now), cap=None, unit=unit) for unit in units(bounds)]
        held = opened.holds.hold(accounts, bounds.get("usd", 0), tokens=bounds.get("tokens", 0), now=now)
        opened.holds.settle(held, bounds.get("usd", 0))
        opened.ledger.persist(opened.holds)
        parts = tuple((account.key, bounds[account.unit]) for account in accounts)
        with opened.control.write() as connection:
            opened.charges.keep(connection, Charge(CHARGE, now, reason, parts, bounds.get("tokens", 0)))
        opened.holds.close()

    return charge


def units(bounds: dict[str, int]) -> list[Unit]:
    known: tuple[Unit, ...] = ("usd", "tokens", "calls")
    return [unit for unit in known if unit in bounds]


def settled() -> dict[str, int]:
    opened = open_app()
    found = {balance.unit: balance.settled for balance in opened.holds.balances("tenant:")}
    opened.holds.close()
    return dict(found)


def correct(*options: str) -> tuple[int, str]:
    shown = runner.invoke(app, ["budgets", "correct", CHARGE, *options])
    return shown.exit_code, " ".join(shown.output.split())


def test_a_correction_leaves_what_is_not_given_as_it_is_charged(charge: Callable[..., None]) -> None:
    charge(usd=to_nano("0.01"), tokens=1500)
    assert correct("--usd", "0.002")[0] == 0
    assert settled() == {"usd": to_nano("0.002"), "tokens": 1500}


def test_a_correction_puts_tokens_right_that_are_given(charge: Callable[..., None]) -> None:
    charge(usd=to_nano("0.01"), tokens=1500)
    assert correct("--usd", "0.002", "--tokens", "0")[0] == 0
    assert settled() == {"usd": to_nano("0.002"), "tokens": 0}


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--usd", "20"), "--usd is more than the $0.010 that 4bf92f3577b34da6 is charged at now"),
        (("--usd", "0", "--tokens", "1501"), "--tokens is more than the 1,500 tokens that"),
    ],
)
def test_a_correction_above_the_bound_has_to_be_meant(
    charge: Callable[..., None], options: tuple[str, ...], said: str
) -> None:
    charge(usd=to_nano("0.01"), tokens=1500)
    code, shown = correct(*options)
    assert (code, said in shown, "--above-bound" in shown) == (2, True, True), shown
    assert settled() == {"usd": to_nano("0.01"), "tokens": 1500}
    assert correct(*options, "--above-bound")[0] == 0  # it waited for it


def test_a_charge_in_tokens_alone_is_not_used_up_by_a_cost(charge: Callable[..., None]) -> None:
    charge("lost", tokens=1500)
    code, shown = correct("--usd", "0")
    assert (code, "say what it was with --tokens" in shown) == (2, True), shown
    assert correct("--usd", "0", "--tokens", "40")[0] == 0
    assert settled() == {"tokens": 40}
