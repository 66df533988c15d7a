"""DeepEval: goldens, as ``EvaluationDataset.save_as`` writes them (JSON, JSONL and CSV)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from lockgate.evals.golden.importers.rows import Row, Text, listed, rows, structured

_READ = frozenset(
    {
        *("input", "expected_output", "actual_output", "context", "retrieval_context"),
        *("expected_tools", "tools_called"),
        *("scenario", "expected_outcome", "user_description", "turns", "tags", "name"),
    }
)


_TELLING = {"scenario", "actual_output", "retrieval_context", "expected_outcome", "additional_metadata"}


def looks_like(columns: set[str]) -> bool:
    return not _TELLING.isdisjoint(_snake(name) for name in columns)


def read(file: Text) -> Iterator[Row]:
    """``context`` is what a good answer rests on, ``retrieval_context`` what was retrieved.

    A conversational golden becomes a case with a simulated user: ``metadata.simulation.user``. Names are taken in both
    of DeepEval's spellings (``expected_output``, ``expectedOutput``); columns that it does not know go to ``metadata``.
    """
    separator = "|" if file.path.endswith(".csv") else ";"
    for row in rows(file, inside=("goldens", "testCases", "conversationalTestCases")):
        data = {_snake(key): value for key, value in row.data.items() if value is not None}
        found: dict[str, Any] = {}
        metadata = {name: structured(value) for name, value in data.items() if name not in _READ and value}
        if "scenario" in data:
            found["input"] = _opening(data)
            user = {"goal": str(data["scenario"]), "persona": str(data.get("user_description", ""))}
            metadata["simulation"] = {"user": user}
            found["expected_output"] = data.get("expected_outcome")
        else:
            found["input"] = data.get("input")
            found["expected_output"] = data.get("expected_output")
        if data.get("context"):
            found["reference_contexts"] = [str(text) for text in listed(data["context"], separator)]
        if data.get("retrieval_context"):
            found["contexts"] = [_context(text) for text in listed(data["retrieval_context"], separator)]
        if data.get("expected_tools"):
            tools = structured(data["expected_tools"])
            found["expected_tools"] = [_tool(tool) for tool in (tools if isinstance(tools, list) else listed(tools))]
        if data.get("actual_output"):
            metadata["response"] = data["actual_output"]
        if data.get("tools_called"):
            metadata["tools_called"] = structured(data["tools_called"])
        if data.get("tags"):
            found["tags"] = listed(data["tags"])
        if data.get("name"):
            found["id"] = data["name"]
        if metadata:
            found["metadata"] = metadata
        yield Row(row.line, found)


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower()


def _opening(data: dict[str, Any]) -> Any:
    turns = structured(data.get("turns"))
    if isinstance(turns, list) and turns and all(isinstance(turn, dict) for turn in turns):
        return {"messages": [{"role": turn.get("role"), "content": turn.get("content")} for turn in turns]}
    return data["scenario"]


def _context(value: Any) -> str:
    return str(value.get("context", value)) if isinstance(value, dict) else str(value)


def _tool(tool: Any) -> Any:
    if not isinstance(tool, dict):
        return tool
    arguments = tool.get("input_parameters") or tool.get("inputParameters")
    return {"name": tool.get("name"), "arguments": arguments} if arguments is not None else {"name": tool.get("name")}
