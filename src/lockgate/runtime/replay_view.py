"""A replay in the terminal: each step of the record beside what the replay made of it, and where they part."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.console import console, table
from lockgate.money import show_usd
from lockgate.runtime.journal import Asked, kind_and_name
from lockgate.runtime.model import Step

if TYPE_CHECKING:
    from lockgate.runtime.replay import Replay

MOST_LINES = 60
"""Lines of a difference that are shown; --json has all of it."""


def draw_replay(found: Replay, recorded: list[Step]) -> None:
    """Say how it went, and show the first divergent step."""
    from rich.text import Text

    out = console()
    if found.exact and not found.live:
        said = f"Exact: all {found.steps} steps, and the same end ({found.error_type or found.status})."
        out.print(said, markup=False)
        return
    table(("step", "recorded", "replayed", ""), list(_rows(found, recorded)))
    out.print()
    if found.exact:
        out.print(f"The same end ({found.error_type or found.status}), asked live.", markup=False)
    elif found.parting is not None:
        out.print(f"Diverged after {found.replayed} of {found.steps} steps: {found.divergence}", markup=False)
        for line in difference(found.parting.expected, found.parting.got):
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
            out.print(Text(f"  {line}", style=style), soft_wrap=True)
    else:
        out.print(f"Another end: {found.divergence}", markup=False, soft_wrap=True)
    if found.live:
        ended = found.error_type or found.status
        out.print(f"Live: ended as {ended}, {show_usd(found.cost_nano)}; nothing was written.", markup=False)
        if found.output is not None:
            out.print(f"Answer: {_pretty(found.output)}", markup=False, soft_wrap=True)


def difference(expected: Asked | None, got: Asked | None) -> list[str]:
    """What was expected (``-``) and what came (``+``), as a diff of both requests."""
    before = ["(the record ends here)"] if expected is None else _lines(expected)
    after = ["(the replay asks for no more)"] if got is None else _lines(got)
    if before == after:
        return []
    lines = list(difflib.unified_diff(before, after, "expected", "got", lineterm="", n=2))
    left = len(lines) - MOST_LINES
    return [*lines[:MOST_LINES], f"… {left} more lines (--json shows all)"] if left > 0 else lines


def _rows(found: Replay, recorded: list[Step]) -> list[tuple[Any, ...]]:
    rows: list[tuple[Any, ...]] = []
    parting = found.parting.seq if found.parting else None
    for number in range(max(len(recorded), len(found.taken), (parting or -1) + 1)):
        was = recorded[number] if number < len(recorded) else None
        now: Step | Asked | None = found.taken[number] if number < len(found.taken) else None
        if now is None and number == parting and found.parting is not None:
            now = found.parting.got
        mark = "same" if number < found.replayed else "parts here" if number == parting else "live" if now else ""
        rows.append((number, _name(was), _name(now), mark))
    return rows


def _name(step: Step | Asked | None) -> str:
    return "" if step is None else kind_and_name(step.kind, step.name)


def _lines(asked: Asked) -> list[str]:
    """A request, texts line by line so that a prompt's change shows as one."""
    return [kind_and_name(asked.kind, asked.name), *_pretty(asked.request).replace("\\n", "\n").split("\n")]


def _pretty(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.format(msgspec.json.encode(value, order="sorted"), indent=2).decode()
