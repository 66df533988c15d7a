"""What a gateway worker knows of keys and routes: kept fresh by a thread, so that no request waits for the store."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

from sqlalchemy.exc import SQLAlchemyError

from lockgate.clock import Clock
from lockgate.errors import Unavailable
from lockgate.gateway import store, switches
from lockgate.gateway.keys import Keys
from lockgate.gateway.model import Route
from lockgate.gateway.routes import Routes
from lockgate.process import alive
from lockgate.settings.model import Snapshot
from lockgate.settings.service import Follower
from lockgate.storage.engine import Database

log = logging.getLogger(__name__)

INTERVAL = 0.5
"""Seconds between two readings of the store, when no route changes."""
LOOK = 0.1
"""Seconds between two looks whether one did: a deploy or an undo is served so soon."""


class Directory:
    """The last snapshot of routes and settings, and the keys in use.

    ``files`` are looked at before each reading, and ``told`` hears of settings that changed.
    """

    def __init__(
        self,
        control: Database,
        keys: Keys,
        clock: Clock,
        *,
        files: Sequence[Callable[[], object]] = (),
        told: Callable[[Snapshot], object] = lambda _: None,
    ) -> None:
        self.keys = keys
        self.settings = Snapshot()
        self.routes = Routes()
        self.read_at: float | None = None
        """When the store last answered, Unix seconds; None before it ever did."""
        self._control = control
        self._changed = store.watch(control)
        self._clock = clock
        self._stopping = threading.Event()
        self._thread: threading.Thread | None = None
        self._failing = False
        self._following = Follower()
        self._files = files
        self._told = told

    def route(self, environment: str, agent: str) -> Route:
        """The route in force now; :class:`NotFound` when there is none."""
        return self.routes.get(environment, agent, self._clock())

    def refresh(self) -> bool:
        """Read the store once. False when it does not answer: then the last snapshot stays, with its leases."""
        try:
            for look in self._files:
                look()
            with self._control.read() as connection:
                routes = store.all_routes(connection)
                changed = self._following.refresh(connection)
            if changed:
                self.settings = self._following.current
                self._told(self.settings)
            self.routes = Routes(switches.in_force(routes, self.settings))
            self.keys.refresh()
        except (SQLAlchemyError, Unavailable) as failure:
            if not self._failing:
                log.warning("the store does not answer; serving from the last snapshot: %s", failure)
            self._failing = True
            return False
        self._failing = False
        self.read_at = self._clock()
        return True

    def runs_under_way(self, folder: str) -> bool:
        """Whether a host of this machine, with its socket in this folder, has a run that has not ended: a run that went
        on after an approval has nobody who waits for it."""
        try:
            with self._control.read() as connection:
                return any(alive(pid) for pid in store.hosts_with_runs(connection, folder))
        except (SQLAlchemyError, Unavailable):
            return False

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
        due = time.monotonic() + INTERVAL
        while not self._stopping.wait(LOOK):
            try:
                if self._changed() or time.monotonic() >= due:
                    due = time.monotonic() + INTERVAL
                    self.refresh()
            except Exception:  # the thread's boundary: without it the worker would never again hear of anything
                log.exception("keys, routes and settings were not read")
