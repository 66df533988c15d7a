"""Cassettes: what models answered once, kept in the repository, so that tests run offline and show changed prompts.

A cassette is one JSON file for one test: a list of calls, each the model, the request, and the answer. A call is
answered by the first recorded one with the same model and request that was not used yet.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.runtime.model import Completion, ModelClient, wire_name
from lockgate.versions.model import ModelRef

FORMAT = 1


class Cassette:
    """The recorded calls in ``path``. ``recording`` starts an empty one, written by :meth:`save`."""

    def __init__(self, path: Path, *, recording: bool = False) -> None:
        self.path = path
        self.calls: list[dict[str, Any]] = [] if recording else _read(path)
        self._used: set[int] = set()

    def play(self, model: ModelRef, body: dict[str, Any]) -> Completion | None:
        """The answer to this request, or None when it was not recorded (so often)."""
        wanted = {"model": wire_name(model), "request": body}
        for index, call in enumerate(self.calls):
            if index not in self._used and {"model": call["model"], "request": call["request"]} == wanted:
                self._used.add(index)
                return msgspec.convert(call["answer"], Completion)
        return None

    def record(self, model: ModelRef, body: dict[str, Any], completion: Completion) -> None:
        """Keep one answered call."""
        answer = msgspec.to_builtins(completion)
        self.calls.append({"model": wire_name(model), "request": msgspec.to_builtins(body), "answer": answer})

    def save(self) -> None:
        """Write the calls, readable and in order, so that a change shows in review."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({"format": FORMAT, "calls": self.calls}, indent=2, ensure_ascii=False) + "\n"
        temporary = self.path.with_name(f".{self.path.name}.new")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(self.path)


class Replayed:
    """A model client that knows only what its cassette holds. What it did not know is in ``missing``."""

    records_spans = False

    def __init__(self, cassette: Cassette) -> None:
        self._cassette = cassette
        self.missing: str | None = None

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`. Raises :class:`InputError` for a call not recorded."""
        completion = self._cassette.play(model, msgspec.to_builtins(body))
        if completion is not None:
            return completion
        self.missing = f"{str(self._cassette.path)!r} has no (further) answer of {wire_name(model)!r} to this request"
        raise InputError(self.missing)


class Recorded:
    """A model client that asks another and keeps what it answers."""

    def __init__(self, cassette: Cassette, client: ModelClient) -> None:
        self._cassette = cassette
        self._client = client
        self.records_spans = client.records_spans

    async def complete(self, model: ModelRef, body: dict[str, Any], *, timeout: float) -> Completion:
        """See :class:`~lockgate.runtime.model.ModelClient`."""
        completion = await self._client.complete(model, body, timeout=timeout)
        self._cassette.record(model, body, completion)
        return completion


def _read(path: Path) -> list[dict[str, Any]]:
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        calls: list[dict[str, Any]] = data["calls"]
        if data["format"] != FORMAT:
            raise ValueError(f"format {data['format']!r}")
        for call in calls:
            msgspec.convert(call["answer"], Completion)
            call["model"], call["request"]
    except (ValueError, LookupError, TypeError) as wrong:
        raise InputError(
            f"is no cassette: {wrong}", path=path, remedy="delete it and record it again: pytest --real-llm"
        ) from wrong
    return calls
