import json
from typing import Any

import pytest

from lockgate.gateway.guardrails import injection
from lockgate.gateway.guardrails.policy import compile_policy
from lockgate.gateway.guardrails.requests import checked_request, judging, verdict
from lockgate.gateway.guardrails.stages import outcomes_of
from lockgate.gateway.protocols.model import Request, Text
from lockgate.gateway.protocols.passages import DIALECTS

POLICY = compile_policy(None, ([{"guard": "injection", "action": "flag"}], ()), canary="c", own_prompt="")


def read(dialect: str, **fields: Any) -> Request:
    found = next(one for one in DIALECTS if one.name == dialect)
    return found.read(json.dumps({"model": "p/m", "max_tokens": 5, **fields}).encode())


def checked(request: Request) -> Request:
    return checked_request(request, request.texts(), POLICY, outcomes_of(POLICY.input, "input"))


def shown(*texts: Text) -> str:
    content: str = judging("p/m", texts)["messages"][1]["content"]
    return content


def test_a_judge_sees_all_that_tools_brought_since_the_user_spoke() -> None:
    texts = [Text(("messages", 0, "content"), "user", "old question"), Text(("messages", 1, "content"), "tool", "old")]
    texts += [Text(("messages", 2, "content"), "user", "look it up")]
    texts += [Text(("messages", 4 + n, "content"), "tool", f"result {n}") for n in range(5)]
    seen = shown(*texts)
    assert "old" not in seen
    assert all(part in seen for part in ("look it up", *(f"result {n}" for n in range(5))))


def test_a_judge_sees_the_newest_message_of_anthropics_shape_too() -> None:
    results = [{"type": "tool_result", "tool_use_id": "t", "content": f"result {n}"} for n in range(4)]
    request = read(
        "messages", messages=[{"role": "user", "content": results}, {"role": "user", "content": "the newest"}]
    )
    assert "the newest" in shown(*request.texts())


def test_a_long_text_hides_none_of_the_others_from_a_judge() -> None:
    long = Text(("messages", 1, "content"), "tool", "begin" + "x" * 50_000 + "end")
    seen = shown(Text(("messages", 0, "content"), "user", "look it up"), long)
    assert all(part in seen for part in ("look it up", "begin", "end"))
    assert len(seen) < 8100


@pytest.mark.parametrize(
    ("said", "means"), [("YES", True), (" **Yes**, it does", True), ("no.", False), ("", None), ("yesterday", None)]
)
def test_only_a_plain_word_is_a_verdict(said: str, means: bool | None) -> None:
    assert verdict(said) is means


ANSWERED: dict[str, tuple[dict[str, Any], str]] = {
    "chat": ({"messages": [{"role": "tool", "tool_call_id": "t", "content": "R"}]}, "messages"),
    "messages": (
        {"messages": [{"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "R"}]}]},
        "system",
    ),
    "responses": ({"input": [{"type": "function_call_output", "call_id": "t", "output": "R"}]}, "instructions"),
}


@pytest.mark.parametrize("dialect", ANSWERED)
def test_a_prompt_without_a_system_text_is_told_what_the_marks_mean(dialect: str) -> None:
    fields, name = ANSWERED[dialect]
    texts = {text.role: text for text in checked(read(dialect, **fields)).texts()}
    assert (texts["system"].text, texts["system"].place[0]) == (injection.NOTICE, name)
    assert texts["tool"].text == injection.marked("R", "tool")


SEARCHED = {"type": "search_result", "source": "a", "title": "t", "content": [{"type": "text", "text": "R"}]}


@pytest.mark.parametrize(
    "block",
    [
        {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "R"}},
        {"type": "document", "source": {"type": "content", "content": [{"type": "text", "text": "R"}]}},
        SEARCHED,
        {"type": "tool_result", "tool_use_id": "t", "content": [SEARCHED]},
    ],
)
def test_what_was_retrieved_is_untrusted(block: dict[str, Any]) -> None:
    request = checked(
        read("messages", messages=[{"role": "user", "content": [block, {"type": "text", "text": "ask"}]}])
    )
    texts = {text.text: text.role for text in request.texts()}
    assert texts == {injection.NOTICE: "system", "ask": "user", injection.marked("R", "tool"): "tool"}


def test_documents_to_be_ranked_keep_their_words() -> None:
    request = checked(read("rerank", query="q", documents=["one", "two"]))
    assert request.decoded("documents") == ["one", "two"]
