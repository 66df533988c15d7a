"""Limits at the gateway, over HTTP: rates, budgets by name, runs of any framework, money for other APIs."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lockgate.bootstrap import App
from lockgate.limits import processes
from lockgate.limits.holdtable import STALE_SECONDS
from lockgate.project.limits import LimitSpec
from lockgate.project.service import load_project
from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply

if TYPE_CHECKING:
    from conftest import RunningGateway

USED = Usage(input_tokens=1000, output_tokens=500)  # at $1 and $2 a million: $0.002


def limit(gateway: RunningGateway, **spec: Any) -> None:
    """What lockgate.yaml says of limits, from now on."""
    config = gateway.app.project.config
    gateway.app.project.config = config.model_copy(update={"limits": LimitSpec.model_validate(spec)})


def error(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)["error"]
    return found


def call(tool: str, arguments: str) -> list[dict[str, Any]]:
    made = [{"id": "c1", "type": "function", "function": {"name": tool, "arguments": arguments}}]
    return [{"role": "assistant", "tool_calls": made}, {"role": "tool", "tool_call_id": "c1", "content": "no"}]


def test_a_keys_rate_is_told_with_every_answer_and_kept(gateway: RunningGateway) -> None:
    key = gateway.key(limits={"requests_per_minute": 2})
    told = []
    for _ in range(2):
        status, headers, _ = gateway.ask(key)
        assert status == 200
        told.append((headers["x-ratelimit-limit-requests"], headers["x-ratelimit-remaining-requests"]))
    assert told == [("2", "1"), ("2", "0")]
    status, headers, body = gateway.ask(key)
    assert (status, error(body)["code"]) == (429, "limit_exceeded")
    assert headers["x-ratelimit-remaining-requests"] == "0"
    assert 1 <= int(headers["retry-after"]) <= 31
    assert gateway.ask(gateway.key())[0] == 200  # another key is not concerned


def test_a_refusal_tells_only_of_the_rate_that_refused(gateway: RunningGateway) -> None:
    rates = {"requests_per_minute": 60, "tokens_per_minute": 3000.0}
    limit(gateway, tenants={"acme": {"requests_per_minute": 1, "tokens_per_minute": 3000.0},
                            "full": {"concurrent": 0, **rates}, "poor": {"daily_usd": 0, **rates}})  # fmt: skip
    assert gateway.ask(gateway.key(), max_tokens=10)[0] == 200
    status, headers, body = gateway.ask(gateway.key(), max_tokens=10)
    assert (status, headers["x-ratelimit-remaining-requests"]) == (429, "0")
    assert "x-ratelimit-remaining-tokens" not in headers
    assert "requests_per_minute of limits.tenants.acme" in error(body)["message"]
    for tenant in ("full", "poor"):
        status, headers, _ = gateway.ask(gateway.key(tenant=tenant), max_tokens=10)
        assert status == 429
        assert not any(name.startswith("x-ratelimit") for name in headers)


def test_a_tenants_tokens_a_minute(gateway: RunningGateway, model: FakeModelServer) -> None:
    limit(gateway, tenants={"*": {"tokens_per_minute": 3000.0}})
    model.respond = lambda _: Reply(text="x", usage=USED)  # 1500 tokens, whatever was held
    key = gateway.key()
    _, headers, _ = gateway.ask(key, max_tokens=100)
    assert headers["x-ratelimit-limit-tokens"] == "3000"
    gateway.ask(key, max_tokens=100)
    status, _, body = gateway.ask(key, max_tokens=100)
    assert (status, error(body)["limit"]) == (429, "tenant:dev:acme")
    status, headers, body = gateway.ask(gateway.key(tenant="zoo"), max_tokens=3001)
    assert "this call alone may need" in error(body)["message"]
    assert headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("spec", "headers", "account"),
    [
        ({"tasks": {"summarise": {"daily_usd": 0.001}}}, {"x-lockgate-task": "summarise"}, "task:dev:summarise"),
        ({"labels": {"beta": {"usd": 0.001}}}, {"x-lockgate-labels": "free, beta"}, "label:dev:beta"),
        ({"sessions": {"*": {"usd": 0.001}}}, {"x-lockgate-session": "s1"}, "session:dev:acme/s1"),
        ({"models": {"fake/fake-model": {"monthly_usd": 0.001}}}, {}, "model:dev:fake/fake-model"),
        ({"project": {"monthly_usd": 0.001}}, {}, "project:dev"),
        ({"agents": {"triage": {"daily_usd": 0.001}}}, {"x-lockgate-agent": "triage"}, "agent:dev:triage"),
    ],
)
def test_budgets_by_name(gateway: RunningGateway, spec: Any, headers: Any, account: str) -> None:
    limit(gateway, **spec)
    status, _, body = gateway.ask(gateway.key(), max_tokens=1000, headers=headers)  # $0.002 and more
    assert (status, error(body)["limit"]) == (429, account)
    assert gateway.ask(gateway.key(), max_tokens=10, headers=headers)[0] == 200


def test_another_limit_in_the_file_holds_for_the_next_call(gateway: RunningGateway) -> None:
    key = gateway.key()
    assert gateway.ask(key)[0] == 200
    limit(gateway, tenants={"acme": {"daily_usd": 0.0}})
    assert gateway.ask(key)[0] == 429
    limit(gateway)
    assert gateway.ask(key)[0] == 200


def test_a_run_named_by_a_header_ends_with_a_typed_reason(gateway: RunningGateway) -> None:
    limit(
        gateway, runs={"max_llm_calls": 2, "max_tool_calls": 2, "max_iterations": 1, "max_depth": 1, "max_repeats": 3}
    )
    key = gateway.key()

    def ask(run: str, text: Any = "hi", **headers: str) -> tuple[int, str | None]:
        named = {f"x-lockgate-{name}": value for name, value in headers.items()}
        status, answered, body = gateway.ask(key, text, headers={"x-lockgate-run": run, **named})
        if status == 200:
            return status, None
        assert answered["x-should-retry"] == "false"
        return status, error(body)["reason"]

    assert [ask("calls", text) for text in ("a", "b", "c")] == [(200, None)] * 2 + [(429, "llm_calls_exceeded")]
    user = [{"role": "user", "content": "hi"}]
    three = [*call("look", "{}"), *call("look", '{"a": 1}'), *call("look", '{"a": 2}')]
    assert ask("tools", user + three) == (429, "tool_calls_exceeded")
    same = [*call("look", '{"a": 1, "b": 2}'), *call("look", '{"b":2,"a":1}')]
    assert ask("tools", user + same) == (200, None)
    assert ask("loop", user + same + call("look", '{"a": 1, "b": 2}')) == (429, "loop_detected")
    assert ask("round", iteration="2") == (429, "iterations_exceeded")
    assert ask("deep", depth="2") == (429, "depth_exceeded")


def test_a_call_ends_with_the_time_of_the_run_that_a_header_names(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    limit(gateway, runs={"max_seconds": 0.3})
    model.pause()
    try:
        status, answered, body = gateway.ask(gateway.key(), headers={"x-lockgate-run": "slow"})
    finally:
        model.resume()
    assert (status, error(body)["reason"]) == (429, "time_exceeded")
    assert answered["x-should-retry"] == "false"


def test_a_run_that_asks_the_same_again_and_again_is_stopped(gateway: RunningGateway) -> None:
    limit(gateway, runs={"max_repeats": 3})
    key = gateway.key()
    asked = [gateway.ask(key, "same", headers={"x-lockgate-run": "r"}) for _ in range(4)]
    assert [status for status, _, _ in asked] == [200, 200, 200, 429]
    assert error(asked[-1][2])["reason"] == "loop_detected"
    assert gateway.ask(key, "other", headers={"x-lockgate-run": "r"})[0] == 200


def test_a_key_offers_only_its_tools(gateway: RunningGateway) -> None:
    key = gateway.key(tools=["look"])

    def offered(name: str) -> list[Any]:
        return [{"type": "function", "function": {"name": name, "parameters": {}}}]

    assert gateway.ask(key, tools=offered("look"))[0] == 200
    status, _, body = gateway.ask(key, tools=offered("issue_refund"))
    assert (status, error(body)["message"]) == (
        403, "this key may not use the tool 'issue_refund' (it may use look)",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("path", "field", "value", "said"),
    [
        ("chat/completions", "functions", [{"name": "g"}], "the tool 'g'"),
        ("chat/completions", "web_search_options", {}, "the tool 'web_search'"),
        ("messages", "mcp_servers", [{"type": "url", "url": "https://example.com", "name": "look"}], "'mcp_servers'"),
        ("messages", "container", {"skills": [{"type": "anthropic", "skill_id": "xlsx"}]}, "'container'"),
        ("responses", "prompt", {"id": "pmpt_1"}, "'prompt'"),
        ("responses", "previous_response_id", "resp_1", "'previous_response_id'"),
        (
            "responses",
            "input",
            [{"type": "additional_tools", "tools": [{"type": "function", "name": "g"}]}],
            "tool 'g'",
        ),
    ],
)
def test_a_keys_tools_hold_in_every_field_that_brings_some(
    gateway: RunningGateway, model: FakeModelServer, path: str, field: str, value: Any, said: str
) -> None:
    asked = {"path": f"/v1/{path}", "max_tokens": 10, "input": "hi", field: value}
    status, _, body = gateway.ask(gateway.key(tools=["look"]), **asked)
    assert status == 403
    assert said in error(body)["message"]
    assert model.requests == []
    assert gateway.ask(gateway.key(), **asked)[0] == 200


@pytest.mark.parametrize("header", ["x-lockgate-task", "x-lockgate-run", "x-lockgate-labels"])
def test_a_name_that_is_no_name_is_an_error(gateway: RunningGateway, header: str) -> None:
    assert gateway.ask(gateway.key(), headers={header: "x" * 200})[0] == 400


class Paid:
    """The paths by which money is held for something that is no model call."""

    def __init__(self, gateway: RunningGateway, key: str) -> None:
        self.gateway, self.key = gateway, key

    def __call__(self, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
        headers = {"authorization": f"Bearer {self.key}", "content-type": "application/json"}
        request = urllib.request.Request(f"{self.gateway.url}/v1/holds{path}", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return answer.status, json.loads(answer.read())
        except urllib.error.HTTPError as refused:
            with refused:
                return refused.code, json.loads(refused.read())["error"]

    def spent(self) -> tuple[float, float]:
        [one] = [b for b in self.gateway.balances("tenant:dev:acme") if b.unit == "usd"]
        return one.settled / 1e9, one.held / 1e9


def test_another_api_holds_and_settles_on_the_callers_budgets(gateway: RunningGateway) -> None:
    limit(gateway, tenants={"acme": {"daily_usd": 1.0}})
    paid = Paid(gateway, gateway.key())
    status, held = paid("", what="serpapi", usd=0.6)
    assert (status, held["held_usd"]) == (200, 0.6)
    status, refused = paid("", what="serpapi", usd=0.6)
    assert (status, refused["limit"]) == (429, "tenant:dev:acme")
    assert paid("/settle", id=held["id"], usd=0.25) == (200, {"charged_usd": 0.25})
    assert paid("/settle", id=held["id"], usd=0.25)[0] == 409
    assert paid.spent() == (0.25, 0.0)
    _, again = paid("", what="serpapi", usd=0.6)
    assert paid("/release", id=again["id"])[0] == 200
    assert paid.spent() == (0.25, 0.0)
    lines = {line.account: line for line in gateway_reconciled(gateway)}
    assert (lines["tenant:dev:acme"].traced, lines["tenant:dev:acme"].agrees) == (250_000_000, True)


def test_somebody_elses_hold_and_a_forged_one_are_refused(gateway: RunningGateway) -> None:
    paid, other = Paid(gateway, gateway.key()), Paid(gateway, gateway.key())
    _, held = paid("", what="serpapi", usd=0.1)
    assert other("/settle", id=held["id"], usd=0.0)[0] == 400
    assert paid("/settle", id=held["id"][:-1] + ("y" if held["id"].endswith("x") else "x"), usd=0.0)[0] == 400
    assert paid("/settle", id="é", usd=0.0)[0] == 400
    assert paid("", what="serpapi", usd=-1.0)[0] == 400
    assert paid("", what="serpapi")[0] == 400


def test_no_more_is_settled_than_was_held(gateway: RunningGateway) -> None:
    paid = Paid(gateway, gateway.key())
    _, held = paid("", what="serpapi", usd=0.3)
    status, refused = paid("/settle", id=held["id"], usd=1000)
    assert (status, "0.3 is held" in refused["message"]) == (400, True)
    assert "hold the rest with another POST /v1/holds first" in str(refused)
    assert paid.spent() == (0.0, 0.3)
    assert paid("/settle", id=held["id"], usd=0.1 + 0.2) == (200, {"charged_usd": 0.3})  # not 0.30000000000000004


@pytest.mark.parametrize(("path", "charged"), [("/settle", 0.25), ("/release", 0.0)])
def test_a_hold_is_ended_at_another_worker_when_its_own_has_died(
    gateway: RunningGateway, project_folder: Path, monkeypatch: pytest.MonkeyPatch, path: str, charged: float
) -> None:
    key = gateway.key()
    _, held = Paid(gateway, key)("", what="serpapi", usd=0.6)
    gateway.stop()
    monkeypatch.setattr(processes, "start_time", lambda pid: None)
    other = type(gateway)(App(load_project(project_folder)))
    try:
        other.app.charges.reap()
        paid = Paid(other, key)
        assert paid.spent() == (0.0, 0.6)
        ended = {"usd": charged} if charged else {}
        assert paid(path, id=held["id"], **ended) == (200, {"charged_usd": charged})
        assert paid.spent() == (charged, 0.0)
    finally:
        other.stop()


def test_a_hold_that_nobody_ends_is_charged_in_full_after_an_hour(gateway: RunningGateway) -> None:
    paid = Paid(gateway, gateway.key())
    _, held = paid("", what="serpapi", usd=0.6)
    gateway.app.holds.reap(time.time() + STALE_SECONDS + 1)
    assert paid("/settle", id=held["id"], usd=0.25)[0] == 409
    assert paid.spent() == (0.6, 0.0)


def gateway_reconciled(gateway: RunningGateway) -> Any:
    gateway.rest()
    assert gateway.app.spans.flush(30)
    return gateway.app.accounting.reconcile()


def test_the_ledger_agrees_with_the_spans_and_a_difference_is_an_alert(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    from lockgate.ticks import Reconciliation

    model.respond = lambda _: Reply(text="x", usage=USED)
    for _ in range(3):
        gateway.ask(gateway.key())
    gateway.rest()
    assert gateway.app.spans.flush(30)
    lines = Reconciliation(gateway.app).tell()
    assert {line.account: (line.settled, line.traced) for line in lines} == {"tenant:dev:acme": (6_000_000, 6_000_000)}
    assert gateway.app.alerts.list() == []
    [balance] = [b for b in gateway.balances() if b.account == "tenant:dev:acme"]
    gateway.app.holds.adjust(balance.key, 50_000_000)
    [line] = Reconciliation(gateway.app).tell()
    assert (line.difference, line.agrees) == (50_000_000, False)
    [alert] = gateway.app.alerts.list()
    assert (alert.kind, alert.subject) == ("ledger", "tenant:dev:acme")
    assert "the ledger has $0.050 more than the spans" in alert.message
    gateway.app.holds.adjust(balance.key, -50_000_000)
    with gateway.app.control.write() as connection:
        from lockgate.limits import store

        store.adjust(connection, balance.key, "", -50_000_000)
    Reconciliation(gateway.app).tell()
    assert gateway.app.alerts.list() == []
    with gateway.app.control.write() as connection:
        store.adjust(connection, balance.key, "", -1_000_000)
    [line] = Reconciliation(gateway.app).tell()
    assert line.difference == -1_000_000  # what was spent is missing from the ledger


def test_a_charge_at_its_bound_is_corrected_by_what_the_provider_says_later(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    from lockgate.limits.charges import Used

    model.respond = lambda _: Reply(text="x", report_usage=False)
    gateway.ask(gateway.key(), max_tokens=500)
    app = gateway.app
    gateway.rest()
    assert app.spans.flush(30)
    [before] = [b.settled for b in app.holds.balances() if b.account == "tenant:dev:acme"]
    assert app.accounting.note() == 1
    assert app.accounting.note() == 0
    [charge] = app.charges.open()
    assert (charge.reason, charge.parts[0][1]) == ("no_usage", before)
    app.charges.correct_all(lambda _: Used(1_000_000, 700))
    [after] = [b.settled for b in app.holds.balances() if b.account == "tenant:dev:acme"]
    assert (after, app.charges.open()) == (1_000_000, [])
    [line] = app.accounting.reconcile()
    assert (line.agrees, line.told, line.untraced, line.corrected) == (True, before, 0, 1_000_000 - before)


def test_calls_that_a_loop_is_watched_for_do_not_disturb_the_books(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    limit(gateway, runs={"max_llm_calls": 10})  # a run's calls are counted by what they ask
    model.respond = lambda _: Reply(text="x", report_usage=False)
    assert gateway.ask(gateway.key(), headers={"x-lockgate-run": "r1"})[0] == 200
    gateway.rest()
    assert gateway.app.spans.flush(30)
    assert gateway.app.accounting.note() == 1
    assert [line.agrees for line in gateway.app.accounting.reconcile()] == [True]
