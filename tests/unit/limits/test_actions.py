"""What a run has done is read out of its conversation, in every protocol's words."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import LimitExceeded
from lockgate.limits.actions import ActionBudget, check, may_hold_calls, offered_by, offered_tools, tool_calls

BUDGET = ActionBudget("r1", max_tool_calls=3, max_iterations=2, max_seconds=60.0, max_depth=1, max_repeats=2)

CHAT = [
    {"role": "user", "content": "hi"},
    {"role": "assistant", "tool_calls": [{"function": {"name": "look", "arguments": '{"b": 1, "a": 2}'}}]},
]
USE = {"type": "tool_use", "name": "look", "input": {"a": 2, "b": 1}}
MESSAGES = [{"role": "assistant", "content": [{"type": "text"}, USE]}]
CALL = {"type": "function_call", "name": "look", "arguments": '{"a":2,"b":1}'}
RESPONSES = [CALL, {"type": "message", "content": "x"}]


@pytest.mark.parametrize("conversation", [CHAT, MESSAGES, RESPONSES], ids=["chat", "messages", "responses"])
def test_tool_calls_are_found_with_their_arguments_in_one_form(conversation: Any) -> None:
    assert tool_calls(conversation) == [("look", '{"a":2,"b":1}')]


@given(
    st.recursive(
        st.none() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner)
            | st.dictionaries(
                st.sampled_from(
                    [
                        "type",
                        "tool_calls",
                        "content",
                        "function",
                        "name",
                        "arguments",
                        "input",
                        "tools",
                        "function_call",
                    ]
                ),
                inner,
            )
        ),
    )
)
def test_no_conversation_breaks_it(conversation: Any) -> None:
    tool_calls(conversation)
    offered_tools(conversation)
    offered_by(["messages", "tools", "container"], lambda _: conversation)


@pytest.mark.parametrize("arguments", ["{broken", "[" * 10_000 + "]" * 10_000], ids=["broken", "deep"])
def test_arguments_that_cannot_be_read_are_compared_as_they_are(arguments: str) -> None:
    calls = tool_calls([{"tool_calls": [{"function": {"name": "look", "arguments": arguments}}]}])
    assert calls == [("look", arguments)]


def test_a_conversation_without_calls_is_not_decoded() -> None:
    assert not may_hold_calls(b'[{"role": "user", "content": "tool"}]')
    assert may_hold_calls(b'[{"tool_calls": []}]')


@pytest.mark.parametrize(
    ("calls", "more", "reason"),
    [
        ([("look", "{}")] * 2, {}, "loop_detected"),
        ([("look", str(number)) for number in range(4)], {}, "tool_calls_exceeded"),
        ([], {"iteration": 3}, "iterations_exceeded"),
        ([], {"seconds": 61.0}, "time_exceeded"),
        ([], {"depth": 2}, "depth_exceeded"),
    ],
)
def test_a_run_ends_with_its_reason_and_waiting_does_not_help(calls: Any, more: Any, reason: str) -> None:
    with pytest.raises(LimitExceeded, match="the run 'r1'") as ended:
        check(BUDGET, calls, **more)
    assert (ended.value.reason, ended.value.retry_after) == (reason, None)
    where = "limits.runs.max_repeats in lockgate.yaml" if reason == "loop_detected" else "in the agent's file"
    assert where in str(ended.value.remedy)


def test_what_is_within_its_limits_goes_on() -> None:
    check(BUDGET, [("look", "1"), ("look", "2"), ("ask", "1")], seconds=60.0, iteration=2, depth=1)


def test_offered_tools_have_names_in_every_protocol() -> None:
    tools = [{"type": "function", "function": {"name": "a"}}, {"name": "b"}, {"type": "web_search"}]
    assert offered_tools(tools) == ["a", "b", "web_search"]


@pytest.mark.parametrize(
    ("tool", "words"),
    [
        ({"type": "namespace", "name": "f", "tools": [{"type": "function", "name": "g"}]}, ["f", "g"]),
        ({"type": "custom", "custom": {"name": "g"}}, ["g"]),
        ({"type": "function", "name": "g", "function": {"name": "f"}}, ["g", "f"]),
        ({"function": {"name": "f", "Name": "g"}}, ["f", "g"]),
        ({"type": "shell", "name": "f"}, ["shell", "f"]),
        ({"type": "web_search_20250305", "name": "web_search"}, ["web_search"]),
        ({"type": "web_search_20250305", "name": "f"}, ["web_search_20250305", "f"]),
        ({"type": "text_editor_20250728", "name": "str_replace_based_edit_tool"}, ["str_replace_based_edit_tool"]),
        ({"type": "mcp", "name": "f", "server_label": "f"}, ["unseen:mcp", "f"]),
        ({"type": "mcp_toolset", "mcp_server_name": "f"}, ["unseen:mcp_toolset"]),
        ({"google_search": {}}, ["unseen:tools"]),
    ],
)
def test_a_tool_goes_by_every_name_it_has_and_by_its_type_where_the_provider_runs_it(tool: Any, words: Any) -> None:
    assert offered_tools([tool]) == words


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("functions", [{"name": "g"}], ["g"]),
        ("Tools", [{"name": "g"}], ["g"]),
        ("web_search_options", {}, ["web_search"]),
        ("mcp_servers", [{"url": "https://example.com"}], ["unseen:mcp_servers"]),
        ("container", {"skills": [{"skill_id": "x"}]}, ["unseen:container"]),
        ("prompt", {"id": "p"}, ["unseen:prompt"]),
        ("previous_response_id", "r", ["unseen:previous_response_id"]),
        ("input", [{"type": "additional_tools", "tools": [{"type": "function", "name": "g"}]}], ["g"]),
        ("input", [{"type": "item_reference", "id": "i"}], ["unseen:item_reference"]),
        ("input", [{"id": "i"}], ["unseen:item_reference"]),
        ("messages", [{"role": "system", "tools": [{"type": "function", "function": {"name": "g"}}]}], ["g"]),
    ],
)
def test_tools_are_found_in_whatever_field_brings_them(field: str, value: Any, words: Any) -> None:
    assert offered_by([field], lambda _: value) == words


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("web_search_options", None),
        ("mcp_servers", []),
        ("container", "container_1"),
        ("input", "tools"),
        ("messages", [{"role": "user", "content": "tools"}, *MESSAGES]),
        ("messages", [{"role": "assistant", "content": [{"type": "tool_use", "input": {"tools": [{"name": "g"}]}}]}]),
        ("input", [{"role": "user", "content": "x", "id": "i"}, *RESPONSES]),
    ],
)
def test_what_brings_no_tool_needs_nothing_of_a_list(field: str, value: Any) -> None:
    assert offered_by([field], lambda _: value) == []


def test_the_old_function_call_is_counted_as_a_tool_call_is() -> None:
    old = [{"role": "assistant", "content": None, "function_call": {"name": "look", "arguments": '{"b": 1, "a": 2}'}}]
    assert tool_calls([*old, {"role": "function", "name": "look", "content": "no"}]) == [("look", '{"a":2,"b":1}')]


def test_a_conversation_whose_words_are_escaped_is_decoded() -> None:
    assert may_hold_calls(rb'[{"tool\u005fcalls": []}]')
    assert not may_hold_calls(rb'["caf\u00e9"]')
