"""The native loop: a system prompt, tools the model may call, an output schema with repairs, then the handler.

It speaks the chat-completions wire format. Every act goes through the run's context, so that it is counted,
recorded and can be replayed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from lockgate.errors import RunFailed, ToolFailed
from lockgate.runtime.context import RunContext
from lockgate.runtime.handling import run_handler
from lockgate.tools.contracts import schema_problem
from lockgate.versions.model import AgentVersion, ToolContract

_ROLES = ("user", "assistant")


async def run_native(ctx: RunContext, input: Any) -> Any:
    """The answer: text, or the JSON value the schema or the handler gave. Raises :class:`RunFailed`."""
    version = ctx.version
    messages = opening(version, input)
    # A handler calls the tools itself; the model only says what it found.
    tools = [] if version.handler else [tool_schema(tool) for tool in version.tools if tool.python]
    schema = version.guardrails.output_schema
    form = response_format(version.agent, schema)
    while True:
        # Some servers refuse a schema beside tools, so it is sent when no tools are offered, and for repairs.
        completion = await ctx.model(messages, tools=tools, response_format=None if tools else form)
        message = completion.message
        calls = message.get("tool_calls") or []
        if calls and tools:
            messages.append(_said(message))
            messages.extend(await _call_tools(ctx, calls))
            continue
        output, problem = read_answer(message, schema, cut=completion.finish_reason == "length")
        if problem is None:
            break
        if not ctx.iterate():
            limit = version.limits.max_iterations
            raise RunFailed(
                "output_invalid",
                f"the answer is still invalid after {limit} repairs: {problem}",
                remedy="max_iterations under budgets in the agent file allows more",
            )
        messages += [_said(message), {"role": "user", "content": repair_request(problem, schema)}]
        tools = []
    return await run_handler(ctx, output) if version.handler else output


def opening(version: AgentVersion, input: Any) -> list[dict[str, Any]]:
    """System prompt and the caller's messages. Raises :class:`RunFailed` (``input_invalid``)."""
    system = [{"role": "system", "content": version.system_prompt}] if version.system_prompt else []
    if isinstance(input, str):
        return [*system, {"role": "user", "content": input}]
    given = input.get("messages") if isinstance(input, dict) else None
    if not isinstance(given, list) or not given:
        raise RunFailed(
            "input_invalid", f"the input is {_short(input)}", remedy='give text, or {"messages": [{"role", "content"}]}'
        )
    for number, message in enumerate(given):
        role = message.get("role") if isinstance(message, dict) else None
        if role not in _ROLES or not isinstance(message.get("content"), (str, list)):
            raise RunFailed(
                "input_invalid",
                f"messages.{number} is {_short(message)}",
                remedy="a message has a role (user or assistant) and a content; the system prompt is the agent's own",
            )
    return system + [{"role": message["role"], "content": message["content"]} for message in given]


def tool_schema(tool: ToolContract) -> dict[str, Any]:
    """A tool as chat completions offers it to a model."""
    parameters = tool.input or {"type": "object", "properties": {}}
    return {
        "type": "function",
        "function": {"name": tool.name, "description": tool.description, "parameters": parameters},
    }


def response_format(agent: str, schema: dict[str, Any] | None) -> dict[str, Any] | None:
    """The request for an answer that fits ``schema``."""
    if schema is None:
        return None
    name = "".join(c if c.isalnum() or c in "_-" else "_" for c in f"{agent}_output")[:64]
    return {"type": "json_schema", "json_schema": {"name": name, "schema": schema, "strict": True}}


def read_answer(message: dict[str, Any], schema: dict[str, Any] | None, *, cut: bool) -> tuple[Any, str | None]:
    """The answer in a message, and what is wrong with it (None: nothing). ``cut``: the model ran out of tokens."""
    text = text_of(message.get("content"))
    if schema is None:
        return text, None if text.strip() else "the answer is empty"
    if cut:
        return None, "the answer was cut off at max_tokens"
    try:
        value = msgspec.json.decode(_unfenced(text))
    except (msgspec.DecodeError, UnicodeError) as error:
        return None, f"the answer is not JSON ({error})"
    problem = schema_problem(schema, value)
    return value, f"the answer does not fit the schema: {problem}" if problem else None


def repair_request(problem: str, schema: dict[str, Any] | None) -> str:
    """What the model is told about its invalid answer."""
    if schema is None:
        return f"{problem[0].upper()}{problem[1:]}. Answer again."
    form = msgspec.json.encode(schema).decode()
    return f"{problem[0].upper()}{problem[1:]}. Answer again with only one JSON value that fits this schema: {form}"


def text_of(content: Any) -> str:
    """A message's content as text: it is text, or a list of parts of which some are."""
    if isinstance(content, str):
        return content
    parts = content if isinstance(content, list) else []
    return "".join(part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str))


async def _call_tools(ctx: RunContext, calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each call's result as a message; a failed one tells the model why, so that it may do better."""
    return [
        {"role": "tool", "tool_call_id": str(call.get("id") or f"call_{index}"), "content": await _result(ctx, call)}
        for index, call in enumerate(calls)
    ]


async def _result(ctx: RunContext, call: dict[str, Any]) -> str:
    function = call.get("function")
    function = function if isinstance(function, dict) else {}
    try:
        arguments = _arguments(function.get("arguments"))
        result = await ctx.tool(str(function.get("name")), arguments)
    except ToolFailed as failure:
        return msgspec.json.encode({"error": failure.error_type, "message": failure.message}).decode()
    return result if isinstance(result, str) else msgspec.json.encode(result).decode()


def _arguments(raw: Any) -> Any:
    """What the model wrote as arguments; text that is no JSON goes on as text, for the contract to refuse."""
    if not isinstance(raw, str):
        return {} if raw is None else raw
    try:
        return msgspec.json.decode(raw) if raw.strip() else {}
    except msgspec.DecodeError:
        return raw


def _said(message: dict[str, Any]) -> dict[str, Any]:
    """The assistant's message as it goes back to the model: what the wire format knows, call ids filled in."""
    said: dict[str, Any] = {"role": "assistant", "content": message.get("content")}
    if calls := message.get("tool_calls"):
        said["tool_calls"] = [
            {**call, "id": str(call.get("id") or f"call_{index}")} for index, call in enumerate(calls)
        ]
    return said


def _unfenced(text: str) -> str:
    """JSON out of a Markdown code fence, as models like to wrap it."""
    text = text.strip()
    if text.startswith("```") and text.endswith("```") and "\n" in text:
        return text[text.index("\n") + 1 : -3]
    return text


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
