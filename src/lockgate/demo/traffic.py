"""Customers: messages replayed through the gateway, several at a time, each in a session of its own."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

CUSTOMER_SECONDS = 120.0


class Message(msgspec.Struct, frozen=True):
    """One customer's message, and the facts that a person reads in it."""

    id: str
    message: str
    expected: dict[str, Any] | None = None


def read_messages(path: Path) -> list[Message]:
    """JSONL of messages."""
    return [msgspec.json.decode(line, type=Message) for line in path.read_bytes().splitlines() if line.strip()]


class Customers:
    """Sends messages one after another, ``at_once`` of them in flight, in a thread of its own."""

    def __init__(self, url: str, key: str, agent: str, messages: Sequence[Message], *, at_once: int = 2) -> None:
        self.answers: Counter[str] = Counter()
        """How customers were answered: ``completed``, ``suspended`` (waits for an approval), or what went wrong."""
        self.unserved: list[str] = []
        """What the gateway said to customers it did not serve."""
        self.refusals: list[str] = []
        """Why runs failed, or were not served."""
        self._url = f"{url}/api/v1/agents/{agent}/runs"
        self._headers = {"authorization": f"Bearer {key}"}
        self.messages = messages
        self._costs: list[int] = []
        self._numbers = itertools.count()
        self._at_once = at_once
        self._stop = threading.Event()

    @property
    def served(self) -> int:
        return self.answers["completed"] + self.answers["suspended"]

    @property
    def mean_cost_usd(self) -> float:
        """Of the last hundred answers."""
        recent = self._costs[-100:]
        return sum(recent) / len(recent) / 1e9 if recent else 0.0

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Customers keep writing until the block ends; those under way are answered."""
        self._stop.clear()
        thread = threading.Thread(target=lambda: asyncio.run(self._all()), name="demo-customers", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stop.set()
            thread.join(CUSTOMER_SECONDS)

    def send(self, message: str, *, session: str) -> tuple[int, dict[str, Any]]:
        """One message now: HTTP status and the decoded answer."""

        async def once() -> tuple[int, dict[str, Any]]:
            async with aiohttp.ClientSession() as client:
                return await self._post(client, message, session)

        return asyncio.run(once())

    async def _all(self) -> None:
        async with aiohttp.ClientSession() as client:
            await asyncio.gather(*(self._one_after_another(client) for _ in range(self._at_once)))

    async def _one_after_another(self, client: aiohttp.ClientSession) -> None:
        while not self._stop.is_set():
            number = next(self._numbers)
            message = self.messages[number % len(self.messages)]
            try:
                status, answer = await self._post(client, message.message, f"customer-{number:04}")
            except (aiohttp.ClientError, TimeoutError) as failure:
                self.answers["unserved"] += 1
                self.unserved.append(f"{type(failure).__name__}: {failure}")
                continue
            if status in (200, 202):
                self.answers[str(answer.get("status", "suspended"))] += 1
                self._costs.append(int(answer.get("cost_nano", 0)))
                if answer.get("status") == "failed":
                    self.refusals.append(f"{answer.get('error_type')}: {answer.get('error')}")
            else:
                self.answers["unserved"] += 1
                self.unserved.append(f"{status}: {answer.get('detail') or answer.get('title') or answer}")
                self.refusals.append(self.unserved[-1])
                await asyncio.sleep(0.2)

    async def _post(self, client: aiohttp.ClientSession, message: str, session: str) -> tuple[int, dict[str, Any]]:
        async with client.post(
            self._url,
            json={"input": message},
            headers=self._headers | {"x-lockgate-session": session},
            timeout=aiohttp.ClientTimeout(total=CUSTOMER_SECONDS),
        ) as response:
            body = await response.read()
            try:
                return response.status, msgspec.json.decode(body)
            except msgspec.DecodeError:
                return response.status, {"detail": body[:200].decode("utf-8", "replace")}
