"""What a run has done so far, read out of the conversation it sends, and when that is too much. Pure.

Whatever framework runs an agent, each model call carries the conversation: the tools that were called in it, with their
arguments, are there to be counted, in the words of chat completions, of Anthropic's messages and of responses.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from lockgate.errors import LimitExceeded
from lockgate.limits.refusals import setting_of

MAX_REPEATS = 5
"""The same tool with the same arguments so often is a loop."""

ToolCall = tuple[str, str]
"""A tool's name, and its arguments as JSON with sorted keys."""

UNSEEN = "unseen:"
"""Before the name of a field, or a tool's type, that brings tools which cannot be seen here. No tool has a colon in its
name, so a list that holds such a word was meant to."""

_CONVERSATIONS = frozenset(("messages", "input"))
_OFFERS = frozenset(("tools", "functions"))
_SEARCHES = frozenset(("web_search_options", "search_parameters"))
_BRINGS_UNSEEN = frozenset(
    ("mcp_servers", "prompt", "conversation", "previous_response_id", "plugins", "data_sources")
)  # fmt: skip
LOOKED_AT = _CONVERSATIONS | _OFFERS | {"container"}
"""The fields of a request that are looked into for tools."""
_SERVERS = frozenset(("mcp", "mcp_toolset"))
_NAMED = frozenset(("function", "custom", "namespace", "None"))

_HIDDEN_LETTER = re.compile(rb"\\u00[4-7]")
"""A letter written as an escape: in a word that is looked for, maybe."""

_encode = msgspec.json.Encoder(order="sorted").encode


class ActionBudget(NamedTuple):
    """What a run may do. Its model calls, tokens and USD are accounts in the hold table."""

    run_id: str
    max_tool_calls: int
    max_iterations: int
    max_seconds: float
    max_depth: int
    max_repeats: int = MAX_REPEATS


def may_hold_calls(*fields: bytes) -> bool:
    """Whether it is worth decoding the conversation: False when it surely holds no tool call."""
    return any(
        b'"tool_calls"' in raw
        or b'"tool_use"' in raw
        or b'"function_call"' in raw
        or (b"\\u00" in raw and _HIDDEN_LETTER.search(raw) is not None)
        for raw in fields
    )


def tool_calls(conversation: Any) -> list[ToolCall]:
    """The tool calls in ``messages`` (chat completions, Anthropic) or ``input`` (responses), in order."""
    found: list[ToolCall] = []
    for item in conversation if isinstance(conversation, list) else ():
        if not isinstance(item, Mapping):
            continue
        if item.get("type") == "function_call":
            found.append(_call(item.get("name"), item.get("arguments")))
        old = item.get("function_call")
        if isinstance(old, Mapping):
            found.append(_call(old.get("name"), old.get("arguments")))
        for call in _list(item.get("tool_calls")):
            function = call.get("function")
            if isinstance(function, Mapping):
                found.append(_call(function.get("name"), function.get("arguments")))
        for block in _list(item.get("content")):
            if block.get("type") == "tool_use":
                found.append(_call(block.get("name"), block.get("input")))
    return found


def offered_tools(tools: Any) -> list[str]:
    """What an allow-list has to hold for these tools to be offered, in any of the protocols: every name in them, at any
    depth (a namespace's, and those of its tools). A provider's own tool goes by its type, or by its name where the type
    is that name with a date (``web_search_20250305``); a server's tools, which nobody sees here, by :data:`UNSEEN`."""
    words: list[str] = []
    left = [tools]
    while left:
        tool = left.pop()
        if isinstance(tool, list):
            left += reversed(tool)
        elif isinstance(tool, Mapping):
            names, kinds = _names(tool), [str(kind) for key, kind in tool.items() if key.casefold() == "type"]
            inner = [value for key, value in tool.items() if key.casefold() == "tools"]
            for kind in kinds:
                if kind in _SERVERS:
                    words.append(UNSEEN + kind)
                elif not names or (kind not in _NAMED and not any(_is_dated(kind, name) for name in names)):
                    words.append(kind)
            words += names
            if not (names or kinds or inner):
                words.append(UNSEEN + "tools")
            left += inner
    return words


