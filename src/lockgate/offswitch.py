"""The kill switch where no gateway stands between: evaluations, judges and whatever else asks a model itself.

What a switch covers is not sent. It is looked at before each call, so that one thrown meanwhile holds within a second.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from sqlalchemy.exc import SQLAlchemyError

from lockgate.errors import Killed, Unavailable
from lockgate.runtime.model import Completion, ModelClient, wire_name
from lockgate.settings import switches
from lockgate.versions.model import ModelRef

if TYPE_CHECKING:
    from lockgate.bootstrap import App

_LOOK = 0.5  # seconds between two looks at the store
COULD_NOT_EVALUATE = 4


class OffSwitch:
    """What ``agent`` (or nobody's agent: a judge) may be asked in one environment."""

    def __init__(self, app: App, environment: str, agent: str | None = None) -> None:
        self._app = app
        self._environment = environment
        self._agents = [] if agent is None else [agent]
        self._looked: float | None = None
        self.thrown: Killed | None = None
        """The refusal, once there was one."""

    def check(self, model: str) -> None:
        """Raises :class:`Killed` when ``model`` (``provider/name``), the agent or the environment is switched off."""
        now = time.monotonic()
        if self._looked is None or now - self._looked >= _LOOK:
            self._looked = now
            try:
                with self._app.control.read() as connection:
                    self._app.following.refresh(connection)
            except (SQLAlchemyError, Unavailable):  # what was read last holds
                pass
        known = self._app.following.current
        try:
            switches.check(known, environment=self._environment, tenant="", agents=self._agents, model=model)
        except Killed as off:
            off.exit_code = COULD_NOT_EVALUATE  # nothing was measured: that is no verdict
            self.thrown = off
            raise


class Switched:
    """A model client that sends nothing that is switched off."""

    records_spans = False

    def __init__(self, client: ModelClient, switch: OffSwitch) -> None:
        self._client = client
        self._switch = switch

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        self._switch.check(wire_name(model))
        return await self._client.complete(model, body, timeout=timeout)
