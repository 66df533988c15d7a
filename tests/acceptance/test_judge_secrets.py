"""The judge's key and the embedding provider's are found nowhere, though both providers repeat them."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.acceptance.judging import Models, write_project
from typer.testing import CliRunner

from lockgate.cli import app
from lockgate.testing import FakeModelServer, failing
from lockgate.testing.replies import ModelRequest

CANARY = "planted0judge1key2without3shape"


class Leaky(Models):
    """Repeats the key it was sent: as an error, in its reasons, or instead of a verdict."""

    def __init__(self) -> None:
        super().__init__()
        self.how = "in its reasons"
        self.seen = 0

    def __call__(self, request: ModelRequest) -> Any:
        key = request.headers.get("authorization", "")
        if request.body["model"].startswith("agent"):
            return super().__call__(request)
        self.seen += CANARY in key
        if self.how == "as an error":
            return failing(401, f"no such key: {key}")
        if self.how == "instead of a verdict":
            return f"I was called with {key}"
        said = json.loads(super().__call__(request))
        return json.dumps({**said, "reason": f"I was called with {key}"})


@pytest.fixture
def models() -> Leaky:
    return Leaky()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: Leaky) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.setenv("JUDGE_KEY", CANARY)
    monkeypatch.chdir(tmp_path)
    with FakeModelServer(models) as server:
        write_project(tmp_path, server, cases=12)
        (tmp_path / "lockgate.yaml").write_text(
            "project: p\nprices: prices.yaml\nproviders:\n"
            f"  fake: {{kind: openai, base_url: '{server.base_url}'}}\n"
            f"  grader: {{kind: openai, base_url: '{server.base_url}', api_key: '${{env:JUDGE_KEY}}'}}\n"
        )
        with (tmp_path / "prices.yaml").open("a") as prices:
            prices.write("grader: {judge-2026-01-01: {input: 1.0, output: 2.0}}\n")
        for agent in (tmp_path / "agents").glob("*.yaml"):
            agent.write_text(agent.read_text().replace("judge: {provider: fake", "judge: {provider: grader"))
        yield tmp_path


@pytest.mark.parametrize("how", ["in its reasons", "as an error", "instead of a verdict"])
def test_a_key_that_a_judge_repeats_is_in_no_output_log_report_or_database(
    project: Path, models: Leaky, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    models.how = how
    lines = [json.dumps({"input": f"q-{n}", "output": f"Gladly! {n % 3}", "label": n % 2}) for n in range(4)]
    (project / "labels.jsonl").write_text("\n".join(lines) + "\n")
    shown = []
    for command in (
        "lock",
        "eval --agent support@1 --markdown card.md --html card.html --junit card.xml --log card.eval",
        "report --format html --output report.html",
        "report --json",
        "judge calibrate --agent support@1 --metric helpfulness --labels labels.jsonl",
        "judge list --json",
        "ab support@1 support@2 --json",
        "annotate sample --agent support@1 --metric helpfulness --count 4",
        "annotate next --as ana",
        "golden lint evals/golden/support.jsonl --embeddings grader:judge-2026-01-01",
    ):
        result = CliRunner().invoke(app, command.split())
        assert result.exception is None or isinstance(result.exception, SystemExit), (command, result.exception)
        shown.append(result.output)
    assert models.seen > 0
    assert [text for text in shown if CANARY in text] == []
    assert CANARY not in caplog.text
    found = [path for path in project.rglob("*") if path.is_file() and CANARY.encode() in path.read_bytes()]
    assert found == []
    if how == "in its reasons":
        assert "I was called with" in (project / "card.html").read_text()
