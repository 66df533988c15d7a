"""Answers that are given again: to whom, for what, and what is never kept."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from lockgate.project.guards import TenantSpec
from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, call, failing
from lockgate.versions.model import Guardrails

if TYPE_CHECKING:
    from conftest import FakeHost, RunningGateway

USED = Usage(input_tokens=1000, output_tokens=500)  # $0.002
FRESH: dict[str, Any] = {"temperature": 0}


@pytest.fixture(autouse=True)
def _cached(gateway: RunningGateway, model: FakeModelServer) -> None:
    cached(gateway)
    numbers = iter(range(1000))
    model.respond = lambda _: Reply(text=f"answer {next(numbers)}", usage=USED)


def said(body: bytes) -> str:
    return str(json.loads(body)["choices"][0]["message"]["content"])


def cached(gateway: RunningGateway, **cache: Any) -> None:
    gateway.version = msgspec.structs.replace(gateway.version, cache={"exact": True, "ttl": 60.0, **cache})


def result(headers: dict[str, str]) -> str:
    return {name.lower(): value for name, value in headers.items()}.get("x-lockgate-cache", "")


def test_the_same_request_gets_the_same_answer_for_nothing(gateway: RunningGateway, model: FakeModelServer) -> None:
    key = gateway.run_token()
    status, headers, first = gateway.ask(key, "hi", **FRESH)
    assert (status, result(headers)) == (200, "miss")
    status, headers, second = gateway.ask(key, "hi", user="somebody", **FRESH)
    lowered = {name.lower(): value for name, value in headers.items()}
    assert (status, result(headers), second) == (200, "exact", first)
    assert (lowered["x-lockgate-cost-usd"], lowered["x-lockgate-saved-usd"]) == ("0.000000000", "0.002000000")
    assert len(model.requests) == 1
    miss, hit = gateway.spans()
    assert (miss.cost_nano, hit.cost_nano, hit.input_tokens) == (2_000_000, 0, 0)
    assert json.loads(hit.attributes)["lockgate.cache.saved_usd"] == 0.002
    assert gateway.balances("tenant:dev:acme")[0].settled == 2_000_000


def test_another_worker_of_the_machine_finds_it(gateway: RunningGateway, model: FakeModelServer) -> None:
    from lockgate.gateway.cache.store import Answers

    gateway.ask(gateway.run_token(), "hi", **FRESH)
    other = Answers(gateway.app.home / "cache.db")
    deadline = time.monotonic() + 60  # it is kept after it was sent
    while other.size()[0] != 1:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    other.close()


@pytest.mark.parametrize(
    "changed",
    [{"temperature": 0.0, "max_tokens": 7}, {"temperature": 0, "seed": 4}, {"temperature": 0, "stream": True}],
)
def test_what_can_change_an_answer_is_in_the_key(
    gateway: RunningGateway, model: FakeModelServer, changed: dict[str, Any]
) -> None:
    gateway.ask(gateway.run_token(), "hi", **FRESH)
    assert result(gateway.ask(gateway.run_token(), "hi", **changed)[1]) == "miss"


def test_another_version_tenant_or_policy_begins_anew(gateway: RunningGateway, model: FakeModelServer) -> None:
    gateway.tenants(**{"*": TenantSpec.model_validate({"cache": True})})
    first, second = gateway.key(), gateway.key(tenant="other")
    assert result(gateway.ask(gateway.run_token("a"), "hi", **FRESH)[1]) == "miss"
    assert result(gateway.ask(gateway.run_token("b"), "hi", **FRESH)[1]) == "miss"
    assert result(gateway.ask(first, "hi", **FRESH)[1]) == "miss"
    assert result(gateway.ask(second, "hi", **FRESH)[1]) == "miss"
    assert result(gateway.ask(second, "hi", **FRESH)[1]) == "exact"
    gateway.tenants(**{"*": TenantSpec.model_validate({"cache": True, "output": ["secrets"]})})
    assert result(gateway.ask(second, "hi", **FRESH)[1]) == "miss"


def test_a_stream_is_given_again_as_a_stream(gateway: RunningGateway, model: FakeModelServer) -> None:
    key = gateway.run_token()
    first = gateway.ask(key, "hi", stream=True, **FRESH)
    second = gateway.ask(key, "hi", stream=True, **FRESH)
    assert (result(first[1]), result(second[1])) == ("miss", "exact")
    assert first[2] == second[2]
    assert b"[DONE]" in second[2]
    assert second[1]["content-type"].startswith("text/event-stream")


def test_the_bypass_header_and_its_like(gateway: RunningGateway, model: FakeModelServer) -> None:
    key = gateway.run_token()
    gateway.ask(key, "hi", **FRESH)
    assert result(gateway.ask(key, "hi", headers={"x-lockgate-cache": "bypass"}, **FRESH)[1]) == "off; bypass"
    status, _, body = gateway.ask(key, "hi", headers={"x-lockgate-cache": "bypas"}, **FRESH)
    assert (status, b"send bypass or refresh" in body) == (400, True)
    assert result(gateway.ask(key, "hi", headers={"cache-control": "no-cache"}, **FRESH)[1]) == "miss; refresh"
    assert said(gateway.ask(key, "hi", **FRESH)[2]) == "answer 2"


def test_what_a_runs_caller_says_of_the_cache_holds_for_the_runs_calls(
    gateway: RunningGateway, model: FakeModelServer, hosts: Callable[[str], FakeHost]
) -> None:
    gateway.route()
    host, key = hosts("b"), gateway.key()

    def run(**headers: str) -> str:
        assert gateway.ask(key, model="agent:triage", headers=headers)[0] == 200
        return result(gateway.ask(host.requests[-1].token, "hi", **FRESH)[1])

    assert [run(), run()] == ["miss", "exact"]
    assert run(**{"x-lockgate-cache": "refresh"}) == "miss; refresh"
    assert run(**{"cache-control": "no-store"}) == "off; bypass"


def test_errors_are_not_kept(gateway: RunningGateway, model: FakeModelServer) -> None:
    answers = iter([failing(400), Reply(body=b'{"choices": []}'), Reply(text="good", usage=USED)])
    model.respond = lambda _: next(answers)
    key = gateway.run_token()
    assert gateway.ask(key, "hi", **FRESH)[0] == 400
    gateway.ask(key, "hi", **FRESH)  # an answer that does not say what it used
    assert said(gateway.ask(key, "hi", **FRESH)[2]) == "good"


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_calls_a_tool_is_not_kept(gateway: RunningGateway, model: FakeModelServer, stream: bool) -> None:
    model.respond = lambda _: call("issue_refund", order="4711")
    key = gateway.run_token()
    for _ in range(2):
        assert result(gateway.ask(key, "hi", stream=stream, **FRESH)[1]) == "miss"
    assert len(model.requests) == 2


def test_a_drawn_answer_is_kept_only_where_that_is_wanted(gateway: RunningGateway, model: FakeModelServer) -> None:
    assert result(gateway.ask(gateway.run_token(), "hi")[1]) == "off; temperature"
    cached(gateway, random=True)
    assert result(gateway.ask(gateway.run_token("c"), "hi")[1]) == "miss"
    assert result(gateway.ask(gateway.run_token("c"), "hi")[1]) == "exact"


def test_an_answer_is_kept_as_it_was_let_out(gateway: RunningGateway, model: FakeModelServer) -> None:
    gateway.version = msgspec.structs.replace(
        gateway.version, guardrails=Guardrails(output=({"guard": "pii", "action": "redact"},))
    )
    model.respond = lambda _: Reply(text="it is alice@example.com", usage=USED)
    for expected in ("miss", "exact"):
        _, headers, body = gateway.ask(gateway.run_token(), "hi", **FRESH)
        assert (result(headers), said(body)) == (expected, "it is [EMAIL]")


def test_it_ends_with_its_time_and_where_a_tenant_forbids_it(gateway: RunningGateway, model: FakeModelServer) -> None:
    cached(gateway, ttl=0.000001)
    for _ in range(2):
        assert result(gateway.ask(gateway.run_token(), "hi", **FRESH)[1]) == "miss"
    cached(gateway)
    gateway.tenants(acme=TenantSpec(no_store=True))
    assert result(gateway.ask(gateway.run_token(), "hi", **FRESH)[1]) == ""


def test_embeddings_are_kept(gateway: RunningGateway, model: FakeModelServer) -> None:
    import urllib.request

    key, found = gateway.run_token(), []
    for _ in range(2):
        request = urllib.request.Request(
            gateway.url + "/v1/embeddings",
            json.dumps({"model": "fake/fake-model", "input": ["one", "two"]}).encode(),
            {"content-type": "application/json", "authorization": f"Bearer {key}"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            found.append((answer.headers["x-lockgate-cache"], answer.read()))
    assert [kind for kind, _ in found] == ["miss", "exact"]
    assert found[0][1] == found[1][1]


def test_questions_that_mean_the_same_get_the_same_answer_but_not_those_with_other_numbers(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    cached(gateway, semantic={"provider": "fake", "name": "fake-model", "threshold": 0.9})

    def vector(text: str) -> list[float]:
        return [1.0, 0.1, 0.0] if "order" in text else [0.0, 0.1, 1.0]

    def respond(request: Any) -> Reply:
        if request.path.endswith("embeddings"):
            data = [{"object": "embedding", "index": 0, "embedding": vector(str(request.body["input"]))}]
            body = {"object": "list", "data": data, "model": "m", "usage": {"prompt_tokens": 5, "total_tokens": 5}}
            return Reply(body=json.dumps(body).encode())
        return Reply(text=f"about {request.body['messages'][-1]['content']}", usage=USED)

    model.respond = respond
    key = gateway.run_token()
    assert result(gateway.ask(key, "where is order 4711?", **FRESH)[1]) == "miss"
    _, headers, body = gateway.ask(key, "order 4711, where is it?", **FRESH)
    assert (result(headers), said(body)) == ("semantic", "about where is order 4711?")
    assert json.loads(gateway.spans()[-1].attributes)["lockgate.cache.similarity"] >= 0.9
    assert result(gateway.ask(key, "where is order 4712?", **FRESH)[1]) == "miss"
    assert result(gateway.ask(key, "what are your hours?", **FRESH)[1]) == "miss"
    assert result(gateway.ask(gateway.run_token("b"), "where is my order 4711?", **FRESH)[1]) == "miss"


def test_hits_and_savings_are_counted(gateway: RunningGateway, model: FakeModelServer) -> None:
    for _ in range(3):
        gateway.ask(gateway.run_token(), "hi", **FRESH)
    shown = gateway.metrics()
    labels = 'environment="dev",agent="triage"'
    assert f'lockgate_cache_lookups_total{{{labels},result="exact"}} 2' in shown
    assert f"lockgate_cache_saved_usd_total{{{labels}}} 0.004" in shown


def at_once(gateway: RunningGateway, count: int) -> list[tuple[int, dict[str, str], bytes]]:
    key = gateway.run_token()
    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(lambda _: gateway.ask(key, "hi", **FRESH), range(count)))


def test_the_same_request_many_times_at_once_is_asked_once(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.latency = 0.3
    answers = at_once(gateway, 8)
    assert len(model.requests) == 1
    assert sorted(result(headers) for _, headers, _ in answers) == ["exact"] * 7 + ["miss"]
    assert len({body for _, _, body in answers}) == 1
    assert gateway.balances("tenant:dev:acme")[0].settled == 2_000_000


def test_an_answer_that_was_not_kept_leaves_everybody_to_ask(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.latency = 0.3
    model.respond = lambda _: failing(400, "no")
    assert [status for status, _, _ in at_once(gateway, 4)] == [400] * 4
    assert len(model.requests) == 4
