"""An agent with tools of each effect, whose code notes every call in a file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockgate.versions.model import ActionLimits, AgentVersion, Guardrails, ModelRef, ToolContract

CODE = '''
import asyncio, pathlib, time

NOTES = pathlib.Path(__file__).parent.parent / "calls.txt"

def note(line):
    with NOTES.open("a") as file:
        file.write(line + "\\n")

def add(a, b):
    return a + b

async def read_order(order_id):
    note(f"read {order_id}")
    if order_id == "missing":
        raise KeyError(order_id)
    return {"id": order_id, "item": "kettle", "price": 40}

def refund(order_id, amount):
    note(f"refund {order_id} {amount}")
    return {"refund_id": "r-1", "amount": amount}

def odd_read():
    return {"not json": object()}

def odd_write():
    note("odd_write")
    return {"not json": object()}

def huge():
    return "x" * (1024 * 1024)

async def slow(seconds=30.0):
    await asyncio.sleep(seconds)

def slow_write(seconds):
    time.sleep(seconds)
    note("slow_write")
    return "written"

async def decide(facts, call):
    order = await call("read_order", order_id=facts["order_id"])
    if facts.get("refund"):
        done = await call("refund", order_id=order["id"], amount=order["price"])
        return {"decision": "refunded", "refund": done["refund_id"]}
    return {"decision": "kept", "item": order["item"]}

def decide_blocking(facts, call):
    return {"item": call("read_order", order_id=facts["order_id"])["item"]}

async def stubborn(facts, call):
    """Catches everything it can."""
    try:
        await call("refund", order_id="A-1", amount=1)
    except Exception:
        pass
    return "went on regardless"

def broken(facts, call):
    raise ValueError("no idea")

async def agent(ctx, input):
    completion = await ctx.model([{"role": "user", "content": input}])
    order = await ctx.tool("read_order", {"order_id": completion.message["content"]})
    return order["item"]

async def many(ctx, input):
    orders = await asyncio.gather(*(ctx.tool("read_order", {"order_id": str(n)}) for n in range(3)))
    return [order["id"] for order in orders]
'''

_ORDER = {"type": "object", "properties": {"order_id": {"type": "string"}}, "required": ["order_id"]}
_REFUND = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "amount": {"type": "number"}},
    "required": ["order_id", "amount"],
}
_REFUNDED = {"type": "object", "properties": {"refund_id": {"type": "string"}, "amount": {"type": "number"}}}
_REFUNDED["required"] = ["refund_id"]

TOOLS = (
    ToolContract(name="add", effect="pure", python="tools/code.py:add"),
    ToolContract(name="read_order", effect="read", python="tools/code.py:read_order", input=_ORDER),
    ToolContract(name="refund", effect="write", python="tools/code.py:refund", input=_REFUND, output=_REFUNDED),
    ToolContract(name="slow", effect="read", python="tools/code.py:slow", timeout=0.05),
    ToolContract(name="slow_write", effect="write", python="tools/code.py:slow_write", timeout=0.2),
    ToolContract(name="patient_write", effect="write", python="tools/code.py:slow_write", timeout=60.0),
    ToolContract(name="named_only"),
    ToolContract(name="odd_read", effect="read", python="tools/code.py:odd_read"),
    ToolContract(name="odd_write", effect="write", python="tools/code.py:odd_write"),
    ToolContract(name="huge", effect="read", python="tools/code.py:huge"),
    *(
        ToolContract(name=name, effect="pure", python=f"tools/code.py:{name}")
        for name in ("decide", "decide_blocking", "stubborn", "broken")
    ),
)

FACTS = {
    "type": "object",
    "properties": {"order_id": {"type": "string"}, "refund": {"type": "boolean"}},
    "required": ["order_id"],
    "additionalProperties": False,
}


class Workshop:
    """The agent's code folder, and the calls its tools have noted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tools").mkdir()
        (folder / "tools" / "code.py").write_text(CODE)

    @property
    def calls(self) -> list[str]:
        notes = self.folder / "calls.txt"
        return notes.read_text().splitlines() if notes.exists() else []


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def make_version() -> Callable[..., AgentVersion]:
    """A version of the agent; keyword arguments override its fields, ``schema`` and ``limits`` (a dict) for short."""

    def make(*, schema: bool = False, limits: dict[str, Any] | None = None, **fields: Any) -> AgentVersion:
        return AgentVersion(
            **{
                "agent": "support",
                "file_version": 1,
                "behaviour_digest": "sha256:" + "b" * 64,
                "model": ModelRef(provider="fake", name="model-1"),
                "system_prompt": "You help.",
                "tools": TOOLS,
                "guardrails": Guardrails(output_schema=FACTS if schema else None),
                "limits": ActionLimits(**(limits or {})),
                "policy_digest": "sha256:" + "c" * 64,
            }
            | fields
        )

    return make
