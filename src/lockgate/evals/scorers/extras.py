"""Packages that only some scorers need."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lockgate.errors import InputError


def load(module: str, extra: str) -> Any:
    """The module, or :class:`InputError` with the command that installs it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as missing:
        raise InputError(
            f"the package {module.partition('.')[0]!r} is not installed ({missing.name})",
            remedy=f"pip install 'lockgate[{extra}]'",
        ) from None