def offered_by(fields: Iterable[str], read: Callable[[str], Any]) -> list[str]:
    """What an allow-list has to hold for a request, by whatever field it brings tools: as :func:`offered_tools`, and
    :data:`UNSEEN` with the field's name where its tools cannot be seen here. ``read`` gives a field's value."""
    words: list[str] = []
    for field in fields:
        name = field.casefold()  # some servers take a key however its letters are written
        if name in _OFFERS:
            words += offered_tools(read(field))
        elif name in _CONVERSATIONS:
            words += _brought_along(read(field))
        elif name in _SEARCHES:
            if read(field) is not None:
                words.append("web_search")
        elif name in _BRINGS_UNSEEN:
            if read(field) not in (None, [], False):
                words.append(UNSEEN + name)
        elif name == "container":
            container = read(field)  # by its name alone it is a place to work in
            if isinstance(container, Mapping) and any(
                container[key] for key in container if key.casefold() == "skills"
            ):
                words.append(UNSEEN + name)
    return words


def _brought_along(conversation: Any) -> list[str]:
    """The tools that items of a conversation bring (``additional_tools``, a tool search's output)."""
    words: list[str] = []
    left = [conversation]
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += reversed(item)
        elif isinstance(item, Mapping):
            kind = item.get("type")
            if kind == "item_reference" or (kind is None and "id" in item and "role" not in item):
                words.append(UNSEEN + "item_reference")
            for key, value in item.items():
                name = key.casefold()
                if name in _OFFERS:
                    words += offered_tools(value)
                elif name in ("content", "output"):
                    left.append(value)
    return words


def _names(tool: Mapping[str, Any]) -> list[str]:
    """Every name that a tool is given: which of several counts is the provider's to say."""
    names = []
    for key, value in tool.items():
        if key.casefold() == "name":
            names.append(value)
        elif key.casefold() in ("function", "custom") and isinstance(value, Mapping):
            names += [name for inner, name in value.items() if inner.casefold() == "name"]
    return [str(name) for name in names if name is not None]


def _is_dated(kind: str, name: str) -> bool:
    """Whether a type of Anthropic's is that of its tool of this name."""
    what, _, date = kind.rpartition("_")
    is_date = len(date) == 8 and date.isdecimal()
    return is_date and (what == name or (what == "text_editor" and name.startswith("str_replace_")))


def check(
    budget: ActionBudget,
    calls: Sequence[ToolCall],
    *,
    seconds: float = 0.0,
    iteration: int | None = None,
    depth: int | None = None,
) -> None:
    """:class:`LimitExceeded` with a typed reason when the run has to end; waiting does not help then."""
    if calls:
        ((name, arguments), count) = Counter(calls).most_common(1)[0]
        if count >= budget.max_repeats:
            raise _ends(
                budget,
                "loop_detected",
                "limits.runs.max_repeats in lockgate.yaml",
                f"called the tool {name!r} {count} times with the same arguments, {_short(arguments)}",
            )
    limits = (
        ("tool_calls_exceeded", "max_tool_calls", "tool calls", len(calls), budget.max_tool_calls),
        ("iterations_exceeded", "max_iterations", "iterations", iteration, budget.max_iterations),
        ("time_exceeded", "max_seconds", "seconds", seconds, budget.max_seconds),
        ("depth_exceeded", "max_depth", "runs above it", depth, budget.max_depth),
    )
    for reason, setting, what, used, most_allowed in limits:
        if used is not None and used > most_allowed:
            key = setting_of(f"run:{budget.run_id}", setting)
            raise _ends(budget, reason, key, f"has {used:g} {what}, and {setting} is {most_allowed:g}")


def out_of_time(budget: ActionBudget) -> LimitExceeded:
    """What a call meets that is under way when the time of its run is over."""
    key = setting_of(f"run:{budget.run_id}", "max_seconds")
    return _ends(budget, "time_exceeded", key, f"is out of time: max_seconds is {budget.max_seconds:g}")


def _ends(budget: ActionBudget, reason: str, key: str, message: str) -> LimitExceeded:
    return LimitExceeded(
        f"the run {budget.run_id!r} {message}",
        limit=f"run:{budget.run_id}",
        reason=reason,
        remedy=f"end the run; a higher limit is {key}",
    )


def _list(value: Any) -> Iterable[Mapping[str, Any]]:
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else ()


def _call(name: Any, arguments: Any) -> ToolCall:
    if not isinstance(arguments, str):
        return str(name), _encode(arguments).decode()
    try:
        return str(name), _encode(msgspec.json.decode(arguments)).decode()
    except (msgspec.DecodeError, RecursionError):
        return str(name), arguments


def _short(text: str) -> str:
    return text if len(text) <= 120 else text[:117] + "…"
