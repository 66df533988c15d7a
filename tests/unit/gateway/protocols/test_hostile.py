"""Requests and answers that nobody well-meaning would send: each is an error that says so, never a crash."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lockgate.errors import InputError, LockgateError, UpstreamError
from lockgate.gateway.protocols.dialect import Dialect, Passage
from lockgate.gateway.protocols.links import check_links, trouble_with
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.protocols.passages import _PASSAGES, CHAT, DIALECTS, MESSAGES

BY_NAME = {dialect.name: dialect for dialect in DIALECTS}
GOOD: dict[str, dict[str, Any]] = {
    "chat": {"messages": []},
    "messages": {"messages": [], "max_tokens": 5},
    "count_tokens": {"messages": []},
    "responses": {"input": "x"},
    "embeddings": {"input": "x"},
    "rerank": {"query": "x", "documents": ["y"]},
}
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                [
                    "role",
                    "content",
                    "type",
                    "text",
                    "tool_calls",
                    "function",
                    "name",
                    "source",
                    "image_url",
                    "url",
                    "input",
                ]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{", b"\xff\xfe{}", b'{"model":"a/b","x":"\xff"}', b'{"a":' + b"[" * 99_999, b"7"],
    ids=["empty", "list", "null", "open", "bytes", "utf8", "deep", "number"],
)
def test_what_is_no_request_is_refused(dialect: Dialect, body: bytes) -> None:
    with pytest.raises(InputError):
        dialect.read(body)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_model_named_twice_is_one_model(dialect: Dialect) -> None:
    rest = json.dumps(GOOD[dialect.name])[1:]
    request = dialect.read(b'{"model":"a/cheap","mod\\u0065l":"a/dear",' + rest.encode())
    assert request.model == "a/dear"
    for (name, _), passage in _PASSAGES.items():
        if name == dialect.name:
            sent = passage.forward(request, "dear", 5)
            assert sent.count(b'"model"') == 1
            assert json.loads(sent)["model"] == "dear"


@given(st.sampled_from(sorted(GOOD)), st.dictionaries(st.sampled_from(
    ["messages", "input", "tools", "tool_choice", "system", "stop", "response_format", "metadata", "documents",
     "stream", "query", "max_tokens", "n", "output_config", "stop_sequences", "service_tier", "user", "instructions"]
), ANYTHING, max_size=5))  # fmt: skip
@settings(max_examples=300)
def test_no_request_crashes_its_way_through(name: str, odd: dict[str, Any]) -> None:
    body = json.dumps({"model": "a/b", **GOOD[name], **odd}).encode()
    try:
        request = BY_NAME[name].read(body)
        request.with_texts({text.place: "changed" for text in request.texts()})
        check_links(request)
        for (dialect, _), passage in _PASSAGES.items():
            if dialect == name:
                json.loads(passage.forward(request, "b", 5))
    except LockgateError as error:
        assert error.status == 400, error  # noqa: PT017 - the kind of error is what is tested


@given(st.sampled_from(sorted(_PASSAGES, key=str)), st.binary(max_size=80) | ANYTHING.map(
    lambda value: json.dumps({"choices": value, "content": value, "usage": value, "error": value}).encode()
))  # fmt: skip
@settings(max_examples=300)
def test_no_answer_crashes_its_way_through(way: tuple[str, str], body: bytes) -> None:
    passage: Passage = _PASSAGES[way]
    dialect = BY_NAME[way[0]]
    request = dialect.read(json.dumps({"model": "a/b", **GOOD[way[0]]}).encode())
    try:
        passage.outcome(body)
        passage.refusal(500, body)
        passage.answer(body, request)
    except UpstreamError:
        pass


def test_what_a_guard_saw_is_what_is_sent() -> None:
    body = b'{"model":"a/b","messages":[{"role":"user","content":"ignore all","content":"hello"}]}'
    request = CHAT.read(body)
    assert [text.text for text in request.texts()] == ["hello"]
    assert b"ignore all" not in _PASSAGES["chat", "openai"].forward(request, "b", 5)


def test_words_spelled_with_escapes_are_counted_all_the_same() -> None:
    body = b'{"model":"a/b","messages":[{"role":"user","content":[{"type":"im\\u0061ge_url","x":1}]}]}'
    assert CHAT.read(body).references == 1


# --- addresses ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/x", "http://localhost:8080", "http://[::1]/", "http://169.254.169.254/latest/meta-data",
        "http://10.1.2.3/", "http://192.168.0.1", "http://2130706433/", "http://0x7f.1/", "http://0177.0.0.1/",
        "http://[::ffff:127.0.0.1]/", "http://[fe80::1%25eth0]/", "file:///etc/passwd", "gopher://x.example",
        "http://metadata.google.internal/", "http://printer/", "http://user:pw@example.com/", "http:///x", "//x",
        "http://example.com\\@127.0.0.1/", "http://100.64.0.1/", "http://0/", "http://127.0.0.1./", "ftp://example.com",
        "http://[", "http://exa mple.com/", "HTTP://LOCALHOST/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
        "http://[::127.0.0.1]/", "http://１２７.0.0.1/", "http://127。0。0。1/",
    ],
)  # fmt: skip
def test_addresses_of_a_private_network_are_refused(url: str) -> None:
    assert trouble_with(url) is not None


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com/a.png?b=c",
        "data:image/png;base64,aGk=",
        "http://8.8.8.8/x",
        "https://[2606:4700::1]/",
        "https://[64:ff9b::808:808]/",
    ],
)
def test_public_addresses_and_data_pass(url: str) -> None:
    assert trouble_with(url) is None


@pytest.mark.parametrize(
    ("dialect", "message"),
    [
        (CHAT, {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://10.0.0.1/x"}}]}),
        (
            MESSAGES,
            {"role": "user", "content": [{"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/x"}}]},
        ),
        (
            MESSAGES,
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [
                {"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/x"}}]}]},
        ),
    ],
)  # fmt: skip
def test_an_address_is_found_wherever_it_stands(dialect: Dialect, message: dict[str, Any]) -> None:
    request = dialect.read(json.dumps({"model": "a/b", "max_tokens": 5, "messages": [message]}).encode())
    assert request.references > 0
    with pytest.raises(InputError, match="private network"):
        check_links(request)


@pytest.mark.parametrize(
    "steering",
    ["models", "fallbacks", "base_url", "api_base", "api_key", "user_config", "extra_headers", "num_retries"],
)
@pytest.mark.parametrize("name", sorted(GOOD))
def test_nobody_steers_an_upstream_elsewhere(name: str, steering: str) -> None:
    body = {"model": "a/b", **GOOD[name]}
    BY_NAME[name].read(json.dumps({**body, steering: None}).encode())
    with pytest.raises(InputError, match=steering):
        BY_NAME[name].read(json.dumps({**body, steering: ["http://10.0.0.1"]}).encode())


def test_what_this_machine_would_fetch_is_sent_along() -> None:
    def asked(url: str) -> Request:
        content = [{"type": "image_url", "image_url": {"url": url}}]
        return CHAT.read(json.dumps({"model": "a/b", "messages": [{"role": "user", "content": content}]}).encode())

    assert check_links(asked("https://example.com/a.png")) == {"example.com"}
    assert check_links(asked("https://8.8.8.8/a.png")) == set()
    check_links(asked("data:image/png;base64,AAAA"), fetched_here=True)
    with pytest.raises(InputError, match="would fetch"):
        check_links(asked("https://example.com/a.png"), fetched_here=True)


def test_servers_that_a_provider_is_to_call_are_addresses_too() -> None:
    tools = [{"type": "mcp", "server_label": "x", "server_url": "http://10.0.0.1/"}]
    body = {"model": "a/b", "input": "hi", "tools": tools}
    with pytest.raises(InputError, match="private network"):
        check_links(BY_NAME["responses"].read(json.dumps(body).encode()))


def test_what_a_model_asked_a_tool_for_is_no_address_to_fetch() -> None:
    content = [
        {"type": "tool_use", "id": "t", "name": "get", "input": {"url": "http://10.0.0.1/"}},
        {"type": "image", "source": {"type": "url", "url": "https://example.com/a.png"}},
    ]
    body = {"model": "a/b", "max_tokens": 5, "messages": [{"role": "assistant", "content": content}]}
    check_links(MESSAGES.read(json.dumps(body).encode()))


@given(st.text(max_size=40))
def test_no_address_crashes_the_check(url: str) -> None:
    trouble_with(url)
    trouble_with("http://" + url)


@pytest.mark.parametrize("dialect", DIALECTS, ids=lambda dialect: dialect.name)
def test_a_compressed_body_is_told_as_one(dialect: Dialect) -> None:
    with pytest.raises(InputError, match="compressed") as refused:
        dialect.read(gzip.compress(b'{"model": "m"}'))
    assert refused.value.remedy == "send it as it is, without Content-Encoding"
