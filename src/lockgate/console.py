"""What commands print with: tables for people, JSON for programs, errors on standard error.

Rich is imported when something is drawn, not when a command is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from lockgate.errors import LockgateError

if TYPE_CHECKING:
    from rich.console import Console, ConsoleRenderable

JsonFlag = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]
"""The ``--json`` option every printing command takes: ``json: JsonFlag = False``."""

Who = Annotated[str, typer.Option("--as", "--by", help="Who acts; default: the user of this machine.")]
"""The option of commands that record who decided: ``who: Who = ""``, then ``who or user()``."""
Reason = Annotated[str, typer.Option("--reason", "--why", help="Why; it is kept.")]
"""The option of commands that record why."""


def group(help: str, *, alone: bool = False) -> typer.Typer:
    """A command with commands of its own. ``alone``: it does something without one, too."""
    return typer.Typer(
        no_args_is_help=not alone, invoke_without_command=alone, add_completion=False, rich_markup_mode=None, help=help
    )


_PIPED_WIDTH = 10_000  # no line is cut or folded for a program

_consoles: dict[bool, Console] = {}


def console(*, stderr: bool = False) -> Console:
    """A Rich console: colour and progress on a terminal, plain text when piped."""
    if stderr not in _consoles:
        from rich.console import Console

        _consoles[stderr] = Console(stderr=stderr, highlight=False, soft_wrap=not sys.stdout.isatty())
    return _consoles[stderr]


def user() -> str:
    """The name of this machine's user; ``unknown`` for an id without a name, as in some containers."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"


def invocation(folder: Path) -> str:
    """How someone who stands in ``folder`` calls this command: by its name where PATH has it, else by its path."""
    import shutil

    called = Path(sys.argv[0]).absolute()
    if called.name != "lockgate" or shutil.which("lockgate"):
        return "lockgate"
    return os.path.relpath(called, folder.absolute())


def emit(data: Any, json: bool, render: Callable[[], None]) -> None:
    """Print ``data`` as indented JSON, or call ``render`` to draw it."""
    if json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data), indent=2).decode() + "\n")
    else:
        render()


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]], *, title: str | None = None) -> None:
    """Draw one table; cells are shown as text, never parsed as markup."""
    from rich.table import Table
    from rich.text import Text

    drawn = Table(title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        drawn.add_column(column, overflow="fold")
    for row in rows:
        drawn.add_row(*(cell if isinstance(cell, Text) else Text("" if cell is None else str(cell)) for cell in row))
    draw(drawn)


def draw(drawn: ConsoleRenderable) -> None:
    """Print a table or a tree; when piped, its lines are as long as they need to be."""
    screen = console()
    if not screen.is_terminal:
        from rich.console import Console

        screen = Console(width=_PIPED_WIDTH, highlight=False)
    screen.print(drawn)


def print_error(error: LockgateError) -> None:
    """``error: message``, then the remedy on a line of its own."""
    from rich.text import Text

    message = Text.assemble(("error: ", "bold red"), error.message)
    if error.remedy:
        message.append(f"\n  → {error.remedy}")
    console(stderr=True).print(message, soft_wrap=True)
