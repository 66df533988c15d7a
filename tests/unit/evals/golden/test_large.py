"""Golden sets that stay on disk."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.evals.golden import dataset_digest, digest_of, large, open_cases, outlines, read_cases
from lockgate.evals.golden.large import CasesOnDisk


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(large, "LARGE", 100)
    lines = [
        json.dumps({"id": f"c{n}", "input": f"é {n}", "tags": ["t"], "cluster": f"k{n // 2}", "weight": n + 1.0})
        for n in range(40)
    ]
    path = tmp_path / "g.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + ("\r\n\n".join(lines) + "\n").encode())
    return path


def test_a_large_golden_set_reads_like_a_small_one(file: Path) -> None:
    found, held = open_cases(file, shown_as="g.jsonl"), read_cases(file)
    assert isinstance(found, CasesOnDisk)
    assert list(found) == held
    assert found[3:5] == held[3:5]
    assert digest_of(found) == dataset_digest(held) == digest_of(held)
    assert [(case.id, case.cluster, case.weight) for case in outlines(found)] == [
        (case.id, case.cluster, case.weight) for case in held
    ]
    with pytest.raises(IndexError):
        found[40]


def test_a_small_one_is_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "g.jsonl").write_text('{"id": "a", "input": "x"}\n')
    found = open_cases(tmp_path / "g.jsonl", shown_as="g.jsonl")
    assert isinstance(found, list)
    assert outlines(found) is found


def test_a_broken_line_and_a_repeated_id_of_a_large_one_are_named(file: Path) -> None:
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"id": "c3", "input": "again"}\n')
    with pytest.raises(InputError, match="stands twice, first on line 7"):
        open_cases(file, shown_as="g.jsonl")
    file.write_bytes(whole + b"{")
    with pytest.raises(InputError, match="not valid JSON"):
        open_cases(file, shown_as="g.jsonl")
