"""The worker's side of the pipe, run by a peer's own Python: ``main.py ragas``. Imports nothing of Lockgate.

A request is a line ``{"id", "op": "check" | "score", "symbol", "options", "sample"}``; its reply has one of ``value``,
``skip``, ``unscored`` and ``error``. Meanwhile it may ask: ``{"ask": n, "for": id, "messages", "schema"}`` is answered
by ``{"answer": n, "text" | "error"}``, and ``{"embed": n, "for": id, "texts"}`` by ``vectors``.
"""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import json
import os
import sys
import threading
import warnings
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import Any

REQUEST: ContextVar[int] = ContextVar("request", default=0)


class Unscored(Exception):
    """The judge gave no usable answer."""


class Skipped(Exception):
    """The metric does not apply to this sample."""


class Pipe:
    """Messages to and from Lockgate. What the package prints goes to standard error."""

    def __init__(self) -> None:
        self.out = os.fdopen(os.dup(1), "wb")
        os.dup2(2, 1)
        self.lock = threading.Lock()
        self.loop = asyncio.get_running_loop()
        self.asked: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self.last = 0

    def send(self, message: dict[str, Any]) -> None:
        line = json.dumps(message, default=str).encode() + b"\n"
        with self.lock:
            self.out.write(line)
            self.out.flush()

    async def ask(self, messages: list[dict[str, str]], schema: dict[str, Any] | None = None) -> str:
        """The judge's answer as text; ``schema`` is a JSON Schema it should fit."""
        reply = await self._question({"ask": 0, "messages": messages, "schema": strict(schema) if schema else None})
        return str(reply["text"])

    async def embed(self, texts: list[str]) -> list[list[float]]:
        """The embeddings of texts, by the model that the metric names, or this machine's."""
        reply = await self._question({"embed": 0, "texts": texts})
        return [[float(number) for number in vector] for vector in reply["vectors"]]

    def wait(self, question: Any) -> Any:
        """The same for packages that ask from a thread of their own."""
        if threading.current_thread() is threading.main_thread():
            question.close()
            raise RuntimeError("the metric asks its model without waiting for it, which this worker cannot do")
        return asyncio.run_coroutine_threadsafe(question, self.loop).result()

    async def _question(self, message: dict[str, Any]) -> dict[str, Any]:
        self.last += 1
        number = self.last
        future = self.asked[number] = self.loop.create_future()
        kind = "ask" if "ask" in message else "embed"
        try:
            self.send({**message, kind: number, "for": REQUEST.get()})
            reply: dict[str, Any] = await future
        finally:
            del self.asked[number]
        if "error" in reply:
            raise Unscored(reply["error"])
        return reply


def strict(schema: dict[str, Any]) -> dict[str, Any]:
    """A JSON Schema as strict structured output wants it: every property required, none other allowed."""

    def walk(node: Any) -> Any:
        if isinstance(node, list):
            return [walk(one) for one in node]
        if not isinstance(node, dict):
            return node
        found = {key: walk(value) for key, value in node.items() if key not in ("title", "default", "examples")}
        if isinstance(found.get("properties"), dict):
            # a property may itself be called title
            found["properties"] = {name: walk(value) for name, value in node["properties"].items()}
            found["required"] = list(found["properties"])
            found["additionalProperties"] = False
        return found

    return walk(schema)  # type: ignore[no-any-return]


def parsed(text: str, model: Any) -> Any:
    """The judge's answer as the package's own type."""
    body = text.strip()
    if body.startswith("```"):
        body = body.strip("`").removeprefix("json").strip()
    try:
        return model.model_validate_json(body)
    except ValueError as wrong:
        raise Unscored(f"the judge's answer does not fit: {text[:80]!r} ({str(wrong).splitlines()[0]})") from None


def adapter(name: str) -> Any:
    """The module beside this one that knows the package."""
    path = Path(__file__).parent / f"{name}_worker.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


async def serve(peer: str) -> None:
    pipe = Pipe()
    warnings.simplefilter("ignore")
    try:
        package = adapter(peer)
        version = package.load(pipe, sys.modules[__name__])
    except Exception as failure:  # whatever a package raises when it is imported: the other side says it
        remedy = "is it the environment of that package? Remake it" if isinstance(failure, ImportError) else None
        pipe.send({"failed": f"{type(failure).__name__}: {failure}", "remedy": remedy})
        return
    pipe.send({"ready": version})
    lines: asyncio.Queue[bytes] = asyncio.Queue()

    def read() -> None:
        for line in iter(sys.stdin.buffer.readline, b""):
            pipe.loop.call_soon_threadsafe(lines.put_nowait, line)
        os._exit(0)  # Lockgate is gone: nothing here is worth finishing

    threading.Thread(target=read, daemon=True).start()
    tasks: dict[int, asyncio.Task[None]] = {}
    while True:
        message = json.loads(await lines.get())
        if "answer" in message:
            future = pipe.asked.get(message["answer"])
            if future is not None and not future.done():
                future.set_result(message)
        elif "cancel" in message:
            if message["cancel"] in tasks:
                tasks[message["cancel"]].cancel()
        else:
            task = asyncio.create_task(reply(pipe, package, message))
            tasks[message["id"]] = task
            task.add_done_callback(partial(_forget, tasks, message["id"]))


def _forget(tasks: dict[int, asyncio.Task[None]], number: int, _: asyncio.Task[None]) -> None:
    tasks.pop(number, None)


async def reply(pipe: Pipe, package: Any, message: dict[str, Any]) -> None:
    REQUEST.set(message["id"])
    try:
        metric = package.make(message["symbol"], message["options"])
        found: dict[str, Any] = {"value": 1.0}
        if message["op"] == "score":
            answer = package.score(metric, message["symbol"], message["sample"])
            value, reason = await answer if inspect.isawaitable(answer) else answer
            found = {"value": value, "reason": str(reason or "")[:500]}
    except Unscored as why:
        found = {"unscored": str(why)}
    except Skipped as why:
        found = {"skip": str(why)}
    except Exception as failure:  # it is that score's outcome
        cause: BaseException | None = failure
        while cause is not None and not isinstance(cause, Unscored):
            cause = cause.__cause__ or cause.__context__
        if cause is not None:  # a package that wraps what its model's answer could not be read as
            found = {"unscored": str(cause)}
        else:
            found = {"error": f"{type(failure).__name__}: {failure}"[:500]}
    pipe.send({"id": message["id"], **found})


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1]))
