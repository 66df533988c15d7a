"""Where the control plane takes what commands hand over to it; see :mod:`lockgate.handover`."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
from typing import TYPE_CHECKING

import msgspec

from lockgate import __version__
from lockgate.errors import LockgateError
from lockgate.handover import DATABASE, GREETING, LONGEST_LINE, Order, Outcome
from lockgate.rollouts.verbs import VERBS
from lockgate.runs import command_socket

if TYPE_CHECKING:
    from lockgate.bootstrap import App

_log = logging.getLogger(__name__)

ORDER_SECONDS = 5.0
"""A command says at once what it wants."""


class HandoverServer:
    """Does what commands of this machine's user say, each in a thread."""

    def __init__(self, app: App) -> None:
        self._app = app
        self._path = command_socket(app.home)
        self._server: asyncio.Server | None = None
        self._busy: set[asyncio.Task[None]] = set()

    async def open(self) -> None:
        """Listen. The caller has made sure that no other control plane does."""
        self._path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self._path))
        os.chmod(self._path, 0o600)  # before anybody can connect
        self._server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LONGEST_LINE)
        threading.Thread(target=self._get_ready, name="lockgate-handover", daemon=True).start()

    async def close(self, timeout: float) -> None:
        """Take nothing more, and let what is under way end."""
        if self._server is not None:
            self._server.close()
            self._path.unlink(missing_ok=True)
        if self._busy:
            await asyncio.wait(self._busy, timeout=timeout)

    def _get_ready(self) -> None:
        """Import now what the first order would wait for."""
        import lockgate.evals.yardstick
        import lockgate.rollouts.view
        import lockgate.versions.attestation
        import lockgate.versions.store  # noqa: F401

        _ = self._app.rollouts, self._app.versions

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._busy.add(task)
        try:
            writer.write(GREETING)
            line = await asyncio.wait_for(reader.readline(), ORDER_SECONDS)
            if line.endswith(b"\n"):  # else it only looked whether somebody is here
                outcome = await asyncio.to_thread(self._do, msgspec.json.decode(line, type=Order))
                writer.write(msgspec.json.encode(outcome) + b"\n")
                await writer.drain()
        except (OSError, TimeoutError, ValueError) as lost:  # it went away, or is no command of ours
            _log.warning("a command at %s: %s", self._path.name, lost)
        finally:
            writer.close()
            self._busy.discard(task)

    def _do(self, order: Order) -> Outcome:
        app = self._app
        app.project_file.refresh()
        if (
            order.version != __version__
            or order.root != str(app.project.root)
            or order.database != os.environ.get(DATABASE)
            or order.verb not in VERBS
            or app.project_file.problem is not None  # the command warns of it
        ):
            return Outcome(status="declined")
        try:
            return Outcome(status="done", result=VERBS[order.verb](app.rollouts, **order.arguments))
        except LockgateError as error:
            return Outcome(status="failed", message=error.message, remedy=error.remedy, exit_code=error.exit_code)
        except Exception:  # the boundary of a request
            _log.exception("a command's %s failed", order.verb)
            return Outcome(status="failed", message="an internal error; the control plane's log has it")
