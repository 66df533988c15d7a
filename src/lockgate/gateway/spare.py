"""A process kept ready: it has imported what a host needs, and waits to be told which one to be.

It reads one line from its standard input, a JSON list of arguments, and goes on as ``lockgate`` with these. When the
input ends without one, so does it: whoever kept it is gone.

Example: echo '["host", "--digest", "3f1c9a0b7e21", "--env", "prod"]' | python -m lockgate.gateway.spare
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import runpy
import sys

from lockgate.process import die_with_parent

IMPORTS = (
    "lockgate.__main__",
    "lockgate.bootstrap",
    "lockgate.cli",
    "lockgate.runtime.cli",
    "lockgate.runtime.hosting",
    "lockgate.storage.blobs",
    "lockgate.telemetry.writer",
    "lockgate.versions.service",
    "lockgate.versions.store",
    "ruamel.yaml",
    "sqlalchemy.dialects.sqlite",
)
"""What a host imports, by name: this room may not know the rooms beside and above it."""


def main() -> None:
    die_with_parent()
    for module in IMPORTS:
        importlib.import_module(module)
    gc.freeze()  # what is imported stays: no collection has to look at it again
    line = sys.stdin.readline()
    if not line.endswith("\n"):
        return
    arguments = json.loads(line)
    with open(os.devnull) as nothing:
        os.dup2(nothing.fileno(), 0)
    sys.argv = ["lockgate", *arguments]
    del sys.modules["lockgate.__main__"]
    runpy.run_module("lockgate", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
