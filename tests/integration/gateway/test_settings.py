"""What people set takes hold of calls in a worker that runs: switches, budgets, prices and files."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy.exc import OperationalError

from lockgate.errors import Killed
from lockgate.gateway.model import RunClaims
from lockgate.gateway.tokens import sign
from lockgate.settings.model import Scope

if TYPE_CHECKING:
    from conftest import FakeHost, RunningGateway

MODEL = "fake/fake-model"


def ask(
    gateway: RunningGateway, credential: str, *, model: str = MODEL, path: str = "/v1/chat/completions", **headers: str
) -> Any:
    """``(status, headers, body)`` of one call."""
    body = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
    if path.startswith("/api"):
        body = {"input": "hi"}
    request = urllib.request.Request(
        gateway.url + path,
        json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {credential}", **headers},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.loads(error.read())


def put(gateway: RunningGateway, name: str, value: Any, **scope: str) -> None:
    gateway.app.settings.set(name, value, Scope(**scope), actor="cli:ann", reason="pays twice")
    gateway.refresh()


def take_away(gateway: RunningGateway, name: str, **scope: str) -> None:
    gateway.app.settings.unset(name, Scope(**scope), actor="cli:ann")
    gateway.refresh()


def run_token(gateway: RunningGateway, agent: str = "triage") -> str:
    claims = RunClaims(
        run_id="run_1",
        agent=agent,
        environment="dev",
        tenant="acme",
        behaviour_digest="sha256:" + "a" * 64,
        effective_digest="sha256:" + "b" * 64,
        arm="stable",
        trace_id="a" * 32,
        depth=0,
        expires_at=gateway.app.clock() + 60,
        max_usd_nano=None,
        max_llm_calls=10,
        max_tokens=10_000,
    )
    return sign(claims, gateway.app.secret)


@pytest.mark.parametrize(
    "scope", [{"tenant": "acme"}, {"environment": "dev"}, {"model": MODEL}, {"model": "fake/*", "tenant": "acme"}]
)
def test_a_killed_call_is_refused_with_who_why_and_how_to_lift_it(gateway: RunningGateway, scope: Any) -> None:
    key = gateway.key()
    put(gateway, "kill", True, **scope)
    status, headers, body = ask(gateway, key)
    assert (status, body["error"]["code"]) == (403, "killed")
    assert "by cli:ann at" in body["error"]["message"]
    assert "pays twice" in body["error"]["message"]
    assert "lockgate settings unset kill --" in body["error"]["message"]
    assert headers["retry-after"] is None
    take_away(gateway, "kill", **scope)
    assert ask(gateway, key)[0] == 200


def test_a_killed_call_reaches_no_provider_and_holds_no_money(gateway: RunningGateway, model: Any) -> None:
    key = gateway.key()
    put(gateway, "kill", True, tenant="acme")
    ask(gateway, key)
    assert model.requests == []
    assert [one for one in gateway.balances("tenant:") if one.settled or one.held] == []


def test_others_go_on(gateway: RunningGateway) -> None:
    put(gateway, "kill", True, tenant="acme")
    put(gateway, "kill", True, agent="triage")
    put(gateway, "kill", True, environment="prod")
    assert ask(gateway, gateway.key(tenant="other"))[0] == 200
    assert ask(gateway, gateway.key(tenant="other", environment="staging"))[0] == 200


def test_a_killed_agent_is_not_run_and_its_runs_under_way_call_no_model(
    gateway: RunningGateway, hosts: Callable[[str], FakeHost]
) -> None:
    host = hosts("b")
    gateway.route()
    key, token = gateway.key(), run_token(gateway)
    assert ask(gateway, key, path="/api/v1/agents/triage/runs")[0] == 200
    assert ask(gateway, token)[0] == 200
    put(gateway, "kill", True, agent="triage", environment="dev")
    status, _, problem = ask(gateway, key, path="/api/v1/agents/triage/runs")
    assert (status, problem["code"], problem["what"]) == (403, "killed", "agent")
    assert ask(gateway, key, model="agent:triage")[0] == 403
    assert ask(gateway, token)[2]["error"]["code"] == "killed"
    assert len(host.requests) == 1
    assert ask(gateway, run_token(gateway, "other"))[0] == 200


def test_a_call_that_names_a_killed_agent_by_its_header_is_refused(gateway: RunningGateway) -> None:
    key = gateway.key()
    put(gateway, "kill", True, agent="triage")
    assert ask(gateway, key, **{"x-lockgate-agent": "triage"})[2]["error"]["code"] == "killed"
    assert ask(gateway, key, **{"x-lockgate-agent": "other"})[0] == 200


def test_a_switch_holds_while_the_store_is_away(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    put(gateway, "kill", True, tenant="acme")

    def away() -> Any:
        raise OperationalError("select", {}, Exception("the store is away"))

    key = gateway.key()
    assert ask(gateway, key)[0] == 403
    monkeypatch.setattr(gateway.app.control, "read", away)
    gateway.refresh()
    assert ask(gateway, key)[0] == 403


def test_a_tenants_day_and_an_agents_day_are_capped_by_what_is_set(gateway: RunningGateway) -> None:
    key = gateway.key()
    put(gateway, "limit.daily_usd", 0, tenant="acme")
    status, _, body = ask(gateway, key)
    assert (status, body["error"]["code"]) == (429, "limit_exceeded")
    assert "tenant:dev:acme" in body["error"]["limit"]
    take_away(gateway, "limit.daily_usd", tenant="acme")
    assert ask(gateway, key)[0] == 200
    gateway.route()
    put(gateway, "limit.daily_usd", 0, agent="triage")
    status, _, body = ask(gateway, run_token(gateway))
    assert status == 429
    assert "agent:dev:triage" in body["error"]["limit"]
    take_away(gateway, "limit.daily_usd", agent="triage")
    assert ask(gateway, run_token(gateway))[0] == 200


def test_a_price_that_is_set_goes_before_the_file(gateway: RunningGateway) -> None:
    key = gateway.key()
    before = float(ask(gateway, key)[1]["x-lockgate-cost-usd"])
    put(gateway, "price", {"input": 100, "output": 200}, model=MODEL)
    assert float(ask(gateway, key)[1]["x-lockgate-cost-usd"]) == pytest.approx(100 * before)
    take_away(gateway, "price", model=MODEL)
    assert float(ask(gateway, key)[1]["x-lockgate-cost-usd"]) == pytest.approx(before)


def test_an_edited_price_file_is_taken_and_a_broken_one_is_not(gateway: RunningGateway, project_folder: Path) -> None:
    key, file = gateway.key(), project_folder / "prices.yaml"
    before = float(ask(gateway, key)[1]["x-lockgate-cost-usd"])
    file.write_text("fake: {fake-model: {input: 10.0, output: 20.0}}\n")
    gateway.refresh()
    assert float(ask(gateway, key)[1]["x-lockgate-cost-usd"]) == pytest.approx(10 * before)
    file.write_text("fake: {fake-model: {input: lots}}\n")
    gateway.refresh()
    assert float(ask(gateway, key)[1]["x-lockgate-cost-usd"]) == pytest.approx(10 * before)
    assert "'lots'" in str(gateway.app.prices.problem)


def test_settings_are_noticed_without_being_told(gateway: RunningGateway) -> None:
    key = gateway.key()
    gateway.app.settings.set("kill", True, Scope(tenant="acme"), actor="cli:ann", reason="x")
    deadline = time.monotonic() + 60
    while ask(gateway, key)[0] != 403:
        assert time.monotonic() < deadline


def test_a_killed_model_does_not_stop_a_run_that_has_another(gateway: RunningGateway) -> None:
    """The refusal says that it is the model, so that the run's own fallback is asked."""
    from lockgate.runtime.failures import PASSING, model_failure
    from lockgate.runtime.wire import failure_of
    from lockgate.versions.model import ModelRef

    put(gateway, "kill", True, model=MODEL)
    status, headers, body = ask(gateway, run_token(gateway))
    failure = failure_of(status, headers, json.dumps(body).encode(), ModelRef(provider="fake", name="fake-model"))
    assert isinstance(failure, Killed)
    assert model_failure(failure, model=MODEL, timeout=1).error_type in PASSING
