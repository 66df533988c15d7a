"""A scorer of the project's own: ``python: evals/scorers.py:polite``."""

from __future__ import annotations

import hashlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lockgate.errors import InputError
from lockgate.evals.scorers.sample import Mark, Sample, Scorer


def load_function(reference: str, root: Path) -> Callable[..., Any]:
    """The function that ``path/to/file.py:name`` names, loaded afresh. The path is from the project's root."""
    path, _, name = reference.rpartition(":")
    file = (root / path).resolve()
    if not path.endswith(".py") or not name.isidentifier():
        raise InputError(f"python {reference!r} is not a file and a function", remedy="write path/to/file.py:function")
    if not file.is_relative_to(root.resolve()):
        raise InputError(f"python {reference!r} is outside the project", remedy="move the file into the project")
    if not file.is_file():
        raise InputError("no such file", path=path, remedy=f"create it, or correct python: {reference}")
    unique = f"lockgate_scorer_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as failure:  # whatever the project's file raises when it is loaded
        line = getattr(failure, "lineno", None)
        raise InputError(
            f"cannot be loaded: {type(failure).__name__}: {failure}", path=path, line=line, remedy="correct the file"
        ) from failure
    function = getattr(module, name, None)
    if not callable(function):
        raise InputError(f"no function {name!r} in it", path=path, remedy=f"define it, or correct python: {reference}")
    found: Callable[..., Any] = function
    return found


def python(*, function: Callable[..., Any], options: dict[str, Any] | None = None) -> Scorer:
    """Whatever ``function(sample, **options)`` returns: a number in 0..1, true or false, None to skip, or
    (value, reason). It is called in a thread, with a time limit; it may raise.

    Range: 0..1. Needs: what it asks for. Source: your own.
    """

    def score(sample: Sample) -> Mark:
        answer = function(sample, **(options or {}))
        reason = ""
        if isinstance(answer, tuple):
            answer, reason = answer
        if answer is None:
            return Mark(None, reason or "skipped by the scorer", "skipped")
        return Mark(float(answer), str(reason))

    return score
