"""What an evaluation saw of its candidate, case by case, packed: a few bytes a trial, read back in one go. Pure.

A version's trials may be forgotten, its golden set edited: a table stays what the verdict rested on.
"""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import msgspec
import numpy as np

from lockgate.evals.grid import Grid
from lockgate.evals.model import Case
from lockgate.evals.statistics import Floats

_PACKED = 1  # zlib's fastest: scores repeat, so that more effort would gain little


class CaseTable(NamedTuple):
    """One version's cases × trials. ``keys`` name each case by what the agent was given (32 bytes)."""

    keys: Sequence[bytes]
    cases: Sequence[Case]
    grids: Mapping[str, Grid]
    costs: Floats
    seconds: Floats


class _Columns(msgspec.Struct, array_like=True):
    keys: bytes
    ids: list[str]
    clusters: list[str | None]
    tags: list[list[str]]  # each set of tags once …
    tagged: bytes  # … and its number, by case
    weights: bytes
    trials: int
    values: dict[str, bytes]
    statuses: dict[str, bytes]
    costs: bytes
    seconds: bytes


def key_of(digest: str) -> bytes:
    """32 bytes of a ``sha256:…`` digest, or of any other key."""
    text = digest.removeprefix("sha256:")
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    return found if len(found) == 32 else hashlib.sha256(digest.encode()).digest()


def pack(table: CaseTable) -> bytes:
    """The table as bytes."""
    sets: dict[tuple[str, ...], int] = {}
    tagged = np.fromiter((sets.setdefault(tuple(case.tags), len(sets)) for case in table.cases), dtype=np.int32)
    columns = _Columns(
        keys=b"".join(table.keys),
        ids=[case.id for case in table.cases],
        clusters=[case.cluster for case in table.cases],
        tags=[list(tags) for tags in sets],
        tagged=tagged.tobytes(),
        weights=np.array([case.weight for case in table.cases]).tobytes(),
        trials=table.costs.shape[1],
        values={name: np.ascontiguousarray(grid.values).tobytes() for name, grid in table.grids.items()},
        statuses={name: np.ascontiguousarray(grid.status).tobytes() for name, grid in table.grids.items()},
        costs=np.ascontiguousarray(table.costs).tobytes(),
        seconds=np.ascontiguousarray(table.seconds).tobytes(),
    )
    return zlib.compress(msgspec.msgpack.encode(columns), _PACKED)


def unpack(data: bytes, *, cases: bool = True) -> CaseTable:
    """What :func:`pack` made of a table; without its cases where another's are the same ones."""
    columns = msgspec.msgpack.decode(zlib.decompress(data), type=_Columns)
    tagged = np.frombuffer(columns.tagged, dtype=np.int32).tolist()
    weights = np.frombuffer(columns.weights).tolist()
    outlines = [
        Case(id=id, input=None, cluster=cluster, tags=columns.tags[tags], weight=weight)
        for id, cluster, tags, weight in zip(columns.ids, columns.clusters, tagged, weights, strict=True)
        if cases
    ]
    shape = (len(columns.ids), columns.trials)

    def floats(raw: bytes) -> Floats:
        return np.frombuffer(raw).reshape(shape)

    grids = {
        name: Grid(floats(values), np.frombuffer(columns.statuses[name], dtype=np.uint8).reshape(shape))
        for name, values in columns.values.items()
    }
    keys = [columns.keys[start : start + 32] for start in range(0, len(columns.keys), 32)]
    return CaseTable(keys, outlines, grids, floats(columns.costs), floats(columns.seconds))


def rows_of(table: CaseTable, rows: Sequence[int]) -> CaseTable:
    """The same table, of these rows alone and in their order."""
    index = np.fromiter(rows, dtype=np.int64, count=len(rows))
    return CaseTable(
        [table.keys[row] for row in rows],
        [table.cases[row] for row in rows] if table.cases else [],
        {name: Grid(grid.values[index], grid.status[index]) for name, grid in table.grids.items()},
        table.costs[index],
        table.seconds[index],
    )
