"""Keeps the processes running that ought to: starts, restarts with a pause that grows, stops what nobody wants.

The supervisor serves nothing itself. It holds the listening socket, so that connections made while a worker is
being replaced wait instead of being refused.
"""

from __future__ import annotations

import ctypes
import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

log = logging.getLogger(__name__)

POLL = 0.1
"""Seconds between two looks at the children."""
REFRESH = 0.5
"""Seconds between two questions for what ought to run, when nothing tells sooner that it changed."""
SPARE_REST = 3.0
"""Seconds after a start until a spare is made: whoever was just started needs the processor now."""
STEADY = 5.0
"""A child that lived this many seconds was fine: its next start waits for nothing."""
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 10.0
WORKERS_VARIABLE = "LOCKGATE_WORKERS"
"""How a gateway worker is told how many there are."""
STOP_SECONDS = 40.0
"""Seconds from SIGTERM to SIGKILL."""


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """A process that ought to run. ``linger``: seconds it stays when nobody wants it any more.

    ``spare``: it does nothing but wait for a line on its standard input, a JSON list of arguments, and then becomes
    the process that these make. ``becomes``: the arguments by which a spare becomes this one, sooner than a new
    process would be there.
    """

    command: tuple[str, ...]
    descriptors: tuple[int, ...] = ()
    environment: Mapping[str, str] = {}
    linger: float = 0.0
    spare: bool = False
    becomes: tuple[str, ...] = ()


class _Child:
    def __init__(self, name: str, spec: Spec) -> None:
        self.name = name
        self.spec = spec
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = 0.0
        self.failures = 0
        self.start_at = 0.0
        self.unwanted_since: float | None = None
        self.kill_at: float | None = None


def pause_after(failures: int) -> float:
    """Seconds to wait before the next start, after so many short lives in a row.

    >>> [pause_after(n) for n in (0, 1, 2, 10)]
    [0.0, 0.2, 0.4, 10.0]
    """
    return 0.0 if failures == 0 else min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (failures - 1))


class Supervisor:
    """Runs children until :meth:`stop`. Call :meth:`run` from the main thread: children end with it."""

    def __init__(
        self,
        wanted: Callable[[], Mapping[str, Spec]],
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        changed: Callable[[], bool] = lambda: False,
        stop_seconds: float = STOP_SECONDS,
        told: Callable[[], None] = lambda: None,
    ) -> None:
        """``environment`` is what every child finds in its own, beside what this process has.

        ``changed`` is asked on every round, so it has to be cheap: whether something else may be wanted now.
        On a stop, ``told`` is called when every child has been told, and ``stop_seconds`` later they are killed.
        """
        self._wanted = wanted
        self._changed = changed
        self._stop_seconds = stop_seconds
        self._told = told
        self._cwd = cwd
        self._environment = {**os.environ, **(environment or {})}
        self._children: dict[str, _Child] = {}
        self._stopping = False
        self._refresh_at = 0.0

    def stop(self) -> None:
        """Make :meth:`run` end: SIGTERM to every child, SIGKILL to those that take too long."""
        self._stopping = True

    def run(self, *, each: Callable[[], None] | None = None) -> None:
        """Supervise until stopped. ``each`` is called on every round."""
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, lambda *_: self.stop())
        try:
            while not self._stopping:
                self.step(time.monotonic())
                if each is not None:
                    each()
                time.sleep(POLL)
        finally:
            self._end()

    def step(self, now: float) -> None:
        """One round: note who died, start who is missing, stop who is not wanted."""
        if self._changed() or now >= self._refresh_at:
            self._refresh_at = now + REFRESH
            self._refresh(now)
        for child in list(self._children.values()):
            self._look_at(child, now)

    def pids(self) -> dict[str, int]:
        """The processes that run now, by name."""
        return {
            child.name: child.process.pid
            for child in self._children.values()
            if child.process is not None and child.process.poll() is None
        }

    def _refresh(self, now: float) -> None:
        wanted = self._wanted()
        for name, spec in wanted.items():
            child = self._children.get(name)
            if child is None:
                child = self._children[name] = _Child(name, spec)
                child.start_at = now + SPARE_REST if spec.spare else 0.0
            else:
                child.spec = spec
                child.unwanted_since = None
        for name, child in self._children.items():
            if name not in wanted and child.unwanted_since is None:
                child.unwanted_since = now

    def _look_at(self, child: _Child, now: float) -> None:
        process = child.process
        unwanted = child.unwanted_since is not None and now - child.unwanted_since >= child.spec.linger
        if process is not None and process.poll() is not None:
            child.process = None
            if process.stdin is not None:
                process.stdin.close()
            if child.kill_at is not None or unwanted:
                log.info("%s stopped", child.name)
            else:
                lived = now - child.started_at
                child.failures = 0 if lived >= STEADY else child.failures + 1
                pause = pause_after(child.failures)
                child.start_at = now + pause
                log.warning(
                    "%s ended (%s) after %.1f s; it starts again%s",
                    child.name,
                    _ending(process.returncode),
                    lived,
                    f" in {pause:g} s" if pause else "",
                )
            child.kill_at = None
        if child.process is None:
            if unwanted:
                del self._children[child.name]
            elif now >= child.start_at:
                self._start(child, now)
        elif unwanted and child.kill_at is None:
            child.process.terminate()
            child.kill_at = now + STOP_SECONDS
        elif child.kill_at is not None and now >= child.kill_at:
            child.process.kill()

    def _start(self, child: _Child, now: float) -> None:
        child.started_at = now
        child.process = (self._take_spare(child.spec.becomes, now) if child.spec.becomes else None) or self._make(child)
        log.info("%s started (pid %d)", child.name, child.process.pid)

    def _take_spare(self, arguments: tuple[str, ...], now: float) -> subprocess.Popen[bytes] | None:
        """A spare that was told to become what ``arguments`` make; None when there is none."""
        for spare in self._children.values():
            process = spare.process
            if not spare.spec.spare or process is None or process.poll() is not None or spare.kill_at is not None:
                continue
            assert process.stdin is not None
            try:
                with process.stdin as told:
                    told.write(json.dumps(arguments).encode() + b"\n")
            except OSError:  # it died just now
                continue
            spare.process, spare.start_at = None, now + SPARE_REST
            return process
        return None

    def _make(self, child: _Child) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            child.spec.command,
            cwd=self._cwd,
            env={**self._environment, **child.spec.environment},
            pass_fds=child.spec.descriptors,
            stdin=subprocess.PIPE if child.spec.spare else subprocess.DEVNULL,
            start_new_session=True,  # a terminal's Ctrl-C reaches the supervisor alone
            preexec_fn=_end_with_parent,
        )

    def _end(self) -> None:
        running = [child.process for child in self._children.values() if child.process is not None]
        for process in running:
            process.terminate()
        self._told()
        deadline = time.monotonic() + self._stop_seconds
        for process in running:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def python(*arguments: str) -> tuple[str, ...]:
    """A command of this same interpreter."""
    return (sys.executable, "-m", *arguments)


_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None)


def _end_with_parent() -> None:
    """In the child, before it becomes another program: the kernel ends it when the supervisor dies, even by kill -9.

    Children also watch for that themselves (:func:`lockgate.process.die_with_parent`); this covers them until then.
    """
    if sys.platform == "linux":
        _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM), 0, 0, 0)


def _ending(code: int) -> str:
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
