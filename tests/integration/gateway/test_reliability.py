"""What happens when upstreams fail, hang, fill up or lie: over real HTTP, to two model servers."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import openai
import pytest
from sqlalchemy import select

from lockgate.gateway.model import RunClaims
from lockgate.gateway.siblings import Siblings
from lockgate.gateway.tokens import sign
from lockgate.results import RunResult, Usage
from lockgate.storage.schema import alerts
from lockgate.testing import FakeModelServer, Reply, closing, cut, failing, hanging, rate_limited
from lockgate.versions.model import ModelRef

if TYPE_CHECKING:
    from conftest import FakeHost, RunningGateway

ASK: Any = [{"role": "user", "content": "hi"}]
USED = Usage(input_tokens=1000, output_tokens=500)
COST = 2_000_000
PROVIDERS = ("stubborn", "fake", "pair", "full", "hasty", "overflow", "hedged", "slow", "fragile", "spare")


@pytest.fixture
def second() -> Iterator[FakeModelServer]:
    with FakeModelServer(lambda _: Reply(text="from the second", usage=USED)) as server:
        yield server


@pytest.fixture
def project_folder(tmp_path: Path, model: FakeModelServer, second: FakeModelServer) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    rows = "{fake-model: {input: 1.0, output: 2.0}}"
    (root / "prices.yaml").write_text("".join(f"{name}: {rows}\n" for name in PROVIDERS))
    one, two = f"kind: openai, base_url: '{model.base_url}', timeout: 60", f"base_url: '{second.base_url}'"
    (root / "lockgate.yaml").write_text(
        f"""
project: test
prices: prices.yaml
providers:
  fake: {{{one}}}
  pair: {{{one}, upstreams: [{{{two}}}]}}
  full: {{{one}, capacity: 1, queue: 1, queue_timeout: 60, retries: 0}}
  hasty: {{{one}, capacity: 1, queue: 1, queue_timeout: 0.5, retries: 0}}
  overflow: {{{one}, capacity: 1, queue: 0, retries: 0, upstreams: [{{{two}, capacity: 1}}]}}
  hedged: {{{one}, hedge_after: 0.2, breaker: {{failure_threshold: 1}}, capacity: 1, upstreams: [{{{two}}}]}}
  slow: {{{one}, first_token_timeout: 0.4, retries: 0}}
  stubborn: {{{one}, retries: 1, breaker: {{failure_threshold: 3, reset_timeout: 100}}}}
  fragile: {{{one}, retries: 0, breaker: {{failure_threshold: 3, reset_timeout: 100}}}}
  spare: {{kind: anthropic, {two}, timeout: 60}}
