"""Commands start as they do where Lockgate is installed: from compiled modules.

A source tree may be run without them (`PYTHONDONTWRITEBYTECODE`), and each start then compiles some 150 files, which
takes longer than all the rest.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def as_installed() -> Iterator[None]:
    """Let child processes keep and find compiled modules, beside nothing of the tree. The first start of a command
    compiles; it is not to be measured."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder
        yield
