"""A world of a trial's own: tools that act on state in memory, which is looked at when the trial ends.

The project's function makes one for each trial: ``world(case) -> World``. Nothing its tools do reaches the outside,
unless the project's own code goes there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import Case
from lockgate.evals.scorers.python import load_function


class World(Protocol):
    """What the project's function gives. ``lookups``, where it has them, are the names of its tools that change
    nothing: an expected call of one may be refused, as when a customer gives a wrong number first."""

    @property
    def tools(self) -> Mapping[str, Callable[..., Any]]:
        """By the name the agent knows them by. Called with keyword arguments; what they raise, the agent is told."""
        ...

    def state(self) -> Any:
        """All of it as a JSON value: objects are compared key by key, anything else as a whole."""
        ...


MakeWorld = Callable[[Case], World]

_loaded: dict[tuple[str, str, int], MakeWorld] = {}


def load_world(reference: str, root: Path) -> MakeWorld:
    """The project's function; loaded once, and again when its file has changed. Raises :class:`InputError`."""
    file = root / reference.rpartition(":")[0]
    key = (str(root.resolve()), reference, file.stat().st_mtime_ns if file.is_file() else 0)
    if key not in _loaded:
        _loaded[key] = load_function(reference, root)
    return _loaded[key]


def changes(before: Any, after: Any) -> dict[str, Any]:
    """What differs, by path (``orders/#W1/status``): the value after, None where it is gone."""
    found: dict[str, Any] = {}
    _compare(before, after, "", found)
    return found


def expected_changes(world: World, calls: list[Any]) -> dict[str, Any]:
    """What a world comes to when ``calls`` (``{"name", "arguments"}``) are made in it.

    Raises :class:`InputError` for a call that the world refuses: nobody could meet such an expectation.
    """
    before = _copy(world.state())
    make_calls(world, calls)
    return changes(before, _copy(world.state()))


def make_calls(world: World, calls: list[Any]) -> None:
    """Make the expected ``calls`` in a world. Raises as :func:`expected_changes` does."""
    lookups = frozenset(getattr(world, "lookups", ()))
    for call in calls:
        name, arguments = (call, {}) if isinstance(call, str) else (call["name"], call.get("arguments") or {})
        tool = world.tools.get(name)
        if tool is None:
            continue  # a tool without a place in the world cannot change it
        try:
            tool(**_copy(arguments))
        except Exception as failure:  # whatever the project's world raises
            if name in lookups:
                continue
            raise InputError(
                f"the expected call {name}({arguments!r}) is refused by the world: {failure}",
                remedy="correct expected_tools, or the world",
            ) from failure


def _copy(value: Any) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _compare(before: Any, after: Any, path: str, found: dict[str, Any]) -> None:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in before.keys() | after.keys():
            below = f"{path}/{key}" if path else str(key)
            if key not in after:
                found[below] = None
            elif key not in before:
                found[below] = after[key]
            else:
                _compare(before[key], after[key], below, found)
    elif before != after:
        found[path] = after
