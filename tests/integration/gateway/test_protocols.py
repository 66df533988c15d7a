"""Every protocol through the gateway, driven by the official clients, to upstreams of both kinds."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest

from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, ToolCall, failing
from lockgate.testing.protocols import WIRES
from lockgate.testing.replies import ModelRequest

if TYPE_CHECKING:
    from conftest import RunningGateway

OPENAI, CLAUDE = "fake/fake-model", "claude/fake-model"
USED = Usage(input_tokens=1000, output_tokens=500, cached_tokens=200)
WEATHER: Any = {
    "name": "weather",
    "description": "The weather of a city.",
    "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
}
ASK: Any = [{"role": "user", "content": "hi"}]


class Clients:
    """Both official clients, pointed at the gateway under one key."""

    def __init__(self, gateway: RunningGateway) -> None:
        key = gateway.key()
        self.openai = openai.OpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0, timeout=60)
        self.anthropic = anthropic.Anthropic(base_url=gateway.url, api_key=key, max_retries=0, timeout=60)


@pytest.fixture
def clients(gateway: RunningGateway) -> Iterator[Clients]:
    made = Clients(gateway)
    yield made
    made.openai.close()
    made.anthropic.close()


def settled(gateway: RunningGateway) -> int:
    balances = gateway.balances("tenant:dev:acme")
    assert all(one.held == 0 for one in balances)
    return next(one.settled for one in balances if one.unit == "usd")


def wait_for_cost(gateway: RunningGateway, nano: int) -> None:
    deadline = time.monotonic() + 60
    while settled(gateway) != nano:
        assert time.monotonic() < deadline, settled(gateway)
        time.sleep(0.01)


def post(gateway: RunningGateway, path: str, body: dict[str, Any] | bytes, **headers: str) -> tuple[int, Any, bytes]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    request = urllib.request.Request(
        gateway.url + path,
        data,
        {"authorization": f"Bearer {gateway.key()}", "content-type": "application/json", **names},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


# --- Anthropic's messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model_name", [CLAUDE, OPENAI])
def test_the_anthropic_client_gets_its_answer_from_either_kind(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients, model_name: str
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=Usage(input_tokens=1000, output_tokens=500))
    message = clients.anthropic.messages.create(
        model=model_name, max_tokens=100, system="Be brief.", messages=ASK, stop_sequences=["END"]
    )
    assert message.content[0].type == "text"
    assert message.content[0].text == "good day"
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (1000, 500)
    wait_for_cost(gateway, 2_000_000)


@pytest.mark.parametrize("model_name", [CLAUDE, OPENAI])
def test_the_anthropic_client_streams_from_either_kind(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients, model_name: str
) -> None:
    model.respond = lambda _: Reply(text="one two three", usage=Usage(input_tokens=1000, output_tokens=500))
    with clients.anthropic.messages.stream(model=model_name, max_tokens=100, messages=ASK) as stream:
        text = "".join(stream.text_stream)
        message = stream.get_final_message()
    assert text == "one two three"
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 500
    wait_for_cost(gateway, 2_000_000)


@pytest.mark.parametrize("model_name", [CLAUDE, OPENAI])
@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_anthropic_client_reach_either_kind_and_come_back(
    model: FakeModelServer, clients: Clients, model_name: str, stream: bool
) -> None:
    model.respond = lambda _: Reply(
        text="let me see", tool_calls=(ToolCall(name="weather", arguments={"city": "Åre"}, id="call_7"),)
    )
    tool: Any = {
        "name": "weather",
        "description": WEATHER["description"],
        "input_schema": WEATHER["parameters"],
    }
    past: Any = [
        {"role": "user", "content": "and before?"},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "t1", "name": "weather", "input": {"city": "X"}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "rain"}]},
    ]
    arguments: Any = {"model": model_name, "max_tokens": 100, "messages": past, "tools": [tool]}
    if stream:
        with clients.anthropic.messages.stream(**arguments) as running:
            message = running.get_final_message()
    else:
        message = clients.anthropic.messages.create(**arguments)
    used = message.content[-1]
    assert used.type == "tool_use"
    assert (used.id, used.name, used.input) == ("call_7", "weather", {"city": "Åre"})
    assert message.stop_reason == "tool_use"
    if model_name == OPENAI:
        sent = model.requests[0].body
        assert sent["tools"][0]["function"]["parameters"] == WEATHER["parameters"]
        assert sent["messages"][-1] == {"role": "tool", "tool_call_id": "t1", "content": "rain"}
        assert sent["messages"][-2]["tool_calls"][0]["function"]["arguments"] == '{"city":"X"}'


def test_tokens_are_counted_and_cost_nothing(gateway: RunningGateway, model: FakeModelServer, clients: Clients) -> None:
    model.respond = lambda _: Reply(text="", usage=Usage(input_tokens=42))
    counted = clients.anthropic.messages.count_tokens(model=CLAUDE, messages=ASK)
    assert counted.input_tokens == 42
    assert settled(gateway) == 0
    with pytest.raises(anthropic.BadRequestError, match="cannot be asked"):
        clients.anthropic.messages.count_tokens(model=OPENAI, messages=ASK)


def test_an_anthropic_request_passes_byte_for_byte_with_its_beta_headers(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    answer = b'{"id":"m", "type":"message","content":[],"usage":{"input_tokens":1000,"output_tokens":500}}'
    model.respond = lambda _: Reply(body=answer)
    body = {"model": CLAUDE, "max_tokens": 9, "messages": ASK, "metadata": {"user_id": "ü"}, "top_k": 5}
    status, headers, received = post(
        gateway, "/v1/messages", body, anthropic_beta="files-api-2025-04-14", anthropic_version="2023-06-01"
    )
    assert (status, received) == (200, answer)
    assert headers["x-lockgate-cost-usd"] == "0.002000000"
    assert model.requests[0].body == {**body, "model": "fake-model"}
    assert model.requests[0].headers["anthropic-beta"] == "files-api-2025-04-14"
    assert model.requests[0].headers["anthropic-version"] == "2023-06-01"


def test_what_was_written_to_a_cache_costs_its_own_price(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="ok", usage=USED)
    post(gateway, "/v1/messages", {"model": CLAUDE, "max_tokens": 900, "messages": ASK})
    # 800 × $1/M + 200 cached × $0.1/M + 500 × $2/M
    assert settled(gateway) == 800_000 + 20_000 + 1_000_000


@pytest.mark.parametrize("model_name", [CLAUDE, OPENAI])
def test_errors_have_the_shape_of_the_clients_protocol(
    model: FakeModelServer, clients: Clients, model_name: str
) -> None:
    model.respond = lambda _: failing(400, "too many cooks")
    with pytest.raises(anthropic.BadRequestError) as raised:
        clients.anthropic.messages.create(model=model_name, max_tokens=5, messages=ASK)
    assert raised.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": "too many cooks"},
    }
    with pytest.raises(openai.BadRequestError, match="too many cooks") as other:
        clients.openai.chat.completions.create(model=model_name, max_tokens=5, messages=ASK)
    assert isinstance(other.value.body, dict)
    assert other.value.body["message"] == "too many cooks"
    with pytest.raises(anthropic.BadRequestError, match="provider/name"):
        clients.anthropic.messages.create(model="claude-opus", max_tokens=5, messages=ASK)


# --- chat completions on Anthropic ----------------------------------------------------------------------------


def test_the_openai_client_gets_its_answer_from_anthropic(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=USED)
    messages: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [
            {"type": "text", "text": "what is this?"},
            {"type": "image_url", "image_url": {"url": "data:image/png;base64,aGk="}},
        ]},
    ]  # fmt: skip
    answer = clients.openai.chat.completions.create(
        model=CLAUDE,
        messages=messages,
        max_tokens=900,
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
    )
    assert answer.choices[0].message.content == "good day"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (1000, 500)
    sent = model.requests[0]
    assert sent.path == "/v1/messages"
    assert sent.body["system"] == [{"type": "text", "text": "Be brief."}]
    assert sent.body["messages"][0]["content"][1]["source"] == {
        "type": "base64", "media_type": "image/png", "data": "aGk=",
    }  # fmt: skip
    assert sent.body["output_config"] == {"format": {"type": "json_schema", "schema": {"type": "object"}}}
    assert settled(gateway) == 1_820_000


@pytest.mark.parametrize("stream", [False, True])
def test_tools_of_the_openai_client_reach_anthropic_and_come_back(
    model: FakeModelServer, clients: Clients, stream: bool
) -> None:
    model.respond = lambda _: Reply(text="so", tool_calls=(ToolCall(name="weather", arguments={"city": "Åre"}),))
    messages: Any = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"X"}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]  # fmt: skip
    tools: Any = [{"type": "function", "function": WEATHER}]
    if stream:
        name, arguments, finish = "", "", None
        for chunk in clients.openai.chat.completions.create(model=CLAUDE, messages=messages, tools=tools, stream=True):
            for call in chunk.choices[0].delta.tool_calls or ():
                assert call.function is not None
                name += call.function.name or ""
                arguments += call.function.arguments or ""
            finish = chunk.choices[0].finish_reason or finish
    else:
        choice = clients.openai.chat.completions.create(
            model=CLAUDE, messages=messages, tools=tools, tool_choice="required"
        ).choices[0]
        assert choice.message.tool_calls is not None
        called: Any = choice.message.tool_calls[0]
        name, arguments, finish = called.function.name, called.function.arguments, choice.finish_reason
        assert model.requests[0].body["tool_choice"] == {"type": "any"}
    assert (name, json.loads(arguments), finish) == ("weather", {"city": "Åre"}, "tool_calls")
    sent = model.requests[0].body
    assert sent["tools"][0]["input_schema"] == WEATHER["parameters"]
    assert sent["messages"][-1]["content"][0]["tool_use_id"] == "c1"
    assert sent["messages"][1]["content"][0] == {
        "type": "tool_use",
        "id": "c1",
        "name": "weather",
        "input": {"city": "X"},
    }


def test_a_stream_of_anthropic_is_settled_and_tells_usage_to_those_who_ask(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients
) -> None:
    model.respond = lambda _: Reply(text="one two", usage=USED)
    stream = clients.openai.chat.completions.create(
        model=CLAUDE, messages=ASK, stream=True, stream_options={"include_usage": True}, max_tokens=900
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "one two"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 500
    wait_for_cost(gateway, 1_820_000)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("logit_bias", {"5": 1}),
        ("web_search_options", {}),
        ("modalities", ["text", "audio"]),
    ],
)
def test_what_anthropic_cannot_be_asked_is_refused_by_name(
    model: FakeModelServer, clients: Clients, field: str, value: Any
) -> None:
    options: Any = {field: value}
    with pytest.raises(openai.BadRequestError, match=f"'{field}'"):
        clients.openai.chat.completions.create(model=CLAUDE, messages=ASK, **options)
    assert model.requests == []


def test_the_old_function_calls_of_a_run_are_counted_too(gateway: RunningGateway) -> None:
    old = [
        {"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": "{}"}},
        {"role": "function", "name": "look", "content": "no"},
    ]
    status, _, body = gateway.ask(gateway.key(), old * 5, headers={"x-lockgate-run": "old"})
    assert (status, json.loads(body)["error"]["reason"]) == (429, "loop_detected")


@pytest.mark.parametrize(
    ("tool", "said"),
    [
        ({"type": "namespace", "name": "look", "tools": [{"type": "function", "name": "g"}]}, "the tool 'g'"),
        ({"type": "mcp", "server_label": "look", "server_url": "https://example.com"}, "'mcp' can bring tools"),
    ],
)
def test_a_tool_that_brings_others_is_offered_only_with_them(gateway: RunningGateway, tool: Any, said: str) -> None:
    key = gateway.key(tools=["look"])
    status, _, body = gateway.ask(key, path="/v1/responses", input="hi", tools=[tool])
    assert status == 403
    assert said in json.loads(body)["error"]["message"]


# --- responses, embeddings, rerank ----------------------------------------------------------------------------


def test_the_responses_api_answers_and_streams(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients
) -> None:
    model.respond = lambda _: Reply(text="one two", usage=Usage(input_tokens=1000, output_tokens=500))
    answer = clients.openai.responses.create(model=OPENAI, input="hi", instructions="Be brief.")
    assert answer.output_text == "one two"
    assert model.requests[0].body["max_output_tokens"] > 0
    wait_for_cost(gateway, 2_000_000)
    events = list(clients.openai.responses.create(model=OPENAI, input=ASK, stream=True))
    assert "".join(event.delta for event in events if event.type == "response.output_text.delta") == "one two"
    wait_for_cost(gateway, 4_000_000)


def test_embeddings_are_made_and_paid_for(gateway: RunningGateway, model: FakeModelServer, clients: Clients) -> None:
    model.respond = lambda _: Reply(usage=Usage(input_tokens=1000))
    answer = clients.openai.embeddings.create(model=OPENAI, input=["a", "b"], encoding_format="float")
    assert [item.index for item in answer.data] == [0, 1]
    assert settled(gateway) == 1_000_000
    span = gateway.spans()[-1]
    assert (span.name, span.input_tokens, span.cost_nano) == ("embeddings fake-model", 1000, 1_000_000)


def test_documents_are_ranked_and_paid_for(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(usage=Usage(input_tokens=1000))
    body = {"model": OPENAI, "query": "late order", "documents": ["shoes", "a late order"], "top_n": 1}
    status, _, answer = post(gateway, "/v1/rerank", body)
    assert status == 200
    assert [result["index"] for result in json.loads(answer)["results"]] == [1]
    assert settled(gateway) == 1_000_000


def test_azure_has_the_model_in_its_path_and_its_key_in_its_own_header(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients
) -> None:
    answer = clients.openai.chat.completions.create(model="azure/fake-model", messages=ASK)
    assert answer.choices[0].message.content == "hello"
    assert model.requests[0].path == "/v1/deployments/fake-model/chat/completions"


@pytest.mark.parametrize(
    ("path", "body", "named"),
    [
        ("/v1/responses", {"input": "x", "previous_response_id": "r"}, "previous_response_id"),
        ("/v1/responses", {"input": "x", "tools": [{"type": "web_search"}]}, "tools: web_search"),
        ("/v1/responses", {"input": "x", "background": True}, "background"),
        ("/v1/chat/completions", {"messages": [], "web_search_options": {}}, "web_search_options"),
        ("/v1/chat/completions", {"messages": [], "service_tier": "priority"}, "service_tier"),
        ("/v1/messages", {"messages": [], "max_tokens": 1, "mcp_servers": []}, "mcp_servers"),
        (
            "/v1/messages",
            {"messages": [], "max_tokens": 1, "tools": [{"type": "web_search_20250305", "name": "w"}]},
            "tools",
        ),
    ],
)
def test_what_cannot_be_bounded_is_refused_under_a_cap_and_passes_without(
    gateway: RunningGateway, model: FakeModelServer, path: str, body: dict[str, Any], named: str
) -> None:
    from lockgate.gateway.model import RunClaims
    from lockgate.gateway.tokens import sign

    asked = {"model": CLAUDE if path == "/v1/messages" else OPENAI, **body}
    assert post(gateway, path, asked)[0] == 200
    model.requests.clear()
    claims = RunClaims(
        run_id="run_1", agent="triage", environment="dev", tenant="acme", behaviour_digest="sha256:" + "a" * 64,
        effective_digest="sha256:" + "b" * 64, arm="stable", trace_id="1" * 32, depth=0, expires_at=time.time() + 3600,
        max_usd_nano=1_000_000_000, max_llm_calls=10, max_tokens=50_000,
    )  # fmt: skip
    token = sign(claims, gateway.app.secret)
    status, _, answer = post(gateway, path, asked, authorization=f"Bearer {token}")
    assert status == 400
    assert f"'{named}'" in json.loads(answer)["error"]["message"]
    assert model.requests == []


# --- upstreams that lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
def test_a_stream_that_ends_anywhere_is_settled_and_leaves_the_worker_alive(
    gateway: RunningGateway, model: FakeModelServer, path: str
) -> None:
    name = CLAUDE if path == "/v1/messages" else OPENAI
    body = {"model": name, "max_tokens": 50, "messages": ASK, "input": "x", "stream": True}
    if path == "/v1/chat/completions":
        del body["input"]
    asked = ModelRequest(path=path, headers={}, body={**body, "stream_options": {"include_usage": True}})
    make = WIRES[path].stream
    assert make is not None
    stream = b"".join(make(asked, Reply(text="one two three", usage=USED)))
    cuts = range(0, len(stream), max(1, len(stream) // 12))
    for seen, cut in enumerate(cuts, 1):
        model.respond = lambda _, cut=cut: Reply(events=(stream[:cut],) if cut else ())
        status, _, received = post(gateway, path, body)
        if b"without an event that can be read" in received:
            assert b"\n\n" not in stream[:cut]
        else:
            assert (status, len(received) <= len(stream)) == (200, True)
        spans = gateway.spans()
        assert len(spans) == seen
        assert spans[-1].cost_nano > 0
        assert settled(gateway) == sum(span.cost_nano for span in spans)


@pytest.mark.parametrize(
    "answer",
    [
        Reply(body=b"<html>busy</html>"),
        Reply(body=b"<html>busy</html>", headers={"content-type": "text/html"}),
        Reply(body=b"\x00\xff" * 99),
        Reply(events=(b'data: {"type": "error", "error": {"message": "out of memory"}}\n\n',)),
        Reply(events=()),
        Reply(failure="nonsense"),
        Reply(failure="close"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_no_answer_is_an_error_in_the_clients_shape(
    gateway: RunningGateway, model: FakeModelServer, answer: Reply, stream: bool
) -> None:
    model.respond = lambda _: answer
    body = {"model": CLAUDE, "max_tokens": 50, "messages": ASK, "stream": stream}
    status, _, received = post(gateway, "/v1/messages", body)
    assert status == 502
    assert json.loads(received)["type"] == "error"
    model.respond = lambda _: Reply(text="well again")
    assert post(gateway, "/v1/messages", {**body, "stream": False})[0] == 200


@pytest.mark.parametrize(("path", "model_name"), [("/v1/messages", CLAUDE), ("/v1/chat/completions", CLAUDE)])
def test_an_error_page_of_what_stands_before_a_provider_is_an_error_in_the_clients_shape(
    gateway: RunningGateway, model: FakeModelServer, path: str, model_name: str
) -> None:
    page = b"<html>rate limited</html>"
    model.respond = lambda _: Reply(status=429, body=page, headers={"content-type": "text/html", "retry-after": "30"})
    status, headers, received = post(gateway, path, {"model": model_name, "max_tokens": 50, "messages": ASK})
    told = {name.lower(): value for name, value in headers.items()}
    assert (status, told["content-type"], told["retry-after"]) == (429, "application/json", "30")
    assert "rate limited" in json.loads(received)["error"]["message"]


def test_a_providers_own_headers_go_with_each_request(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PORTKEY_KEY", "pk-12345678")
    config = gateway.app.project.config
    headers = {"x-portkey-provider": "openai", "x-portkey-api-key": "${env:PORTKEY_KEY}"}
    behind = config.providers["fake"].model_copy(update={"headers": headers})
    gateway.app.project.config = config.model_copy(update={"providers": {**config.providers, "fake": behind}})
    clients.openai.chat.completions.create(
        model=OPENAI, messages=ASK, extra_headers={"x-portkey-provider": "another", "x-portkey-config": "mine"}
    )
    sent = model.requests[-1].headers
    assert (sent["x-portkey-provider"], sent["x-portkey-api-key"]) == ("openai", "pk-12345678")
    assert "x-portkey-config" not in sent  # a caller does not choose what is behind the upstream


# --- the time of a run ----------------------------------------------------------------------------------------


class Admitting:
    """A worker's meter that keeps the calls which it let in."""

    def __init__(self, meter: Any) -> None:
        self.calls: list[Any] = []
        self._meter = meter

    def admit(self, call: Any) -> None:
        self._meter.admit(call)
        self.calls.append(call)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._meter, name)


