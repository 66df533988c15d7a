"""Public fakes and the pytest plugin: what tests of agents, and of Lockgate itself, are written with.

Names are imported when they are used, because every pytest run loads this package.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lockgate.testing.clock import FakeClock
    from lockgate.testing.fake_model import FakeModelServer
    from lockgate.testing.model_client import FakeModel
    from lockgate.testing.replies import (
        ModelRequest,
        Reply,
        ToolCall,
        call,
        closing,
        cut,
        failing,
        hanging,
        nonsense,
        rate_limited,
    )
    from lockgate.testing.store import memory_store

_HOME = {
    "FakeClock": "clock",
    "FakeModel": "model_client",
    "FakeModelServer": "fake_model",
    "ModelRequest": "replies",
    "Reply": "replies",
    "ToolCall": "replies",
    "call": "replies",
    "closing": "replies",
    "cut": "replies",
    "failing": "replies",
    "hanging": "replies",
    "memory_store": "store",
    "nonsense": "replies",
    "rate_limited": "replies",
}

__all__ = [
    "FakeClock",
    "FakeModel",
    "FakeModelServer",
    "ModelRequest",
    "Reply",
    "ToolCall",
    "call",
    "closing",
    "cut",
    "failing",
    "hanging",
    "memory_store",
    "nonsense",
    "rate_limited",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
