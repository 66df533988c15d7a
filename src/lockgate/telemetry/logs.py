"""What processes say on standard error: lines for people, or one JSON object a line for machines.

A JSON line has ``time`` (RFC 3339, UTC), ``level``, ``process``, ``logger``, ``message``, the trace and request it is
about, and further fields where there are any. Secrets are taken out of both, as they are out of traces.
"""

from __future__ import annotations

import json
import logging
import os
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Any, Literal

from lockgate.telemetry.redaction import redact

Format = Literal["text", "json"]
FORMAT_VARIABLE = "LOCKGATE_LOG_FORMAT"
REQUESTS_VARIABLE = "LOCKGATE_LOG_REQUESTS"
"""How the processes of one ``lockgate up`` are told."""

current: ContextVar[tuple[bytes, str] | None] = ContextVar("lockgate_log_request", default=None)
"""Trace id and request id of what the running task is about."""

_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line. What was given as ``extra`` stands beside the message."""

    def __init__(self, process: str) -> None:
        super().__init__()
        self._process = process

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "process": self._process,
            "pid": record.process,
            "logger": record.name,
            "message": record.getMessage(),
        }
        about = current.get()
        if about is not None:
            line["trace_id"], line["request_id"] = about[0].hex(), about[1]
        line.update((name, value) for name, value in record.__dict__.items() if name not in _OWN)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return redact(json.dumps(line, ensure_ascii=False, default=str))


class Lines(logging.Formatter):
    """``process: LEVEL message``."""

    def __init__(self, process: str, *, levels: bool = True) -> None:
        super().__init__(f"{process}: %(levelname)s %(message)s" if levels else f"{process}: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return redact(super().format(record))

    def formatMessage(self, record: logging.LogRecord) -> str:
        """What others sent may stand in a message: it begins no line of its own, and steers no terminal."""
        if not record.message.isprintable():
            record.message = "".join(one if one.isprintable() else _escaped(one) for one in record.message)
        return super().formatMessage(record)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def configure(process: str, *, levels: bool = True) -> None:
    """Set up this process's logging, in the format that the one which started it asked for."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        JsonLines(process) if os.environ.get(FORMAT_VARIABLE) == "json" else Lines(process, levels=levels)
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    logging.getLogger("lockgate").setLevel(logging.INFO)


def logs_requests() -> bool:
    """Whether each request is to be a line."""
    return os.environ.get(REQUESTS_VARIABLE) == "1"
