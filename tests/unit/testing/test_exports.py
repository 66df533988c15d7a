"""What ``lockgate.testing`` promises is there."""

from __future__ import annotations

import subprocess
import sys

import pytest

from lockgate import testing


def test_every_name_promised_is_there() -> None:
    assert sorted(testing.__all__) == testing.__all__
    for name in testing.__all__:
        assert getattr(testing, name).__name__ == name


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="nonsuch"):
        _ = testing.nonsuch


def test_names_are_imported_when_they_are_used() -> None:
    script = "import sys, lockgate.testing; print('lockgate.testing.replies' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
