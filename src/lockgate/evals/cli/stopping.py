"""Ctrl-C during an evaluation: once stops it and says what is kept, twice ends the process at once.

asyncio's own handling raises in the middle of whatever runs at the second Ctrl-C, and waits without end for what will
not be cancelled. Here every moment of a command ends with the same sentence and the same exit code.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import typer

if TYPE_CHECKING:
    import asyncio

T = TypeVar("T")

KEPT = "interrupted: finished trials are kept, the same command goes on from there"
KEPT_WITHOUT_FRESH = "interrupted: finished trials are kept, the same command without --fresh goes on from there"
INTERRUPTED = 130
"""The exit code: 128 and the number of the signal, as shells have it."""
LEAVE_AFTER = 10.0
"""Seconds that what was interrupted has to end."""

_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it


class _Command:
    """One command that may be interrupted. ``task`` is what its event loop runs, while it runs."""

    def __init__(self, sentence: str) -> None:
        self.sentence = sentence
        self.interrupted = False
        self.in_loop = False
        self.task: asyncio.Task[Any] | None = None

    def on_interrupt(self, *_: Any) -> None:
        if self.interrupted:
            self.leave()
        self.interrupted = True
        signal.setitimer(signal.ITIMER_REAL, LEAVE_AFTER)
        if self.task is not None:
            self.task.get_loop().call_soon_threadsafe(self.task.cancel)
        elif not self.in_loop:  # a loop that is made or closed just now is left to end in order
            raise KeyboardInterrupt

    def leave(self, *_: Any) -> None:
        """End here and now: by the second Ctrl-C, or when the first one came to nothing."""
        self.say()
        os._exit(INTERRUPTED)

    def say(self) -> None:
        text = self.sentence + "\n"
        if sys.stderr.isatty():
            text = _SHOW_CURSOR + text
        sys.stderr.flush()
        os.write(2, text.encode())


_running: list[_Command] = []
"""The command of this process, while it runs."""


@contextmanager
def stoppable(sentence: str = KEPT) -> Iterator[None]:
    """A command's whole work; also a decorator of the command. Ctrl-C ends it with ``sentence`` and exit code 130."""
    if threading.current_thread() is not threading.main_thread():  # no signal arrives there
        yield
        return
    command = _Command(sentence)
    before = signal.signal(signal.SIGINT, command.on_interrupt), signal.signal(signal.SIGALRM, command.leave)
    _running.append(command)
    try:
        yield
    except BaseException:
        if not command.interrupted:
            raise
    finally:
        _running.remove(command)
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGINT, before[0])
        signal.signal(signal.SIGALRM, before[1])
    if command.interrupted:
        command.say()
        raise typer.Exit(INTERRUPTED)


def on_interrupt_say(sentence: str) -> None:
    """Another sentence for the command that runs."""
    if _running:
        _running[-1].sentence = sentence


def awaited(evaluation: Coroutine[Any, Any, T]) -> T:
    """Run an evaluation in a command that is :func:`stoppable`."""
    import asyncio
    import gc

    if not gc.get_freeze_count():
        gc.freeze()  # what was imported stays: looking it all over would hold up every trial for a tenth of a second
    if not _running:
        return asyncio.run(evaluation)
    command = _running[-1]

    async def watched() -> T:
        command.task = asyncio.current_task()
        try:
            if command.interrupted:
                raise asyncio.CancelledError
            return await evaluation
        finally:
            command.task = None

    command.in_loop = True
    try:
        answer = asyncio.run(watched())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        command.in_loop = False
        evaluation.close()  # when it never began
    if command.interrupted:  # it ended all the same, with what it had
        raise KeyboardInterrupt
    return answer
