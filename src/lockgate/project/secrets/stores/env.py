"""``${env:NAME}``: an environment variable."""

from __future__ import annotations

import os
from pathlib import Path

from lockgate.errors import Unavailable


def read(name: str, root: Path) -> str:
    value = os.environ.get(name)
    if not value:
        raise Unavailable(f"the environment variable {name!r} is not set", remedy=f"export {name}=…")
    return value
