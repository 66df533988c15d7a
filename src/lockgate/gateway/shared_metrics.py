"""The metrics of all workers behind one URL: each leaves its snapshot in a file, whoever is asked adds them up."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from lockgate.telemetry.metrics import Registry, render

log = logging.getLogger(__name__)

INTERVAL = 1.0
"""Seconds between two snapshots of a worker."""


class SharedMetrics:
    """This worker's registry, and where the others leave theirs. ``index`` is the worker's place, kept on a respawn."""

    def __init__(
        self, registry: Registry, folder: Path, index: int | str, *, refresh: Callable[[], None] = lambda: None
    ) -> None:
        """``refresh`` brings the gauges up to date before a snapshot."""
        self._registry = registry
        self._refresh = refresh
        self._path = folder / f"{index}.metrics"
        self._failing = False
        self._written = b""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lockgate-metrics", daemon=True)

    def start(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def stop(self) -> None:
        self._stopping.set()
        self._thread.join(INTERVAL * 2)

    def render(self) -> str:
        """All workers in the Prometheus text format: this one as it is, the others as of a second ago."""
        self._refresh()
        snapshots = [self._registry.snapshot()]
        for path in sorted(self._path.parent.glob("*.metrics")):
            if path != self._path:
                try:
                    snapshots.append(path.read_bytes())
                except FileNotFoundError:
                    continue
        return render(snapshots)

    def _run(self) -> None:
        while not self._stopping.wait(INTERVAL):
            self._write()
        self._write()

    def _write(self) -> None:
        self._refresh()
        now = self._registry.snapshot()
        if now == self._written:
            return
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_bytes(now)
            draft.replace(self._path)
            self._failing, self._written = False, now
        except OSError as failure:
            if not self._failing:  # said once, though it is tried every second
                log.warning("metrics cannot be shared with the other workers: %s", failure)
            self._failing = True
