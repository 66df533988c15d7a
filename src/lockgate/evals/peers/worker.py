"""One worker process: requests go in as JSON lines, answers and questions come out.

A worker that ends is started anew, and what it was asked is asked once more; what ends a second worker is an error of
that request. A worker that says nothing is killed. Nothing here may be reached from an HTTP request: what is started
is named by the project's own file.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import tempfile
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any

from lockgate.errors import InputError, Unavailable
from lockgate.evals.peers.environments import Command, clean_environment, own_folder

START_SECONDS = 120.0
"""Until a worker that has not loaded its package is given up: some import for half a minute on a busy machine."""
SILENT_SECONDS = 60.0
"""How long a worker may work on a request without a word; while it waits for the judge, that does not count."""
END_SECONDS = 3.0
LINE = 32 * 1024 * 1024
"""Bytes of one message."""
MOST_STARTS = 6
"""Times a worker is started in one evaluation."""

Question = dict[str, Any]
Answer = Callable[[Question], Awaitable[dict[str, Any]]]


class WorkerFailed(RuntimeError):
    """The worker could not answer: it ended, or said nothing. It is the outcome of that one score, and counts."""


class _Ended(Exception):
    """The worker ended before it answered."""


class Worker:
    """The process of one peer. Use from one event loop; :meth:`close` ends it."""

    def __init__(self, peer: str, command: Command, *, silent_seconds: float = SILENT_SECONDS) -> None:
        self.peer = peer
        self.version = ""
        self.starts = 0
        self._command = command
        self._silent = silent_seconds
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []
        self._inboxes: dict[int, asyncio.Queue[Question | None]] = {}
        self._last = 0
        self._said: deque[str] = deque(maxlen=12)
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    async def ask(self, request: Question, answer: Answer) -> Question:
        """Send a request, answer what the worker asks meanwhile, and return its reply.

        Raises :class:`WorkerFailed` when there is none, :class:`Unavailable` when the worker cannot be started.
        """
        try:
            return await self._ask(request, answer)
        except _Ended:
            pass
        try:
            return await self._ask(request, answer)
        except _Ended as ended:
            raise WorkerFailed(str(ended)) from None

    async def close(self) -> None:
        """End the process and what it started."""
        process, self._process = self._process, None
        if process is not None:
            await _end(process)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        if self._folder is not None:
            self._folder.cleanup()

    # --- one request ------------------------------------------------------------------------------------------

    async def _ask(self, request: Question, answer: Answer) -> Question:
        process = await self._running()
        self._last += 1
        number = self._last
        inbox: asyncio.Queue[Question | None] = asyncio.Queue()
        self._inboxes[number] = inbox
        answering: set[asyncio.Task[None] | None] = set()

        async def reply(message: Question) -> None:
            found = await answer(message)
            with contextlib.suppress(_Ended):  # its request hears of that itself
                await self._send(process, {"answer": message.get("ask", message.get("embed")), **found})
            answering.discard(asyncio.current_task())
            inbox.put_nowait({"answered": True})

        try:
            await self._send(process, {"id": number, **request})
            while True:
                message = await self._next(process, inbox, waits=bool(answering))
                if "answered" in message:
                    continue
                if "ask" not in message and "embed" not in message:
                    return message
                answering.add(asyncio.create_task(reply(message)))
        except asyncio.CancelledError:
            with contextlib.suppress(Exception):
                await self._send(process, {"cancel": number})
            raise
        finally:
            del self._inboxes[number]
            for task in answering:
                if task is not None:
                    task.cancel()

    async def _next(
        self, process: asyncio.subprocess.Process, inbox: asyncio.Queue[Question | None], *, waits: bool
    ) -> Question:
        """The worker's next word; while it ``waits`` for an answer it owes none."""
        try:
            message = await asyncio.wait_for(inbox.get(), None if waits else self._silent)
        except TimeoutError:
            await _end(process)
            raise WorkerFailed(f"the {self.peer} worker said nothing for {self._silent:g} s") from None
        if message is None:
            raise _Ended(self._obituary(process))
        return message

    async def _send(self, process: asyncio.subprocess.Process, message: Question) -> None:
        assert process.stdin is not None
        try:
            process.stdin.write(json.dumps(message, default=str).encode() + b"\n")
            await process.stdin.drain()
        except (ConnectionError, RuntimeError):
            raise _Ended(self._obituary(process)) from None

    # --- the process ------------------------------------------------------------------------------------------

    async def _running(self) -> asyncio.subprocess.Process:
        async with self._starting:
            if self._process is not None and self._process.returncode is None:
                return self._process
            if self.starts >= MOST_STARTS:
                raise WorkerFailed(f"the {self.peer} worker ended {self.starts} times: {self._tail()}")
            self.starts += 1
            self._process = await self._start()
            return self._process

    async def _start(self) -> asyncio.subprocess.Process:
        self._said.clear()
        if self._folder is None:
            self._folder = own_folder()
        folder = self._folder.name
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command.argv,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                cwd=folder,
                env=clean_environment(folder),
                limit=LINE,
                start_new_session=True,
            )
        except OSError as failure:
            raise Unavailable(
                f"the {self.peer} worker cannot be started ({self._command.where}): {failure.strerror}",
                remedy="is the environment whole? Make it anew",
            ) from None
        assert process.stdout is not None
        assert process.stderr is not None
        listening = asyncio.create_task(self._listen_to_errors(process.stderr))
        self._tasks = [task for task in self._tasks if not task.done()] + [listening]
        try:
            line = await asyncio.wait_for(process.stdout.readline(), START_SECONDS)
            ready = json.loads(line) if line else {}
        except BaseException as failure:
            await _end(process)
            if isinstance(failure, TimeoutError | ValueError):
                said = f"within {START_SECONDS:g} s" if isinstance(failure, TimeoutError) else "in JSON"
                raise Unavailable(
                    f"the {self.peer} worker did not answer {said}: {self._tail()}", remedy="try it by hand"
                ) from None
            raise
        if "ready" not in ready:
            await _end(process)
            await asyncio.wait([listening], timeout=END_SECONDS)
            raise InputError(
                f"{self.peer} cannot be loaded from {self._command.where}: {ready.get('failed') or self._tail()}",
                remedy=ready.get("remedy") or "repair or remake that environment",
            )
        self.version = str(ready["ready"])
        self._tasks.append(asyncio.create_task(self._listen(process)))
        return process

    async def _listen(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        try:
            while line := await process.stdout.readline():
                message = json.loads(line)
                inbox = self._inboxes.get(message.get("id", message.get("for", 0)))
                if inbox is not None:
                    inbox.put_nowait(message)
        except ValueError as failure:  # a line too long, or no JSON: nothing it says can be trusted any more
            self._said.append(f"said what is no message: {failure}")
        if self._process is process:
            self._process = None
        await _end(process)
        for inbox in list(self._inboxes.values()):
            inbox.put_nowait(None)

    async def _listen_to_errors(self, stream: asyncio.StreamReader) -> None:
        while chunk := await stream.read(4096):
            self._said.extend(part for part in chunk.decode("utf-8", "replace").splitlines() if part.strip())

    def _tail(self) -> str:
        return " | ".join(list(self._said)[-3:])[-400:] or "it said nothing"

    def _obituary(self, process: asyncio.subprocess.Process) -> str:
        code = process.returncode
        how = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
        return f"the {self.peer} worker ended{how}: {self._tail()}"


async def _end(process: asyncio.subprocess.Process) -> None:
    """Let it end by itself, else kill it with all it started."""
    if process.stdin is not None:
        process.stdin.close()
    if process.returncode is None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), 0.2)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(process.wait(), END_SECONDS)
