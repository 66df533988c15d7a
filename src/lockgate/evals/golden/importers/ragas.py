"""RAGAS: evaluation sets and test sets as its ``to_csv``, ``to_jsonl`` and ``to_pandas`` write them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from lockgate.evals.golden.importers.rows import Row, Text, listed, rows, structured
from lockgate.evals.golden.importers.tables import own_fields

_ROLES = {"human": "user", "ai": "assistant", "tool": "tool", "system": "system"}


def looks_like(columns: set[str]) -> bool:
    return (
        "user_input" in columns or {"question", "ground_truth"} <= columns or {"question", "ground_truths"} <= columns
    )


def read(file: Text) -> Iterator[Row]:
    """``answer`` beside a ``ground_truth`` is what a system once said, so it is kept apart."""
    for row in rows(file, inside=("samples", "data")):
        data = dict(row.data)
        if "ground_truths" in data:
            truths = listed(data.pop("ground_truths"))
            data["ground_truth"] = truths[0] if isinstance(truths, list) and len(truths) == 1 else truths
        if "answer" in data and ("ground_truth" in data or "reference" in data):
            data["response"] = data.pop("answer")
        if "ground_truth" in data and "reference" in data:
            data.pop("ground_truth")
        tools = structured(data.get("reference_tool_calls"))
        if isinstance(tools, list):
            data["reference_tool_calls"] = [_call(tool) for tool in tools]
        given = structured(data.get("user_input"))
        if isinstance(given, list):
            messages = [_message(message) for message in given]
            asked = max((n for n, message in enumerate(messages) if message.get("role") == "user"), default=-1)
            if messages[asked + 1 :]:
                data["response"] = messages[asked + 1 :]  # what followed the user's last word was the system's
            data["user_input"] = {"messages": messages[: asked + 1]} if asked >= 0 else ""
        yield Row(row.line, own_fields(data))


def _message(message: Any) -> dict[str, Any]:
    if not isinstance(message, dict):
        return {"role": "user", "content": str(message)}
    kind = str(message.get("type") or message.get("role") or "human")
    return {"role": _ROLES.get(kind, kind), "content": message.get("content", "")}


def _call(tool: Any) -> Any:
    if isinstance(tool, dict) and "args" in tool:
        return {"name": tool.get("name"), "arguments": tool["args"]}
    return tool
