"""Secrets are references; a literal one is refused without being shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.project.secrets import resolve_secret


def test_no_reference_is_no_secret(tmp_path: Path) -> None:
    assert resolve_secret(None, tmp_path) is None


def test_an_environment_variable_and_a_file_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACME_KEY", "from-env")
    (tmp_path / "key").write_text("from-file\n")
    assert resolve_secret("${env:ACME_KEY}", tmp_path) == "from-env"
    assert resolve_secret("${file:key}", tmp_path) == "from-file"


@pytest.mark.parametrize("reference", ["${env:ACME_ABSENT}", "${file:absent}", "${file:empty}", "${file:binary}"])
def test_a_secret_that_is_not_there_says_so_and_how_to_put_it_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str
) -> None:
    monkeypatch.delenv("ACME_ABSENT", raising=False)
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(Unavailable) as caught:
        resolve_secret(reference, tmp_path)
    assert reference[2:-1].partition(":")[2] in caught.value.message
    assert caught.value.remedy


@pytest.mark.parametrize("literal", ["sk-planted-canary-value", "${env:}", "x${env:A}", "${env:A}${env:B}", ""])
def test_a_literal_is_refused_and_not_repeated(tmp_path: Path, literal: str) -> None:
    with pytest.raises(InputError) as caught:
        resolve_secret(literal, tmp_path)
    assert "canary" not in str(caught.value)
    assert "${env:NAME}" in (caught.value.remedy or "")


def test_an_unknown_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no secret store 'keyring'"):
        resolve_secret("${keyring:llm}", tmp_path)
