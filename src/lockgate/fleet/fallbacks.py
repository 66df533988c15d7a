"""Runs the fallback slice of what serves when it is due, one at a time, each in a process of its own.

The agent's code is run there and not in the control plane. What comes of it is a scorecard like any other, and one
alert while the backup model falls short or cannot be asked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple

from sqlalchemy import select

from lockgate.clock import Clock
from lockgate.evals.gates.fallback import TRY_AGAIN, due, fallback_of
from lockgate.evals.store import last_of_kind
from lockgate.fleet.service import Alerts
from lockgate.storage.engine import Database
from lockgate.storage.schema import deployments

KIND = "fallback"
LONGEST = 3600.0
"""Seconds that a slice may take."""
SAID = 2000  # bytes of a failed slice's last words that are kept


class Slice(NamedTuple):
    """One deployed version whose backup model is to be tried."""

    environment: str
    agent: str
    behaviour_digest: str

    @property
    def alert(self) -> str:
        return f"{KIND}:{self.environment}:{self.agent}"


class _Running(NamedTuple):
    slice: Slice
    child: subprocess.Popen[bytes]
    words: IO[bytes]
    since: float


class Fallbacks:
    """Keeps the fallback slices of one control database up to date."""

    def __init__(
        self,
        control: Database,
        clock: Clock,
        alerts: Alerts,
        root: Path,
        *,
        command: Callable[[Slice], Sequence[str]] | None = None,
    ) -> None:
        """``command`` is what runs one slice and says the verdict by its exit code; default: ``lockgate fallback``."""
        self._control = control
        self._clock = clock
        self._alerts = alerts
        self._root = root
        self._command = command or fallback_command
        self._running: _Running | None = None
        self._tried: dict[Slice, float] = {}

    def tick(self) -> None:
        """See how the slice that runs came out, or start the first that is due. Waits for nothing."""
        if self._running is not None:
            self._look(self._running)
            return
        for one in self._due():
            self._tried[one] = self._clock()
            words = TemporaryFile()  # noqa: SIM115 - closed when the child has ended
            child = subprocess.Popen(
                [*self._command(one)],
                cwd=self._root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=words,
            )
            self._running = _Running(one, child, words, self._clock())
            return

    def stop(self) -> None:
        """End the slice that runs; it will be due again."""
        if self._running is not None:
            self._running.child.kill()
            self._running.child.wait()
            self._running.words.close()
            self._running = None

    def _look(self, running: _Running) -> None:
        code = running.child.poll()
        if code is None:
            if self._clock() - running.since <= LONGEST:
                return
            running.child.kill()
            running.child.wait()
        running.words.seek(0)
        said = running.words.read()
        running.words.close()
        self._running = None
        one = running.slice
        what = f"the backup model of {one.agent} in {one.environment}"
        if code == 0:
            self._alerts.resolve(one.alert)
        elif code == 1:
            message = f"{what} does not pass its slice of the golden set: lockgate fallback {one.agent}"
            self._alerts.raise_alert(one.alert, KIND, "warning", one.agent, message)
        elif code != 3:  # 3: it cannot tell, and nothing is known to be wrong
            words = said[-SAID:].decode("utf-8", "replace").strip() or "it took too long"
            self._alerts.raise_alert(one.alert, KIND, "warning", one.agent, f"{what} could not be tried: {words}")

    def _due(self) -> list[Slice]:
        now = self._clock()
        found = []
        with self._control.read() as connection:
            rows = connection.execute(
                select(
                    deployments.c.environment,
                    deployments.c.agent,
                    deployments.c.stable_behaviour,
                    deployments.c.settings,
                ).order_by(deployments.c.environment, deployments.c.agent)
            ).all()
        for environment, agent, behaviour, settings in rows:
            wanted = fallback_of((settings or {}).get("evals") or {})
            if wanted is None or wanted.environment != environment:
                continue
            one = Slice(environment, agent, behaviour)
            started, verdict = last_of_kind(self._control, agent, KIND)
            recently = now < self._tried.get(one, -TRY_AGAIN) + min(wanted.every, TRY_AGAIN)
            if not recently and due(wanted, now, started, verdict):
                found.append(one)
        return found


def fallback_command(one: Slice) -> tuple[str, ...]:
    """``lockgate fallback`` for one deployed version, in a process that ends with this one."""
    code = (
        f"from lockgate.process import die_with_parent; die_with_parent(parent={os.getpid()}); "
        "from lockgate.__main__ import main; main()"
    )
    return (sys.executable, "-c", code, "fallback", one.behaviour_digest, "--env", one.environment, "--json")
