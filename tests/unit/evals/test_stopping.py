"""Ctrl-C at any moment of a command."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
from collections.abc import Callable

import pytest
import typer

from lockgate.evals.cli.stopping import INTERRUPTED, KEPT, KEPT_WITHOUT_FRESH, awaited, on_interrupt_say, stoppable


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


async def waits() -> None:
    interrupt()
    await asyncio.sleep(60)


async def will_not_be_cancelled() -> str:
    try:
        await waits()
    except asyncio.CancelledError:
        return "all the same"
    return "never"


def ends_otherwise() -> None:
    try:
        interrupt()
    except KeyboardInterrupt:
        raise ValueError("a driver's own words for it") from None


@pytest.mark.parametrize(
    "moment",
    [interrupt, lambda: awaited(waits()), lambda: awaited(will_not_be_cancelled()), ends_otherwise],
    ids=["outside the loop", "inside it", "cancellation is swallowed", "it becomes another error"],
)
def test_every_moment_ends_with_the_sentence_and_its_exit_code(
    moment: Callable[[], object], capfd: pytest.CaptureFixture[str]
) -> None:
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(typer.Exit) as left, stoppable():
        moment()
    assert left.value.exit_code == INTERRUPTED
    assert capfd.readouterr().err == KEPT + "\n"
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)


def test_a_command_may_say_something_else(capfd: pytest.CaptureFixture[str]) -> None:
    @stoppable()
    def command() -> None:
        on_interrupt_say(KEPT_WITHOUT_FRESH)
        interrupt()

    with pytest.raises(typer.Exit):
        command()
    assert capfd.readouterr().err == KEPT_WITHOUT_FRESH + "\n"


def test_what_is_not_interrupted_is_left_alone() -> None:
    with pytest.raises(ValueError, match="own"), stoppable():
        raise ValueError("its own")


def test_the_second_ends_the_process_whatever_it_is_doing() -> None:
    code = (
        "import asyncio, signal\nfrom lockgate.evals.cli.stopping import awaited, stoppable\n"
        "async def spins():\n    signal.raise_signal(signal.SIGINT)\n    signal.raise_signal(signal.SIGINT)\n"
        "    while True: pass\n"
        "with stoppable('said'):\n    awaited(spins())\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (INTERRUPTED, "said\n")