"""
    )
    model.respond = lambda _: Reply(text="from the first", usage=USED)
    return root


_clients: list[openai.OpenAI] = []


def ask(gateway: RunningGateway, model_name: str, *, fallbacks: str | None = None, **options: Any) -> Any:
    headers = {} if fallbacks is None else {"x-lockgate-fallbacks": fallbacks}
    with openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key(), max_retries=0, timeout=60) as client:
        answer = client.chat.completions.create(
            model=model_name, messages=ASK, max_tokens=500, extra_headers=headers, **options
        )
        return list(answer) if options.get("stream") else answer


def text(answer: Any) -> str:
    if isinstance(answer, list):
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)
    return str(answer.choices[0].message.content)


def settled(gateway: RunningGateway) -> int:
    balances = [one for one in gateway.balances("tenant:dev:acme") if one.unit == "usd"]
    assert all(one.held == 0 for one in balances)
    return sum(one.settled for one in balances)


def in_turn(*replies: Any) -> Any:
    """The replies in turn, the last one for good."""
    rest = list(replies)
    lock = threading.Lock()

    def respond(_: Any) -> Any:
        with lock:
            return rest.pop(0) if len(rest) > 1 else rest[0]

    return respond


GOOD = Reply(text="good", usage=USED)


# --- retries --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [failing(503), failing(500), rate_limited(0.1), failing(529)])
def test_what_was_not_served_is_tried_again_and_paid_for_once(
    gateway: RunningGateway, model: FakeModelServer, trouble: Reply
) -> None:
    model.respond = in_turn(trouble, GOOD)
    assert text(ask(gateway, "fake/fake-model")) == "good"
    assert len(model.requests) == 2
    assert settled(gateway) == COST
    first, last = gateway.spans()
    assert (json.loads(first.attributes)["error.type"], first.cost_nano) == (str(trouble.status), 0)
    assert (json.loads(last.attributes)["lockgate.attempt"], last.cost_nano) == (2, COST)


def test_what_may_have_been_served_is_not_sent_again(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = in_turn(closing(), GOOD)
    with pytest.raises(openai.InternalServerError):
        ask(gateway, "fake/fake-model")
    assert len(model.requests) == 1


def test_a_provider_that_asks_for_a_long_pause_is_not_waited_for(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = in_turn(rate_limited(30), GOOD)
    with pytest.raises(openai.RateLimitError) as raised:
        ask(gateway, "fake/fake-model")
    assert raised.value.response.headers["retry-after"] == "30"
    assert len(model.requests) == 1


def test_a_callers_mistake_is_not_tried_again(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = in_turn(failing(400), GOOD)
    with pytest.raises(openai.BadRequestError):
        ask(gateway, "fake/fake-model", fallbacks="spare/fake-model")
    assert len(model.requests) == 1


# --- fallbacks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trouble", [failing(404), failing(401), failing(504), closing(), cut()])
@pytest.mark.parametrize("stream", [False, True])
def test_a_fallback_crosses_to_a_provider_of_another_kind(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer, trouble: Reply, stream: bool
) -> None:
    if trouble.failure == "cut" and stream:
        trouble = Reply(text="", failure="cut")  # before any output
    model.respond = in_turn(trouble)
    answer = ask(gateway, "fake/fake-model", fallbacks="spare/fake-model", stream=stream)
    assert text(answer) == "from the second"
    assert second.requests[0].path == "/v1/messages"
    *_, last = gateway.spans()
    assert last.model == "spare/fake-model"
    assert json.loads(last.attributes)["lockgate.model.asked"] == "fake/fake-model"


def test_nothing_takes_over_once_output_has_begun(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    model.respond = lambda _: cut("one two three four five six seven eight")
    with pytest.raises(openai.APIError, match="broke off"):
        ask(gateway, "fake/fake-model", fallbacks="spare/fake-model", stream=True)
    assert second.requests == []


def test_a_stream_without_output_in_time_is_given_up_for_a_fallback(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    role = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""}}]}\n\n'
    late = b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"late"}}]}\n\n'
    model.respond = lambda _: Reply(events=(role, late), chunk_latency=60.0)
    assert text(ask(gateway, "slow/fake-model", fallbacks="spare/fake-model", stream=True)) == "from the second"
    model.respond = lambda _: hanging()
    assert text(ask(gateway, "slow/fake-model", fallbacks="spare/fake-model", stream=True)) == "from the second"


def test_every_attempt_of_a_chain_counts_against_the_budget(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    model.respond = lambda _: closing()  # maybe served: charged in full
    ask(gateway, "fake/fake-model", fallbacks="spare/fake-model")
    spans = gateway.spans()
    assert [span.cost_nano > 0 for span in spans] == [True, True]
    assert settled(gateway) == sum(span.cost_nano for span in spans)


def test_a_fallback_the_key_may_not_call_is_refused(gateway: RunningGateway, model: FakeModelServer) -> None:
    key = gateway.key(models=["fake/fake-model"])
    with (
        openai.OpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0) as client,
        pytest.raises(openai.PermissionDeniedError, match="spare/fake-model"),
    ):
        client.chat.completions.create(
            model="fake/fake-model", messages=ASK, extra_headers={"x-lockgate-fallbacks": "spare/fake-model"}
        )
    assert model.requests == []


def test_a_run_falls_back_as_its_version_says_unless_its_loop_does_so_itself(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    gateway.version = msgspec.structs.replace(
        gateway.version, fallbacks=(ModelRef(provider="spare", name="fake-model"),)
    )
    claims = RunClaims(
        run_id="run_1", agent="triage", environment="dev", tenant="acme", behaviour_digest="sha256:fb",
        effective_digest="sha256:" + "b" * 64, arm="stable", trace_id="1" * 32, depth=0, expires_at=time.time() + 3600,
        max_usd_nano=None, max_llm_calls=50, max_tokens=500_000,
    )  # fmt: skip
    model.respond = lambda _: failing(404)
    with openai.OpenAI(
        base_url=gateway.url + "/v1", api_key=sign(claims, gateway.app.secret), max_retries=0, timeout=60
    ) as client:
        answer = client.chat.completions.create(model="fake/fake-model", messages=ASK)
        assert text(answer) == "from the second"
        with pytest.raises(openai.NotFoundError):
            client.chat.completions.create(
                model="fake/fake-model", messages=ASK, extra_headers={"x-lockgate-fallbacks": "off"}
            )
    assert len(second.requests) == 1


def test_what_the_fallback_cannot_be_asked_leaves_the_first_error(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    model.respond = lambda _: failing(404, "no such model here")
    with pytest.raises(openai.NotFoundError, match="no such model here"):
        ask(gateway, "fake/fake-model", fallbacks="spare/fake-model", n=2)
    assert second.requests == []


# --- several upstreams ----------------------------------------------------------------------------------------


def test_a_dead_upstream_is_passed_over(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    model.respond = lambda _: failing(503)
    for _ in range(12):
        assert text(ask(gateway, "pair/fake-model")) == "from the second"
    assert len(model.requests) < 12


def test_what_the_first_has_no_place_for_goes_to_the_second_and_then_nowhere(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    with ThreadPoolExecutor(3) as pool, paused(model), paused(second):
        asked = [pool.submit(ask, gateway, "overflow/fake-model")]
        model.wait_for_requests(1)
        asked.append(pool.submit(ask, gateway, "overflow/fake-model"))
        second.wait_for_requests(1)
        with pytest.raises(openai.InternalServerError, match="capacity") as raised:
            ask(gateway, "overflow/fake-model")
        assert raised.value.status_code == 503
        assert int(raised.value.response.headers["retry-after"]) >= 1
    assert [text(one.result()) for one in asked] == ["from the first", "from the second"]


def test_calls_wait_in_a_bounded_queue(gateway: RunningGateway, model: FakeModelServer) -> None:
    with ThreadPoolExecutor(3) as pool, paused(model):
        asked = [pool.submit(ask, gateway, "full/fake-model")]
        model.wait_for_requests(1)
        asked.append(pool.submit(ask, gateway, "full/fake-model"))
        wait_for_waiting(gateway, 1)
        with pytest.raises(openai.InternalServerError, match="1 calls wait already"):
            ask(gateway, "full/fake-model")
    assert [text(one.result()) for one in asked] == ["from the first"] * 2
    wait_for_waiting(gateway, 0)


def test_a_call_for_which_no_place_becomes_free_is_told_so(gateway: RunningGateway, model: FakeModelServer) -> None:
    with ThreadPoolExecutor(1) as pool, paused(model):
        first = pool.submit(ask, gateway, "hasty/fake-model")
        model.wait_for_requests(1)
        with pytest.raises(openai.InternalServerError, match="no place became free"):
            ask(gateway, "hasty/fake-model")
    assert text(first.result()) == "from the first"


def test_a_caller_that_leaves_the_queue_leaves_no_gap(gateway: RunningGateway, model: FakeModelServer) -> None:
    body = json.dumps({"model": "full/fake-model", "messages": ASK}).encode()
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key()}\r\n"
    with ThreadPoolExecutor(1) as pool, paused(model):
        first = pool.submit(ask, gateway, "full/fake-model")
        model.wait_for_requests(1)
        with socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60) as connection:
            connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
            wait_for_waiting(gateway, 1)
        wait_for_waiting(gateway, 0)
    assert text(first.result()) == "from the first"
    assert text(ask(gateway, "full/fake-model")) == "from the first"
    assert len(model.requests) == 2


@contextmanager
def paused(server: FakeModelServer) -> Iterator[None]:
    """The model answers nobody until the block ends."""
    server.pause()
    try:
        yield
    finally:
        server.resume()


def wait_for_waiting(gateway: RunningGateway, count: int) -> None:
    assert gateway.worker is not None
    deadline = time.monotonic() + 60
    while sum(pool.waiting for pool in gateway.worker._proxy.providers._pools.values()) != count:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_hedge_is_answered_by_whoever_is_first_and_the_other_is_cancelled(
    gateway: RunningGateway, model: FakeModelServer, second: FakeModelServer
) -> None:
    model.respond = lambda _: hanging()
    assert text(ask(gateway, "hedged/fake-model")) == "from the second"
    model.wait_for_disconnects(1)
    lost, won = sorted(gateway.spans(), key=lambda span: "hedge_lost" not in span.attributes.decode())
    assert json.loads(lost.attributes)["error.type"] == "hedge_lost"
    assert json.loads(won.attributes)["lockgate.hedge"] is True
    assert settled(gateway) == lost.cost_nano + won.cost_nano
    assert won.cost_nano == COST


# --- breakers -------------------------------------------------------------------------------------------------


def test_a_breaker_opens_alerts_and_closes_when_a_probe_succeeds(
    gateway: RunningGateway, model: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model.respond = lambda _: failing(500)
    for _ in range(3):
        with pytest.raises(openai.InternalServerError, match="as told"):
            ask(gateway, "fragile/fake-model")
    with pytest.raises(openai.InternalServerError, match="keeps failing") as raised:
        ask(gateway, "fragile/fake-model")
    assert raised.value.status_code == 503
    assert len(model.requests) == 3
    assert _open_alerts(gateway, 1) == ["breaker_open"]
    assert text(ask(gateway, "fragile/fake-model", fallbacks="spare/fake-model")) == "from the second"
    model.respond = lambda _: GOOD
    monkeypatch.setattr("lockgate.gateway.upstreams.pool.monotonic", lambda: time.monotonic() + 101)
    assert text(ask(gateway, "fragile/fake-model")) == "good"
    assert _open_alerts(gateway, 0) == []


def test_a_call_that_is_tried_again_speaks_against_its_upstream_once(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: failing(500)
    for _ in range(2):
        with pytest.raises(openai.InternalServerError, match="as told"):
            ask(gateway, "stubborn/fake-model")
    assert len(model.requests) == 4
    with pytest.raises(openai.InternalServerError, match="keeps failing"):
        ask(gateway, "stubborn/fake-model")


def test_an_upstream_that_another_worker_found_failing_is_left_alone_until_one_finds_it_well(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    assert text(ask(gateway, "fragile/fake-model")) == "from the first"
    another = Siblings(gateway.app.home / "run" / "breakers", 7, lambda what, is_open, at: None)
    upstream = ("upstream", "dev", "fragile", model.base_url)
    another.tell(upstream, True)
    gateway.refresh()
    with pytest.raises(openai.InternalServerError, match="keeps failing"):
        ask(gateway, "fragile/fake-model")
    assert len(model.requests) == 1
    another.tell(upstream, False)
    gateway.refresh()
    assert text(ask(gateway, "fragile/fake-model")) == "from the first"


def test_a_client_that_leaves_does_not_count_against_the_upstream(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: hanging()
    for _ in range(4):
        with (
            openai.OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key(), max_retries=0, timeout=0.3) as client,
            pytest.raises(openai.APITimeoutError),
        ):
            client.chat.completions.create(model="fragile/fake-model", messages=ASK)
    model.respond = lambda _: GOOD
    assert text(ask(gateway, "fragile/fake-model")) == "good"


def _open_alerts(gateway: RunningGateway, count: int) -> list[str]:
    deadline = time.monotonic() + 60
    while True:
        with gateway.app.control.read() as connection:
            rows = list(connection.execute(select(alerts.c.kind).where(alerts.c.resolved_at.is_(None))).scalars())
        if len(rows) == count or time.monotonic() > deadline:
            return rows
        time.sleep(0.02)


# --- agents ---------------------------------------------------------------------------------------------------


def test_the_fallback_agent_answers_while_an_agents_runs_keep_failing(
    gateway: RunningGateway, hosts: Callable[[str], FakeHost]
) -> None:
    breaker = {"failure_threshold": 2, "reset_timeout": 100.0, "fallback": "human"}
    gateway.route(settings={"breaker": breaker})
    gateway.route(agent="human", stable_effective="sha256:" + "c" * 64)
    failing_host, human = hosts("b"), hosts("c")
    failing_host.respond = lambda _: RunResult(status="failed", error_type="model_error", error="no")
    human.respond = lambda _: RunResult(status="completed", output="a person looks at it")
    for _ in range(2):
        with pytest.raises(openai.UnprocessableEntityError):
            ask(gateway, "agent:triage")
    assert text(ask(gateway, "agent:triage")) == "a person looks at it"
    assert len(failing_host.requests) == 2
    assert human.requests[0].agent == "human"
    assert _open_alerts(gateway, 1) == ["breaker_open"]
    failing_host.respond = lambda _: RunResult(status="completed", output="well again")
    Siblings(gateway.app.home / "run" / "breakers", 7, lambda *_: None).tell(("agent", "dev", "triage"), False)
    gateway.refresh()
    assert text(ask(gateway, "agent:triage")) == "well again"


def test_a_fallback_at_a_provider_that_there_is_not_is_an_error_of_the_caller(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    with pytest.raises(openai.BadRequestError, match="nosuch"):
        ask(gateway, "fake/fake-model", fallbacks="spare/fake-model, nosuch/fake-model")
    assert model.requests == []
