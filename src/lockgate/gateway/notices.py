"""Tells people of breakers that opened, and of their return: alerts, written in a thread so that no call waits. And
the other workers, at once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from lockgate.errors import LockgateError
from lockgate.gateway.siblings import What

log = logging.getLogger(__name__)

KIND = "breaker_open"


def alert_key(what: What) -> str:
    """The key of a breaker's alert."""
    return "breaker:" + ":".join(what[1:] if what[0] == "upstream" else what)


class Notices:
    """``raise_alert(key, kind, severity, subject, message)`` and ``resolve(key)`` are the fleet's;
    ``tell(what, is_open)`` tells the workers."""

    def __init__(
        self,
        raise_alert: Callable[[str, str, Any, str, str], object],
        resolve: Callable[[str], object],
        tell: Callable[[What, bool], object],
    ) -> None:
        self._raise = raise_alert
        self._resolve = resolve
        self._tell = tell
        self._thread = ThreadPoolExecutor(1, "alerts")

    def upstream(self, environment: str, provider: str, upstream: str, is_open: bool) -> None:
        """A provider's upstream keeps failing, or is back."""
        what = ("upstream", environment, provider, upstream)
        self._tell(what, is_open)
        message = (
            f"provider {provider!r} at {upstream} keeps failing in {environment!r}: calls go elsewhere, or are refused"
        )
        self._thread.submit(self._write, alert_key(what), provider, message if is_open else None)

    def agent(self, environment: str, agent: str, fallback: str | None, is_open: bool) -> None:
        """An agent's runs keep failing, or it is back."""
        what = ("agent", environment, agent)
        self._tell(what, is_open)
        instead = f"{fallback!r} answers meanwhile" if fallback else "its runs are refused meanwhile"
        message = f"the runs of {agent!r} in {environment!r} keep failing: {instead}"
        self._thread.submit(self._write, alert_key(what), agent, message if is_open else None)

    def close(self) -> None:
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _write(self, key: str, subject: str, message: str | None) -> None:
        try:
            if message is None:
                log.info("%s is back", key)
                self._resolve(key)
            else:
                log.warning("%s", message)
                self._raise(key, KIND, "critical", subject, message)
        except (LockgateError, SQLAlchemyError) as failure:
            log.warning("the alert %r could not be written: %s", key, failure)
