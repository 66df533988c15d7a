"""Blobs are what their digest says, or an error."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import Corrupt, InputError, NotFound
from lockgate.storage.blobs import BlobStore, digest_of


def test_what_is_put_comes_back(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"hello")
    assert store.get(digest) == b"hello"
    assert digest in store
    assert list(store) == [digest]


def test_putting_twice_keeps_one_file_and_no_leftovers(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    assert store.put(b"x") == store.put(b"x")
    assert len(list((tmp_path / "sha256").iterdir())) == 1


def test_many_are_put_in_their_order_each_once(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    blobs = [b"%d" % number for number in range(40)]
    assert store.put_many([*blobs, b"3"]) == [digest_of(blob) for blob in blobs]
    assert sorted(store) == sorted(digest_of(blob) for blob in blobs)
    assert store.put_many([]) == []


def test_a_changed_blob_is_corrupt(tmp_path: Path) -> None:
    store = BlobStore(tmp_path)
    digest = store.put(b"hello")
    store.path(digest).write_bytes(b"jello")
    with pytest.raises(Corrupt, match=digest):
        store.get(digest)


def test_a_missing_blob_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        BlobStore(tmp_path).get(digest_of(b"nothing"))


@pytest.mark.parametrize("digest", ["", "sha256:../../etc/passwd", "md5:" + "0" * 64, "sha256:" + "G" * 64])
def test_a_malformed_digest_never_becomes_a_path(tmp_path: Path, digest: str) -> None:
    with pytest.raises(InputError):
        BlobStore(tmp_path).path(digest)
