"""What the contracts name: this shop exists only in simulations, where the world answers in its place."""

from __future__ import annotations

from typing import Any


def nowhere(**arguments: Any) -> Any:
    raise RuntimeError("there is no shop behind these tools: they work in simulations only (lockgate eval)")
