"""Code on disk: exactly the version's, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import Corrupt
from lockgate.versions import checkout

CODE = {"tools/orders.py": b"x = 1\n", "tools/deep/more.py": b"y = 2\n"}


def held(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_folder_holds_exactly_the_code(tmp_path: Path) -> None:
    folder = tmp_path / "code" / "abc"
    checkout.write(CODE, folder)
    assert held(folder) == CODE
    assert [path.name for path in folder.parent.iterdir()] == ["abc"]


def test_a_right_folder_is_left_alone_with_python_s_caches(tmp_path: Path) -> None:
    checkout.write(CODE, tmp_path / "abc")
    (tmp_path / "abc" / "tools" / "__pycache__").mkdir()
    (tmp_path / "abc" / "tools" / "__pycache__" / "orders.pyc").write_bytes(b"cache")
    before = (tmp_path / "abc").stat().st_ino
    checkout.write(CODE, tmp_path / "abc")
    assert (tmp_path / "abc").stat().st_ino == before


@pytest.mark.parametrize("spoil", ["changed", "added", "missing", "linked"])
def test_a_folder_that_was_tampered_with_is_made_anew(tmp_path: Path, spoil: str) -> None:
    folder, target = tmp_path / "abc", tmp_path / "abc" / "tools" / "orders.py"
    checkout.write(CODE, folder)
    if spoil == "changed":
        target.write_bytes(b"x = 2\n")
    elif spoil == "added":
        (folder / "tools" / "sitecustomize.py").write_bytes(b"evil")
    else:
        target.unlink()
    if spoil == "linked":
        (tmp_path / "same.py").write_bytes(CODE["tools/orders.py"])
        target.symlink_to(tmp_path / "same.py")
    checkout.write(CODE, folder)
    assert held(folder) == CODE
    assert not target.is_symlink()


@pytest.mark.parametrize("path", ["../evil.py", "/tmp/evil.py", "a/../../evil.py"])
def test_a_path_that_leads_out_writes_nothing(tmp_path: Path, path: str) -> None:
    with pytest.raises(Corrupt, match="unsafe path"):
        checkout.write({**CODE, path: b"evil"}, tmp_path / "abc")
    assert list(tmp_path.iterdir()) == []


def test_a_version_without_code_is_an_empty_folder(tmp_path: Path) -> None:
    checkout.write({}, tmp_path / "abc")
    assert held(tmp_path / "abc") == {}
    assert (tmp_path / "abc").is_dir()
