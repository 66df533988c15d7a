"""tau2-bench: ``tasks.json`` of a domain, with ``split_tasks.json`` beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockgate.evals.golden.importers.rows import Row, Text, json_rows


def looks_like(columns: set[str]) -> bool:
    return {"user_scenario", "evaluation_criteria"} <= columns


def read(file: Text, world: str | None = None) -> Iterator[Row]:
    """The user's part becomes ``metadata.simulation.user``; the expected calls are the assistant's own. ``world``
    (``path/to/file.py:function``) is what they are made in.

    Tasks of one customer share a cluster: they share orders, and so fail together.
    """
    splits = _splits(Path(file.path).with_name("split_tasks.json"))
    for row in json_rows(file):
        task, scenario = row.data, row.data.get("user_scenario") or {}
        instructions = scenario.get("instructions") or {}
        if isinstance(instructions, str):
            instructions = {"reason_for_call": instructions}
        criteria = task.get("evaluation_criteria") or {}
        actions = [one for one in criteria.get("actions") or () if one.get("requestor", "assistant") == "assistant"]
        if not instructions.get("reason_for_call"):
            file.wrong(row.line, f"task {task.get('id')!r} has no reason_for_call", "add it, or take the task out")
        persona = (scenario.get("persona"), instructions.get("task_instructions"))
        user = {
            "goal": instructions["reason_for_call"],
            "persona": " ".join(str(part) for part in persona if part),
            "known": instructions.get("known_info") or "",
            "unknown": instructions.get("unknown_info") or "",
        }
        user = {name: str(text) for name, text in user.items() if text}
        simulation: dict[str, Any] = {"user": user} if world is None else {"user": user, "world": world}
        metadata: dict[str, Any] = {"simulation": simulation, "domain": instructions.get("domain")}
        for name in ("initial_state",):
            if task.get(name):
                metadata[name] = task[name]
        for name in ("communicate_info", "nl_assertions", "reward_basis"):
            if criteria.get(name):
                metadata[name] = criteria[name]
        yield Row(
            row.line,
            {
                "id": f"tau2-{instructions.get('domain') or 'task'}-{task['id']}",
                "input": instructions["reason_for_call"],
                "expected_tools": [{"name": one["name"], "arguments": one.get("arguments") or {}} for one in actions],
                "tags": [str(instructions.get("domain") or "tau2"), *(["no-action"] if not actions else [])],
                "cluster": _customer(actions),
                "split": splits.get(str(task["id"])),
                "metadata": {key: value for key, value in metadata.items() if value},
            },
        )


def _customer(actions: list[dict[str, Any]]) -> str | None:
    for action in actions:
        arguments = action.get("arguments") or {}
        if "first_name" in arguments and "last_name" in arguments:
            return f"{arguments['first_name']}-{arguments['last_name']}".lower()
        if isinstance(arguments.get("user_id"), str):
            return re.sub(r"_\d+$", "", arguments["user_id"]).replace("_", "-").lower()
    return None


def _splits(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {str(id): name for name in ("train", "test") for id in found.get(name, ())}
