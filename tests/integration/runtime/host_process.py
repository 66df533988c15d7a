"""A host in a process of its own, for tests that kill it: python host_process.py '<JSON>'."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import msgspec

from lockgate import clock
from lockgate.process import die_with_parent
from lockgate.runtime.hosting import serve
from lockgate.storage.engine import open_database
from lockgate.versions.model import AgentVersion


class Setup(msgspec.Struct):
    version: AgentVersion
    effective: str
    home: str
    control: str
    code: str
    gateway: str
    parent: int
    drain: float = 60.0


def main(setup: Setup) -> None:
    die_with_parent(parent=setup.parent)
    arguments: dict[str, Any] = {"home": Path(setup.home), "code": Path(setup.code), "gateway_url": setup.gateway}
    control = open_database(setup.control, "control")
    asyncio.run(
        serve(
            setup.version,
            setup.effective,
            control=control,
            clock=clock.system,
            emit=None,
            drain=setup.drain,
            **arguments,
        )
    )


if __name__ == "__main__":
    main(msgspec.json.decode(sys.argv[1], type=Setup))
