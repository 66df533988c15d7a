"""How the demo looks: chapters, commands, facts, and a line of progress that goes away when piped."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.rule import Rule
from rich.text import Text

from lockgate.console import console


class Screen:
    """Prints a story, its chapters numbered, and keeps the time since it began."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self._chapter = 0
        self._console = console()

    def chapter(self, title: str, text: str) -> None:
        """A heading, and what happens under it."""
        self._chapter += 1
        self._console.print()
        self._console.print(Rule(Text(f" {self._chapter} · {title} ", style="bold cyan"), align="left", style="cyan"))
        self.say(text)

    def say(self, text: str) -> None:
        self._console.print(Text(text))

    def fact(self, text: str) -> None:
        """Something that was just measured."""
        self._console.print(Text.assemble(("  ● ", "bold green"), text))

    def command(self, line: str, note: str = "") -> None:
        """A command as the reader could type it."""
        self._console.print(Text.assemble(("\n$ ", "dim"), (line, "bold"), (f"   # {note}" if note else "", "dim")))

    @contextmanager
    def paused(self) -> Iterator[None]:
        """While a command prints: nothing of ours in between."""
        self._console.file.flush()
        yield

    @contextmanager
    def waiting(self, text: str) -> Iterator[None]:
        """A spinner on a terminal; one line elsewhere."""
        if self._console.is_terminal:
            with self._console.status(text):
                yield
        else:
            self.say(f"  … {text}")
            yield

    def began_now(self) -> None:
        """Start the clock: what came before was set-up."""
        self.began = time.monotonic()

    def seconds(self) -> float:
        """Since the story began."""
        return time.monotonic() - self.began
