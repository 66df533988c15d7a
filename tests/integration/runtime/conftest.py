"""An agent that reads an order and refunds it behind an approval, its hosts, and what its tools have really done."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from lockgate.ids import new_id
from lockgate.runs import RunRequest
from lockgate.runtime.loader import Code
from lockgate.runtime.service import RunService
from lockgate.storage.engine import Database
from lockgate.testing import FakeClock, FakeModel
from lockgate.versions.model import ActionLimits, AgentVersion, Guardrails, ModelRef, ToolContract

BEHAVIOUR = "sha256:" + "b" * 64
EFFECTIVE = "sha256:" + "e" * 64

CODE = """
import os, pathlib, time

NOTES = pathlib.Path(__file__).parent.parent / "calls.txt"

def note(line):
    with NOTES.open("a") as file:
        file.write(line + "\\n")

async def read_order(order_id):
    note(f"read {order_id}")
    return {"id": order_id, "item": "kettle", "price": 40}

def refund(order_id, amount):
    note(f"refund {order_id} {amount}")
    time.sleep(float(os.environ.get("REFUND_SECONDS", 0)))
    return {"refund_id": "r-1"}

async def decide(facts, call):
    order = await call("read_order", order_id=facts["order_id"])
    done = await call("refund", order_id=order["id"], amount=order["price"])
    return {"refunded": order["item"], "refund": done["refund_id"]}
"""

FACTS = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}


def tools(approval: bool) -> tuple[ToolContract, ...]:
    return (
        ToolContract(name="read_order", effect="read", python="tools/code.py:read_order"),
        ToolContract(name="refund", effect="write", python="tools/code.py:refund", approval=approval, timeout=60.0),
        ToolContract(name="decide", effect="pure", python="tools/code.py:decide"),
    )


class Shop:
    """Where the agent's code lies, and the calls its tools have noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tools").mkdir(parents=True)
        (folder / "tools" / "code.py").write_text(CODE)

    @property
    def calls(self) -> list[str]:
        notes = self.folder / "calls.txt"
        return notes.read_text().splitlines() if notes.exists() else []

    async def until(self, line: str, seconds: float = 60.0) -> None:
        """Wait until a call was noted."""
        async with asyncio.timeout(seconds):
            while line not in self.calls:  # noqa: ASYNC110 - another process writes it
                await asyncio.sleep(0.01)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "code")


def make_version(*, approval: bool = True, **fields: Any) -> AgentVersion:
    return AgentVersion(
        **{
            "agent": "support",
            "file_version": 1,
            "behaviour_digest": BEHAVIOUR,
            "model": ModelRef(provider="fake", name="model-1"),
            "system_prompt": "You help.",
            "tools": tools(approval),
            "handler": "decide",
            "guardrails": Guardrails(output_schema=FACTS),
            "limits": ActionLimits(max_seconds=120.0),
            "policy_digest": "sha256:" + "c" * 64,
        }
        | fields
    )


@pytest.fixture
def version() -> Callable[..., AgentVersion]:
    return make_version


@pytest.fixture
def ask() -> Callable[..., RunRequest]:
    """A request for one run."""

    def ask(**fields: Any) -> RunRequest:
        defaults: dict[str, Any] = {
            "run_id": new_id("run"),
            "agent": "support",
            "environment": "prod",
            "behaviour_digest": BEHAVIOUR,
            "effective_digest": EFFECTIVE,
            "arm": "stable",
            "rollout_id": None,
            "assignment_key": "user-1",
            "session": None,
            "tenant": "acme",
            "input": "my kettle from order A-1 is broken",
            "trace_id": "a" * 32,
            "parent_span": None,
            "token": "token-1",
        }
        return RunRequest(**(defaults | fields))

    return ask


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


Open = Callable[..., RunService]


@pytest.fixture
async def open_service(control: Database, shop: Shop, clock: FakeClock) -> AsyncIterator[Open]:
    """A RunService, as a host holds one; several make several hosts on one database."""
    opened: list[RunService] = []

    def make(model: Any = None, *, host: str = "host_1", **fields: Any) -> RunService:
        client = model if model is not None else FakeModel(lambda request: {"order_id": "A-1"})
        service = RunService(
            make_version(**fields),
            EFFECTIVE,
            control=control,
            clock=clock,
            code=Code(shop.folder),
            client_for=lambda token, traceparent: client,
            emit=None,
            host=host,
        )
        opened.append(service)
        return service

    yield make
    for service in opened:
        await asyncio.to_thread(service.committer.close)
