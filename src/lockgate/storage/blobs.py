"""Content-addressed blobs on disk: ``blobs/sha256/<hex>``, as an OCI layout keeps them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from lockgate.errors import Corrupt, InputError, NotFound

WRITERS = 16


def digest_of(data: bytes) -> str:
    """``sha256:<64 hex>`` of the bytes."""
    return "sha256:" + hashlib.sha256(data).hexdigest()


class BlobStore:
    """A folder of blobs. Writes are atomic and idempotent; every read is checked against its digest."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def path(self, digest: str) -> Path:
        algorithm, _, value = digest.partition(":")
        if algorithm != "sha256" or len(value) != 64 or not all(c in "0123456789abcdef" for c in value):
            raise InputError(f"{digest!r} is not a digest", remedy="give sha256: and 64 hex digits")
        return self.root / "sha256" / value

    def put(self, data: bytes) -> str:
        """Store the bytes (durably, before returning) and return their digest."""
        return self.put_many([data])[0]

    def put_many(self, blobs: Iterable[bytes]) -> list[str]:
        """Store many at once: their waits for the disk overlap, and the folder is synced once."""
        by_digest = {digest_of(data): data for data in blobs}
        new = [(self.path(digest), data) for digest, data in by_digest.items() if digest not in self]
        if new:
            folder = new[0][0].parent
            folder.mkdir(parents=True, exist_ok=True)
            if len(new) == 1:
                _write(*new[0])
            else:
                with ThreadPoolExecutor(min(WRITERS, len(new))) as pool:
                    list(pool.map(lambda one: _write(*one), new))
            _sync_folder(folder)
        return list(by_digest)

    @contextmanager
    def receive(self, digest: str) -> Iterator[Callable[[bytes], object]]:
        """Store a blob that comes in pieces: give each to what is yielded. Kept only when no error ended the block
        and the pieces together have this digest; memory holds one piece."""
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
        seen = hashlib.sha256()
        try:
            with open(temporary, "wb") as file:

                def write(piece: bytes) -> None:
                    seen.update(piece)
                    file.write(piece)

                yield write
                file.flush()
                os.fsync(file.fileno())
            if "sha256:" + seen.hexdigest() != digest:
                raise Corrupt(f"what came for {digest} has other bytes", remedy="nothing was kept: try again")
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)

    def get(self, digest: str) -> bytes:
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError:
            raise NotFound(f"no blob {digest} in {self.root}", remedy="lockgate lock, or pull the bundle") from None
        if digest_of(data) != digest:
            raise Corrupt(
                f"blob {digest} in {self.root} does not match its digest",
                remedy="delete it, then `lockgate lock` the version again",
            )
        return data

    def __contains__(self, digest: str) -> bool:
        return self.path(digest).exists()

    def __iter__(self) -> Iterator[str]:
        folder = self.root / "sha256"
        if folder.is_dir():
            yield from (f"sha256:{path.name}" for path in sorted(folder.iterdir()) if not path.name.startswith("."))


def _write(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
