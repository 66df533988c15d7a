"""The error tree is what its drawing says."""

from __future__ import annotations

import inspect
import re

from lockgate import errors


def test_the_tree_drawn_at_the_top_is_the_tree() -> None:
    drawn = {
        name: (int(exit_code), int(status))
        for name, exit_code, status in re.findall(r"[├└]── (\w+)\s+(\d)\s+(\d+)", errors.__doc__ or "")
    }
    real = {
        name: (kind.exit_code, kind.status)
        for name, kind in inspect.getmembers(errors, inspect.isclass)
        if issubclass(kind, errors.LockgateError) and kind is not errors.LockgateError
    }
    assert drawn == real


def test_all_is_every_error() -> None:
    assert set(errors.__all__) == {name for name, _ in inspect.getmembers(errors, inspect.isclass) if name != "Path"}


def test_an_input_error_names_file_line_and_remedy() -> None:
    error = errors.InputError("`weigth` is not a key", path="a.yaml", line=3, remedy="did you mean `weight`?")
    assert str(error) == "a.yaml:3: `weigth` is not a key\n  → did you mean `weight`?"