@pytest.mark.parametrize(("asked", "model_name"), [("chat", OPENAI), ("chat", CLAUDE), ("messages", CLAUDE)])
def test_a_stream_that_has_begun_ends_with_the_time_of_its_run(
    gateway: RunningGateway, model: FakeModelServer, clients: Clients, monkeypatch: pytest.MonkeyPatch,
    asked: str, model_name: str,
) -> None:  # fmt: skip
    assert gateway.worker is not None
    meter = Admitting(gateway.worker._proxy._meter)
    monkeypatch.setattr(gateway.worker._proxy, "_meter", meter)
    model.respond = lambda _: Reply(text="word " * 2000, chunk_latency=0.05)
    options: Any = {"model": model_name, "max_tokens": 4000, "messages": ASK, "stream": True}
    options["extra_headers"] = {"x-lockgate-run": "long"}
    stream: Any = (
        clients.openai.chat.completions.create(**options)
        if asked == "chat"
        else clients.anthropic.messages.create(**options)
    )

    def take() -> None:
        for number, _ in enumerate(stream):
            if number == 3:  # it has begun: now its time is over
                meter.calls[0].ends.at = 0.0

    with pytest.raises((openai.APIError, anthropic.APIError), match="out of time") as ended:
        take()
    told: Any = ended.value.body
    told = told.get("error", told)
    assert (told["code"], told["reason"]) == ("limit_exceeded", "time_exceeded")
    model.wait_for_disconnects(1)
    span = gateway.spans()[0]
    shown = json.loads(span.attributes)
    assert (shown["error.type"], shown["lockgate.cost_is_bound"]) == ("time_exceeded", True)
    assert settled(gateway) == span.cost_nano > 4000 * 2000
