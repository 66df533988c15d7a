"""Large golden sets stay on disk: every line is checked once, and read again when its case is run."""

from __future__ import annotations

import os
from array import array
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from lockgate.errors import InputError
from lockgate.evals.golden.jsonl import (
    checked_lines,
    dataset_digest,
    digest_of_all,
    line_digest,
    parse_case,
    read_cases,
)
from lockgate.evals.model import Case

LARGE = 8_000_000
"""Bytes from which on a golden set is not held in memory."""


class CasesOnDisk(Sequence[Case]):
    """The cases of a file. ``outlines`` are its cases without what they ask and expect, held in memory."""

    def __init__(self, path: Path, *, shown_as: str) -> None:
        self._shown = shown_as
        self._starts, self._lines = array("q"), array("q")
        self.outlines: list[Case] = []
        digests: list[bytes] = []
        tags: dict[tuple[str, ...], list[str]] = {}
        clusters: dict[str, str] = {}
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as failure:
            raise InputError(
                f"cannot be read: {failure.strerror}", path=shown_as, remedy="give a readable file"
            ) from None
        with open(self._file, "rb", closefd=False) as file:
            for number, start, case in checked_lines(file, shown_as):
                self._starts.append(start)
                self._lines.append(number)
                digests.append(line_digest(case))
                self.outlines.append(
                    Case(
                        id=case.id,
                        input=None,
                        tags=tags.setdefault(tuple(case.tags), case.tags),
                        cluster=None if case.cluster is None else clusters.setdefault(case.cluster, case.cluster),
                        weight=case.weight,
                    )
                )
            self._starts.append(file.tell())
        if not digests:
            raise InputError("no cases in the golden set", path=shown_as, remedy='add lines such as {"id": …}')
        self.digest = digest_of_all(digests)

    def __len__(self) -> int:
        return len(self.outlines)

    @overload
    def __getitem__(self, row: int) -> Case: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[Case]: ...
    def __getitem__(self, row: int | slice) -> Case | Sequence[Case]:
        if isinstance(row, slice):
            return [self[one] for one in range(*row.indices(len(self)))]
        if not 0 <= row < len(self):
            raise IndexError(row)
        start = self._starts[row]
        line = os.pread(self._file, self._starts[row + 1] - start, start).partition(b"\n")[0]
        return parse_case(line.removeprefix(b"\xef\xbb\xbf"), path=self._shown, line=self._lines[row])

    def __del__(self) -> None:
        if hasattr(self, "_file"):
            os.close(self._file)


def open_cases(path: Path, *, shown_as: str) -> Sequence[Case]:
    """The cases of a golden set, in the file's order: in memory or, of a large file, on disk.

    Raises :class:`InputError` as :func:`~lockgate.evals.golden.read_cases` does.
    """
    if path.is_file() and path.stat().st_size >= LARGE:
        return CasesOnDisk(path, shown_as=shown_as)
    return read_cases(path, shown_as=shown_as)


def outlines(cases: Sequence[Case]) -> Sequence[Case]:
    """The same cases for whoever asks for ids, tags, clusters and weights alone."""
    return cases.outlines if isinstance(cases, CasesOnDisk) else cases


def digest_of(cases: Sequence[Case]) -> str:
    """``sha256:…`` of a golden set, wherever it is kept."""
    return cases.digest if isinstance(cases, CasesOnDisk) else dataset_digest(cases)
