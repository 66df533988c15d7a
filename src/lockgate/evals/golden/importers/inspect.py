"""Inspect: sample files (JSON, JSONL, CSV) and logs of evaluations (``.eval`` and ``.json``)."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lockgate.errors import InputError
from lockgate.evals.golden.importers.rows import Row, Text, listed, rows, structured

_ZSTD = 93


def looks_like(columns: set[str]) -> bool:
    return {"input", "target"} <= columns


def read(file: Text) -> Iterator[Row]:
    """Samples, or the samples of a log written as JSON; epochs of one sample are one case."""
    seen: set[str] = set()
    for row in rows(file, inside=("samples",)):
        yield from _case(row.line, row.data, seen)


def read_log(path: Path) -> Iterator[Row]:
    """The samples of an ``.eval`` file. ``line`` counts samples."""
    seen: set[str] = set()
    try:
        raw = path.read_bytes()
        log = zipfile.ZipFile(io.BytesIO(raw))
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=path, remedy="give a readable file") from None
    except zipfile.BadZipFile as failure:
        raise InputError(f"not an Inspect log: {failure}", path=path, remedy="give a finished .eval file") from None
    number = 0
    for entry in log.infolist():
        if entry.filename.startswith("samples/") and entry.filename.endswith(".json"):
            number += 1
            try:
                sample = json.loads(_member(raw, log, entry, path))
            except (ValueError, zipfile.BadZipFile) as failure:
                raise InputError(
                    f"{entry.filename} is damaged: {failure}", path=path, remedy="copy the log anew"
                ) from None
            yield from _case(number, sample, seen)


def _case(line: int, sample: dict[str, Any], seen: set[str]) -> Iterator[Row]:
    data = {key: structured(value) if key != "input" else value for key, value in sample.items() if value is not None}
    if "epoch" in data:
        if str(data.get("id")) in seen:
            return
        seen.add(str(data.get("id")))
    given = data.get("input")
    if isinstance(given, list):
        given = {"messages": [{"role": one.get("role"), "content": one.get("content")} for one in given]}
    metadata = dict(data.get("metadata") or {})
    choices = listed(data.get("choices")) if data.get("choices") else None
    if choices:
        metadata["choices"] = choices
        if isinstance(given, str):
            given += "\n\n" + "\n".join(f"{chr(65 + n)}) {choice}" for n, choice in enumerate(choices))
    for name in ("files", "setup", "sandbox"):
        if data.get(name):
            metadata[name] = data[name]
    if "epoch" in data:
        answer = (data.get("output") or {}).get("completion")
        if answer:
            metadata["response"] = answer
        scores = {name: score.get("value") for name, score in (data.get("scores") or {}).items()}
        if scores:
            metadata["scores"] = scores
    target = data.get("target")
    if isinstance(target, list):
        target = target[0] if len(target) == 1 else target or None
    found: dict[str, Any] = {"input": given, "expected_output": None if target == "" else target}
    if "id" in data:
        found["id"] = str(data["id"])
    if metadata:
        found["metadata"] = metadata
    yield Row(line, found)


def _member(raw: bytes, log: zipfile.ZipFile, entry: zipfile.ZipInfo, path: Path) -> bytes:
    if entry.compress_type != _ZSTD:
        return log.read(entry)
    try:
        import zstandard
    except ImportError:
        raise InputError(
            "the log is compressed with Zstandard, which needs an optional part",
            path=path,
            remedy="pip install 'lockgate[inspect]', or write it as JSON: inspect log convert --to json",
        ) from None
    name, extra = struct.unpack_from("<HH", raw, entry.header_offset + 26)
    start = entry.header_offset + 30 + name + extra
    packed = raw[start : start + entry.compress_size]
    unpacked: bytes = zstandard.ZstdDecompressor().decompressobj().decompress(packed)
    return unpacked
