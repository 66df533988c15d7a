"""`lockgate attest` on a project: verdicts shown, taken in from elsewhere, and keys that change."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lockgate.bootstrap import App
from lockgate.project.service import load_project

Lockgate = Callable[..., Any]


@pytest.fixture
def judged(project: Path, lockgate: Lockgate) -> str:
    """A locked version with a passing verdict; its agent."""
    lockgate("lock")
    versions = App(load_project(project)).versions
    ref = versions.ref("support", "prod")
    versions.attest("support", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r", "pass", {})
    return "support"


def test_a_verdict_is_shown_with_who_signed_it_and_where_it_counts(judged: str, lockgate: Lockgate) -> None:
    [kept] = lockgate("attest", "show", judged, "--json")
    assert (kept["attestation"]["verdict"], kept["attestation"]["agent"]) == ("pass", judged)
    assert "prod" in kept["trusted"]
    assert "pass" in lockgate("attest", "show", judged)
    assert kept["signer"] in (lockgate("attest", "keys", "--json")["id"], "this machine")


def test_a_verdict_that_comes_as_a_file_is_taken_in_once(
    judged: str, lockgate: Lockgate, project: Path, tmp_path: Path
) -> None:
    [kept] = lockgate("attest", "show", judged, "--json")
    file = tmp_path / "attestation.json"
    file.write_text(json.dumps(kept["envelope"]))
    assert lockgate("attest", "add", str(file), "--json") == []  # it is here already
    (project / ".lockgate").rename(tmp_path / "another-machine")
    lockgate("lock")
    assert lockgate("attest", "show", judged, "--json") == []
    [added] = lockgate("attest", "add", str(file), "--json")
    [shown] = lockgate("attest", "show", judged, "--json")
    assert shown["attestation"]["id"] == kept["attestation"]["id"]
    assert shown["trusted"] == []  # this machine does not know the key
    assert added


@pytest.mark.parametrize("text", ["[]", "{", '{"payload": "x"}'])
def test_a_file_that_is_no_envelope_is_refused(judged: str, lockgate: Lockgate, tmp_path: Path, text: str) -> None:
    file = tmp_path / "attestation.json"
    file.write_text(text)
    said = lockgate("attest", "add", str(file), code=2)
    assert "give a DSSE envelope" in said or "this is no gate attestation" in said


def test_what_a_retired_key_signed_counts_until_it_is_revoked(judged: str, lockgate: Lockgate) -> None:
    before = lockgate("attest", "keys", "--json")
    after = lockgate("attest", "keys", "--rotate", "--json")
    assert after["id"] != before["id"]
    assert [one["public"] for one in after["retired"]] == [before["public"]]
    [kept] = lockgate("attest", "show", judged, "--json")
    assert "prod" in kept["trusted"]
    lockgate("attest", "keys", "--rotate", "--revoke")
    [kept] = lockgate("attest", "show", judged, "--json")
    assert kept["trusted"] == []
    assert "--rotate" in lockgate("attest", "keys", "--revoke", code=2)
