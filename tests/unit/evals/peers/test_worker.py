"""The pipe to a worker: answers, questions, and every way it can end badly. The worker is a script of our own."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.evals.peers import worker as module
from lockgate.evals.peers.environments import Command
from lockgate.evals.peers.worker import Worker, WorkerFailed

SCRIPT = """
import json, os, sys, time
def say(**m): sys.stdout.write(json.dumps(m) + "\\n"); sys.stdout.flush()
if "absent" in sys.argv: say(failed="ImportError: no module", remedy="install it"); sys.exit()
if "mute" in sys.argv: sys.exit("cannot start: no such thing")
say(ready="1.2")
for line in sys.stdin:
    m = json.loads(line)
    what = m.get("op")
    if what == "die": sys.stderr.write("out of memory\\n"); sys.stderr.flush(); os._exit(7)
    elif what == "die once":
        if os.path.exists("died"): say(id=m["id"], value=1.0)
        else: open("died", "w").close(); os._exit(7)
    elif what == "hang": time.sleep(600)
    elif what == "prose": print("Loading model ..."); sys.stdout.flush()
    elif what == "question": say(ask=5, messages=[], **{"for": m["id"]}); waiting = m["id"]
    elif "answer" in m: say(id=waiting, value=0.5, reason=m["text"])
    elif what == "environment": say(id=m["id"], reason=json.dumps([sorted(os.environ), os.getcwd()]))
    elif "cancel" in m: open("cancelled", "w").close()
    else: say(id=m["id"], value=m.get("value"))
"""


@asynccontextmanager
async def worker(tmp_path: Path, *arguments: str, silent: float = 60.0) -> AsyncIterator[Worker]:
    script = tmp_path / "worker.py"
    script.write_text(SCRIPT)
    found = Worker("ragas", Command((sys.executable, "-I", str(script), *arguments), "here"), silent_seconds=silent)
    try:
        yield found
    finally:
        await found.close()


async def nothing(question: dict[str, Any]) -> dict[str, Any]:
    raise AssertionError("nothing is asked")


async def test_requests_at_the_same_time_each_get_their_own_answer(tmp_path: Path) -> None:
    async with worker(tmp_path) as found:
        replies = await asyncio.gather(*(found.ask({"value": number}, nothing) for number in range(20)))
        assert [reply["value"] for reply in replies] == list(range(20))
        assert (found.starts, found.version) == (1, "1.2")


async def test_a_question_of_the_worker_is_answered_while_it_works(tmp_path: Path) -> None:
    async def judge(question: dict[str, Any]) -> dict[str, Any]:
        await asyncio.sleep(0.3)  # longer than the worker may be silent: the wait is the judge's
        return {"text": "yes"}

    async with worker(tmp_path) as found:
        next_word = found._next

        async def impatient(*arguments: Any, waits: bool) -> Any:
            found._silent = 0.1 if waits else 60.0
            return await next_word(*arguments, waits=waits)

        found._next = impatient  # type: ignore[method-assign]
        reply = await found.ask({"op": "question"}, judge)
        assert (reply["value"], reply["reason"]) == (0.5, "yes")


async def test_what_ends_two_workers_is_an_error_with_the_last_words(tmp_path: Path) -> None:
    async with worker(tmp_path) as found:
        with pytest.raises(WorkerFailed, match=r"ragas worker ended \(exit code 7\): out of memory"):
            await found.ask({"op": "die"}, nothing)
        assert found.starts == 2
        assert (await found.ask({"value": 1}, nothing))["value"] == 1


async def test_a_worker_that_ended_by_chance_is_asked_again(tmp_path: Path) -> None:
    async with worker(tmp_path) as found:
        assert (await found.ask({"op": "die once"}, nothing))["value"] == 1.0


async def test_a_worker_is_not_started_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_STARTS", 2)
    async with worker(tmp_path) as found:
        with pytest.raises(WorkerFailed, match="exit code 7"):
            await found.ask({"op": "die"}, nothing)
        with pytest.raises(WorkerFailed, match="ended 2 times"):
            await found.ask({"value": 1}, nothing)


async def test_a_silent_worker_is_killed(tmp_path: Path) -> None:
    async with worker(tmp_path, silent=0.2) as found:
        with pytest.raises(WorkerFailed, match=r"said nothing for 0\.2 s"):
            await found.ask({"op": "hang"}, nothing)
        found._silent = 60.0  # a machine under load may be slow with the next answer
        assert (await found.ask({"value": 1}, nothing))["value"] == 1


async def test_prose_on_the_pipe_is_never_taken_for_an_answer(tmp_path: Path) -> None:
    async with worker(tmp_path) as found:
        with pytest.raises(WorkerFailed, match="said what is no message"):
            await found.ask({"op": "prose"}, nothing)


async def test_a_cancelled_request_is_told_to_the_worker(tmp_path: Path) -> None:
    async with worker(tmp_path) as found:
        asked = asyncio.Event()

        async def thinks(question: dict[str, Any]) -> dict[str, Any]:
            asked.set()
            return await asyncio.sleep(60, {})

        task = asyncio.create_task(found.ask({"op": "question"}, thinks))
        await asyncio.wait_for(asked.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await found.ask({"value": 1}, nothing)
        assert found._folder is not None
        assert (Path(found._folder.name) / "cancelled").exists()


async def test_a_package_that_cannot_be_loaded_says_so(tmp_path: Path) -> None:
    async with worker(tmp_path, "absent") as found:
        with pytest.raises(InputError, match=r"ragas cannot be loaded from here: ImportError: no module\n  → install"):
            await found.ask({}, nothing)
    async with worker(tmp_path, "mute") as found:
        with pytest.raises(InputError, match="cannot start: no such thing"):
            await found.ask({}, nothing)


async def test_a_worker_sees_no_keys_and_writes_in_a_folder_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    async with worker(tmp_path) as found:
        reply = await found.ask({"op": "environment"}, nothing)
        assert found._folder is not None
        folder = found._folder.name
        assert "OPENAI_API_KEY" not in reply["reason"]
        assert folder in reply["reason"]
    assert found._folder.name == folder
    with pytest.raises(FileNotFoundError):
        os.stat(folder)
