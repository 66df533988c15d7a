"""A planted secret is found nowhere after lock and eval, not even when the provider repeats it in its error."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.testing import FakeModelServer, failing

CANARY = "planted0canary1value2without3shape"


def test_a_planted_secret_is_in_no_bundle_scorecard_error_or_database(
    acme: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(acme)
    monkeypatch.setenv("ACME_KEY", CANARY)
    (acme / "evals/golden/triage.jsonl").write_text(
        '{"id": "c1", "input": "hello", "expected_output": {"order": "1"}}\n'
    )
    shown = []
    with FakeModelServer() as server:
        server.respond = lambda request: failing(401, f"no such key: {request.headers.get('authorization')}")
        (acme / "lockgate.yaml").write_text(
            "project: acme\nowner: me\nproviders:\n  openai: {kind: openai, "
            f"base_url: '{server.base_url}', api_key: '${{env:ACME_KEY}}'}}\n"
        )
        runner = CliRunner()
        for command in (
            "lock",
            "eval --agent triage --trials 1",
            "versions show triage --env prod",
            "doctor",
            "report",
        ):
            shown.append(runner.invoke(app, command.split()).output)
        assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert all(CANARY not in text for text in shown), [text for text in shown if CANARY in text]
    found = [path for path in acme.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []
