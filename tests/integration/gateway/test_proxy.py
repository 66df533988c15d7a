"""The model proxy, driven by the official OpenAI client and by bare HTTP, against a real model server."""

from __future__ import annotations

import contextlib
import gc
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from openai import OpenAI

from lockgate.gateway.calls.call import Call
from lockgate.gateway.model import RunClaims
from lockgate.gateway.tokens import sign
from lockgate.limits.model import Balance
from lockgate.money import to_nano
from lockgate.project.guards import TenantSpec
from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, closing, cut, failing, hanging, nonsense, rate_limited

if TYPE_CHECKING:
    from conftest import RunningGateway

MODEL = "fake/fake-model"
MESSAGES: Any = [{"role": "user", "content": "hi"}]
USED = Usage(input_tokens=1000, output_tokens=500)  # 1000 × $1/M + 500 × $2/M = $0.002
COST_NANO = 2_000_000


_clients: list[OpenAI] = []


def client(gateway: RunningGateway, key: str | None = None) -> OpenAI:
    """The official client; closed when the test ends."""
    _clients.append(OpenAI(base_url=gateway.url + "/v1", api_key=key or gateway.key(), max_retries=0, timeout=60))
    return _clients[-1]


@pytest.fixture(autouse=True)
def _close_clients() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().close()


def post(gateway: RunningGateway, body: bytes, *, path: str = "/v1/chat/completions", **headers: str) -> Any:
    """``(status, headers, body)`` of a bare request."""
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(gateway.url + path, body, {"content-type": "application/json", **names})
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def chat(**fields: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": MESSAGES, **fields}).encode()


def tenant(gateway: RunningGateway) -> Balance:
    found = [one for one in gateway.balances("tenant:dev:acme") if one.unit == "usd"]
    return found[0] if found else Balance(account="tenant:dev:acme", window="", cap=None, settled=0, held=0)


# --- what goes through ----------------------------------------------------------------------------------------


def test_an_answer_comes_through_byte_for_byte_with_its_cost(gateway: RunningGateway, model: FakeModelServer) -> None:
    body = b'{"id":"x", "object":"chat.completion","choices":[],"usage":{"prompt_tokens":1000,"completion_tokens":500}}'
    model.respond = lambda _: Reply(body=body)
    status, headers, received = post(gateway, chat(), authorization=f"Bearer {gateway.key()}")
    assert (status, received) == (200, body)
    assert headers["x-lockgate-cost-usd"] == "0.002000000"
    assert headers["x-request-id"].startswith("req_")
    assert (tenant(gateway).settled, tenant(gateway).held) == (COST_NANO, 0)


def test_the_official_client_gets_its_answer(gateway: RunningGateway, model: FakeModelServer) -> None:
    completion = client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, temperature=0.5)
    assert completion.choices[0].message.content == "hello"
    assert model.requests[0].body["temperature"] == 0.5
    assert model.requests[0].body["model"] == "fake-model"


def test_a_stream_comes_through_and_is_settled(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="a b c", usage=USED)
    chunks = list(client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "a b c"
    assert all(chunk.usage is None for chunk in chunks)
    assert model.requests[0].body["stream_options"] == {"include_usage": True}
    assert (tenant(gateway).settled, tenant(gateway).held) == (COST_NANO, 0)


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_a_call_waits_for_the_garbage_collector(
    gateway: RunningGateway, model: FakeModelServer, stream: bool
) -> None:
    def left() -> list[Call]:
        return [one for one in gc.get_objects() if isinstance(one, Call)]

    key = gateway.key()
    gc.collect()  # what went wrong in other tests may have left some
    gc.disable()
    try:
        for _ in range(3):
            assert gateway.ask(key, stream=stream)[0] == 200
        deadline = time.monotonic() + 20
        while left() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not left()
    finally:
        gc.enable()


def test_a_client_that_asks_for_usage_gets_it(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="a b c", usage=USED)
    stream = client(gateway).chat.completions.create(
        model=MODEL, messages=MESSAGES, stream=True, stream_options={"include_usage": True}
    )
    usage = list(stream)[-1].usage
    assert usage is not None
    assert usage.prompt_tokens == 1000


def test_a_chunk_reaches_the_client_before_the_next_one_is_made(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    said = [
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%b"}}]}\n\n' % word
        for word in (b"one", b"two")
    ]
    model.respond = lambda _: Reply(events=tuple(said), chunk_latency=3600)
    with client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True) as stream:
        assert next(iter(stream)).choices[0].delta.content == "one"


def test_a_model_named_twice_is_billed_and_sent_as_the_one_that_was_checked(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    key = gateway.key(models=[MODEL])
    smuggled = b'{"model":"fake/fake-model","messages":[],"model":"fake/gpt-5-fake"}'
    assert post(gateway, smuggled, authorization=f"Bearer {key}")[0] == 403
    assert model.requests == []


def test_the_provider_gets_its_own_key_and_never_the_callers(gateway: RunningGateway, model: FakeModelServer) -> None:
    key = gateway.key()
    post(gateway, chat(), authorization=f"Bearer {key}", x_other="secret", cookie="a=b")
    assert key not in repr(model.requests[0])
    assert set(model.requests[0].headers) <= {
        "host", "accept", "accept-encoding", "user-agent", "content-type", "content-length", "traceparent",
        "x-request-id",
    }  # fmt: skip


def test_models_are_agents_and_what_providers_serve(gateway: RunningGateway) -> None:
    gateway.route()
    names = [model.id for model in client(gateway).models.list()]
    assert names[0] == "agent:triage"
    assert "fake/fake-model" in names
    assert "claude/fake-model" in names
    assert not any(name.startswith("down/") for name in names)
    assert [model.id for model in client(gateway, gateway.key(agents=[], models=[])).models.list()] == []


def test_a_model_can_be_asked_for_by_its_name_by_who_may_call_it(gateway: RunningGateway) -> None:
    models = client(gateway, gateway.key(models=["fake/fake-model"])).models
    assert models.retrieve("fake/fake-model").owned_by == "fake"
    for name in ("claude/fake-model", "fake/none"):
        with pytest.raises(openai.NotFoundError, match="there is no model"):
            models.retrieve(name)


def test_models_outside_of_the_tenants_regions_are_not_listed(gateway: RunningGateway) -> None:
    gateway.tenants(acme=TenantSpec(regions=["eu"]))
    assert [model.id for model in client(gateway).models.list()] == []


# --- who may --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["wrong", "lgk_wrong", "lgr_wrong.x"])
def test_a_wrong_key_is_refused(gateway: RunningGateway, model: FakeModelServer, key: str) -> None:
    with pytest.raises(openai.AuthenticationError):
        client(gateway, key).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert model.requests == []


def test_no_key_is_refused(gateway: RunningGateway) -> None:
    assert post(gateway, chat())[0] == 401
    assert post(gateway, chat(), authorization="Basic abc")[0] == 401


def test_a_revoked_key_is_refused_within_two_seconds(gateway: RunningGateway) -> None:
    from lockgate.gateway.directory import INTERVAL
    from lockgate.gateway.keys import Keys

    assert INTERVAL < 2.0
    secret, key = gateway.app.keys.create(tenant="acme", environment="dev")
    assert post(gateway, chat(), authorization=f"Bearer {secret}")[0] == 200
    Keys(gateway.app.control, gateway.app.clock).revoke(key.id)
    deadline = time.monotonic() + 60
    while post(gateway, chat(), authorization=f"Bearer {secret}")[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_key_for_other_models_is_refused(gateway: RunningGateway) -> None:
    with pytest.raises(openai.PermissionDeniedError, match="may not call the model"):
        client(gateway, gateway.key(models=["fake/other"])).chat.completions.create(model=MODEL, messages=MESSAGES)


# --- what is wrong with a request -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"{", "no JSON object"),
        (chat(model="gpt-4o"), "provider/name"),
        (chat(model="nope/x"), "no provider 'nope'"),
        (chat(model="fake/unpriced"), "no price is known"),
        (chat(n=0), "'n' is 0"),
    ],
)
def test_a_wrong_request_is_refused_and_nothing_is_sent(
    gateway: RunningGateway, model: FakeModelServer, body: bytes, said: str
) -> None:
    status, _, answer = post(gateway, body, authorization=f"Bearer {gateway.key()}")
    error = json.loads(answer)["error"]
    assert (status, error["type"]) == (400, "invalid_request_error")
    assert said in error["message"]
    assert model.requests == []
    gateway.rest()
    assert gateway.app.holds.open_holds() == 0


def test_a_body_over_the_cap_is_refused_whether_declared_or_not(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.exchange.MAX_BODY", 1000)
    key = gateway.key()
    assert post(gateway, chat(pad="x" * 2000), authorization=f"Bearer {key}")[0] == 413
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60) as chunked:
        chunked.sendall(f"{head}transfer-encoding: chunked\r\n\r\n".encode())
        chunked.sendall(b"1000\r\n" + b"x" * 0x1000 + b"\r\n")
        assert chunked.recv(4096).startswith(b"HTTP/1.1 413")


def test_a_body_that_stalls_is_given_up(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockgate.gateway.exchange.BODY_SECONDS", 0.2)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key()}\r\n"
    with socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60) as connection:
        connection.sendall(f"{head}content-length: 100\r\n\r\nonly this".encode())
        assert b"did not come within 0.2 seconds" in connection.recv(4096)


def test_an_endless_stream_is_cut_off_and_charged_in_full(
    gateway: RunningGateway, model: FakeModelServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.calls.stream.STREAM_BYTES", 10_000)
    model.respond = lambda _: Reply(text="word " * 10_000, usage=USED)
    with pytest.raises(openai.APIError, match="longer than 10000 bytes"):
        list(client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert tenant(gateway).settled > 8_000_000


def test_oversized_headers_and_bad_requests_do_not_hurt_the_worker(gateway: RunningGateway) -> None:
    for sent in (
        b"GET /health HTTP/1.1\r\nhost: x\r\nx-big: " + b"x" * 200_000 + b"\r\n\r\n",
        b"\x16\x03\x01 not http\r\n\r\n",
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: 99999\r\n\r\nshort",
        b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\ncontent-length: 4\r\n\r\nabcd",
    ):
        with (
            socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60) as connection,
            contextlib.suppress(OSError),
        ):
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            connection.recv(65536)
    assert post(gateway, chat(), authorization=f"Bearer {gateway.key()}")[0] == 200


# --- when the provider fails ----------------------------------------------------------------------------------


def worst_case(gateway: RunningGateway, body: bytes) -> int:
    """What is held for a request without a bound on its output: its bytes and 512 in, 4096 out."""
    del gateway
    return (len(body) + 512) * 1000 + 4096 * 2000


def test_a_provider_that_cannot_be_reached_costs_nothing(gateway: RunningGateway) -> None:
    body = chat(model="down/fake-model")
    status, _, answer = post(gateway, body, authorization=f"Bearer {gateway.key()}")
    error = json.loads(answer)["error"]
    assert (status, error["code"], error["sent"]) == (502, "upstream_error", False)
    assert (tenant(gateway).settled, tenant(gateway).held) == (0, 0)


@pytest.mark.parametrize("reply", [hanging(), nonsense(), closing(), cut("some words of an answer")])
def test_a_call_whose_outcome_is_unknown_is_charged_in_full(
    gateway: RunningGateway, model: FakeModelServer, reply: Reply
) -> None:
    model.respond = lambda _: reply
    body = chat(model="brief/fake-model" if reply == hanging() else MODEL)
    status, headers, answer = post(gateway, body, authorization=f"Bearer {gateway.key()}")
    assert (status, json.loads(answer)["error"]["sent"]) == (502, True)
    assert to_nano(float(headers["x-lockgate-cost-usd"])) == worst_case(gateway, body)
    assert (tenant(gateway).settled, tenant(gateway).held) == (worst_case(gateway, body), 0)


def test_an_answer_that_is_none_is_an_error_and_charged_in_full(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    for body, said in (
        (b"<html>what?</html>", "no JSON object"),
        (b"", "no JSON object"),
        (b"[1]", "no JSON object"),
        (b'{"error": {"message": "out of order"}}', "out of order"),
    ):
        model.respond = lambda _, body=body: Reply(body=body)
        before = tenant(gateway).settled
        status, _, answer = post(gateway, chat(max_tokens=10), authorization=f"Bearer {gateway.key()}")
        assert status == 502
        assert said in json.loads(answer)["error"]["message"]
        assert tenant(gateway).settled > before
        assert tenant(gateway).held == 0


def test_an_answer_that_does_not_say_its_usage_is_charged_in_full_and_passed_on(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: Reply(body=b'{"choices": []}')
    body = chat()
    status, headers, answer = post(gateway, body, authorization=f"Bearer {gateway.key()}")
    assert (status, answer) == (200, b'{"choices": []}')
    assert tenant(gateway).settled == worst_case(gateway, body)
    assert headers["x-lockgate-cost-usd"] == f"{worst_case(gateway, body) / 1e9:.9f}"


@pytest.mark.parametrize("said", [(b"\x00\x01garbage",), (b": hello\n\n",), ()])
def test_a_stream_of_nothing_that_can_be_read_is_an_error(
    gateway: RunningGateway, model: FakeModelServer, said: tuple[bytes, ...]
) -> None:
    model.respond = lambda _: Reply(events=said)
    with pytest.raises(openai.APIError, match="without an event that can be read"):
        list(client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert tenant(gateway).settled > 8_000_000


def test_a_stream_cut_in_the_middle_ends_with_an_error_and_is_charged_in_full(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: cut("one two three four five six")
    with pytest.raises(openai.APIError):
        list(client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True))
    assert tenant(gateway).settled > 8_000_000
    assert tenant(gateway).held == 0


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503])
def test_a_providers_refusal_is_passed_on_and_costs_nothing(
    gateway: RunningGateway, model: FakeModelServer, status: int
) -> None:
    model.respond = lambda _: failing(status, "because")
    with pytest.raises(openai.APIStatusError, match="because") as raised:
        client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.status_code == status
    assert (tenant(gateway).settled, tenant(gateway).held) == (0, 0)


def test_a_providers_rate_limit_is_passed_on_with_its_pause(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: rate_limited(retry_after=7)
    with pytest.raises(openai.RateLimitError) as raised:
        client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.response.headers["retry-after"] == "7"


def test_a_gateway_timeout_on_the_way_may_have_been_served_and_is_charged(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: failing(504, "too late")
    body = chat()
    status, headers, _ = post(gateway, body, authorization=f"Bearer {gateway.key()}")
    assert (status, to_nano(float(headers["x-lockgate-cost-usd"]))) == (504, worst_case(gateway, body))
    assert tenant(gateway).settled == worst_case(gateway, body)


@pytest.mark.parametrize("status", [401, 403])
def test_a_provider_that_refuses_our_key_is_not_taken_for_a_wrong_key_of_the_caller(
    gateway: RunningGateway, model: FakeModelServer, status: int
) -> None:
    model.respond = lambda _: failing(status, "Incorrect API key provided: sk-123")
    with pytest.raises(openai.InternalServerError, match="refused Lockgate's credentials") as raised:
        client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.status_code == 502
    assert "sk-123" not in str(raised.value)


# --- when the client leaves -----------------------------------------------------------------------------------


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_before_headers_cancels_the_call_and_settles_it(
    gateway: RunningGateway, model: FakeModelServer, stream: bool
) -> None:
    model.respond = lambda _: hanging()
    body = chat(stream=stream)
    connection = socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {gateway.key()}\r\n"
    connection.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
    model.wait_for_requests(1)
    assert any(balance.held for balance in gateway.app.holds.balances("tenant:dev:acme"))
    connection.close()
    model.wait_for_disconnects(1)
    assert tenant(gateway).held == 0
    assert tenant(gateway).settled == worst_case(gateway, body)
    (span,) = gateway.spans()
    assert json.loads(span.attributes)["error.type"] == "client_gone"


def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    model.respond = lambda _: Reply(text="word " * 200, chunk_latency=0.05)
    stream = client(gateway).chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    next(iter(stream))
    stream.close()
    model.wait_for_disconnects(1)
    assert tenant(gateway).held == 0
    assert tenant(gateway).settled > 8_000_000


# --- runs that call back --------------------------------------------------------------------------------------


def token(gateway: RunningGateway, **claims: Any) -> str:
    values: dict[str, Any] = {
        "run_id": "run_1", "agent": "triage", "environment": "dev", "tenant": "acme",
        "behaviour_digest": "sha256:aa", "effective_digest": "sha256:bb", "arm": "candidate",
        "trace_id": "ab" * 16, "depth": 0, "expires_at": time.time() + 3600, "max_usd_nano": None,
        "max_llm_calls": 10, "max_tokens": 50_000,
    }  # fmt: skip
    return sign(RunClaims(**{**values, **claims}), gateway.app.secret)


def test_a_runs_call_is_traced_and_counted_as_the_runs(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="x", usage=USED)
    parent = "12" * 8
    status, _, _ = post(
        gateway,
        chat(max_tokens=50),
        authorization=f"Bearer {token(gateway)}",
        traceparent=f"00-{'ab' * 16}-{parent}-01",
    )
    assert status == 200
    (span,) = gateway.spans()
    assert (span.trace_id.hex(), span.parent_id.hex()) == ("ab" * 16, parent)
    assert (span.run_id, span.agent, span.effective_digest) == ("run_1", "triage", "sha256:bb")
    assert (span.input_tokens, span.output_tokens, span.cost_nano) == (1000, 500, COST_NANO)
    settled = {(one.account, one.unit): one.settled for one in gateway.balances()}
    assert settled["run:run_1", "usd"] == COST_NANO
    assert settled["run:run_1", "calls"] == 1
    assert settled["run:run_1", "tokens"] == 1500
    assert settled["agent:dev:triage", "usd"] == COST_NANO
    assert settled["tenant:dev:acme", "usd"] == COST_NANO


def test_a_runs_call_stays_in_its_trace_whatever_the_header_says(gateway: RunningGateway) -> None:
    post(
        gateway,
        chat(max_tokens=50),
        authorization=f"Bearer {token(gateway)}",
        traceparent=f"00-{'cd' * 16}-{'12' * 8}-01",
    )
    (span,) = gateway.spans()
    assert span.trace_id.hex() == "ab" * 16
    assert span.parent_id is None


@pytest.mark.parametrize(
    ("claims", "limit"),
    [({"max_usd_nano": 1000}, "run:run_1"), ({"max_llm_calls": 0}, "run:run_1"), ({"max_tokens": 10}, "run:run_1")],
)
def test_a_runs_limits_stop_it_and_waiting_does_not_help(
    gateway: RunningGateway, model: FakeModelServer, claims: dict[str, int], limit: str
) -> None:
    with pytest.raises(openai.RateLimitError) as raised:
        client(gateway, token(gateway, **claims)).chat.completions.create(model=MODEL, messages=MESSAGES)
    assert raised.value.code == "limit_exceeded"
    assert limit in str(raised.value.param)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert model.requests == []


def test_an_agents_day_stops_at_its_cap_and_says_when_it_may_pass(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    gateway.route(settings={"daily_usd": 0.003})
    model.respond = lambda _: Reply(text="x", usage=Usage(input_tokens=1000, output_tokens=500))
    caller = client(gateway, token(gateway))
    caller.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=500)
    with pytest.raises(openai.RateLimitError) as raised:
        caller.chat.completions.create(model=MODEL, messages=MESSAGES, max_tokens=500)
    assert 0 < int(raised.value.response.headers["retry-after"]) <= 86_401
    assert len(model.requests) == 1


def test_an_expired_run_token_is_refused(gateway: RunningGateway) -> None:
    with pytest.raises(openai.AuthenticationError, match="expired"):
        client(gateway, token(gateway, expires_at=1.0)).chat.completions.create(model=MODEL, messages=MESSAGES)


def test_sixty_calls_at_once_stay_within_the_cap(gateway: RunningGateway, model: FakeModelServer) -> None:
    gateway.route(settings={"daily_usd": 0.02})
    model.respond = lambda _: Reply(text="x", usage=Usage(input_tokens=100, output_tokens=500), latency=0.02)
    credential = token(gateway, max_llm_calls=1000, max_tokens=10**9)
    outcomes: list[int] = []

    def call() -> None:
        outcomes.append(post(gateway, chat(max_tokens=500), authorization=f"Bearer {credential}")[0])

    callers = [threading.Thread(target=call) for _ in range(60)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert set(outcomes) == {200, 429}
    spent = next(one for one in gateway.balances("agent:dev:triage") if one.unit == "usd")
    assert spent.settled == outcomes.count(200) * 1_100_000 <= 20_000_000
    assert spent.held == 0


# --- traces and metrics ---------------------------------------------------------------------------------------


def test_a_span_names_what_happened_as_the_conventions_do(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="x", usage=USED)
    post(
        gateway,
        chat(max_tokens=7),
        authorization=f"Bearer {gateway.key()}",
        x_request_id="my-id",
        traceparent=f"00-{'cd' * 16}-{'12' * 8}-01",
    )
    (span,) = gateway.spans()
    attributes = json.loads(span.attributes)
    assert span.name == "chat fake-model"
    assert span.trace_id.hex() == "cd" * 16
    assert model.requests[0].headers["traceparent"] == f"00-{'cd' * 16}-{span.span_id.hex()}-01"
    assert (
        attributes.items()
        >= {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "fake",
            "gen_ai.request.model": "fake-model",
            "gen_ai.request.max_tokens": 7,
            "gen_ai.response.model": "fake-model",
            "lockgate.request_id": "my-id",
        }.items()
    )


def test_metrics_count_calls_tokens_and_money(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="x", usage=USED)
    post(gateway, chat(), authorization=f"Bearer {gateway.key()}")
    text = gateway.metrics()
    assert 'gen_ai_client_operation_duration_seconds_count{gen_ai_operation_name="chat"' in text
    assert "lockgate_cost_usd_total" in text
    assert "lockgate_spans_dropped 0" in text


def test_refusals_are_counted_by_the_kind_of_limit(gateway: RunningGateway) -> None:
    for number in range(2):
        credential = token(gateway, run_id=f"run_{number}", max_llm_calls=0)
        assert post(gateway, chat(), authorization=f"Bearer {credential}")[0] == 429
    assert 'lockgate_refusals_total{environment="dev",limit="run"} 2' in gateway.metrics()


def test_a_request_id_that_could_break_a_header_is_replaced(gateway: RunningGateway) -> None:
    _, headers, _ = post(gateway, chat(), authorization=f"Bearer {gateway.key()}", x_request_id="a b<script>")
    assert headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("tokens", [10**10, 2**63])
def test_usage_that_nobody_can_believe_is_unknown(
    gateway: RunningGateway, model: FakeModelServer, tokens: int, stream: bool
) -> None:
    model.respond = lambda _: Reply(text="x", usage=Usage(input_tokens=tokens, output_tokens=tokens))
    status, _, _ = gateway.ask(gateway.key(), max_tokens=100, stream=stream)
    assert status == 200
    [span] = gateway.spans()
    assert json.loads(span.attributes)["lockgate.cost_is_bound"]
    [balance] = [one for one in gateway.balances("tenant:dev:acme") if one.unit == "usd"]
    assert (balance.settled, balance.held) == (span.cost_nano, 0)
