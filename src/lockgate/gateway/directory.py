"""What a gateway worker knows of keys and routes: kept fresh by a thread, so that no request waits for the store."""

from __future__ import annotations

import logging
import threading

from sqlalchemy.exc import SQLAlchemyError

from lockgate.clock import Clock
from lockgate.errors import Unavailable
from lockgate.gateway import store
from lockgate.gateway.keys import Keys
from lockgate.gateway.model import Route
from lockgate.gateway.routes import Routes
from lockgate.storage.engine import Database

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two readings of the store."""


class Directory:
    """The last snapshot of routes, and the keys in use."""

    def __init__(self, control: Database, keys: Keys, clock: Clock) -> None:
        self.keys = keys
        self.routes = Routes()
        self.read_at: float | None = None
        """When the store last answered, Unix seconds; None before it ever did."""
        self._control = control
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False

    def route(self, environment: str, agent: str) -> Route:
        """The route in force now; :class:`NotFound` when there is none."""
        return self.routes.get(environment, agent, self._clock())

    def refresh(self) -> bool:
        """Read the store once. False when it does not answer: then the last snapshot stays, with its leases."""
        try:
            with self._control.read() as connection:
                routes = store.all_routes(connection)
            self.keys.refresh()
        except (SQLAlchemyError, Unavailable) as failure:
            if not self._failing:
                log.warning("the store does not answer; serving from the last snapshot: %s", failure)
            self._failing = True
            return False
        self._failing = False
        self.routes = Routes(routes)
        self.read_at = self._clock()
        return True

    def start(self) -> None:
        """Read once, then keep reading in a thread until :meth:`stop`."""
        self.refresh()
        self._thread = threading.Thread(target=self._run, name="lockgate-directory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(INTERVAL * 4)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self.refresh()
