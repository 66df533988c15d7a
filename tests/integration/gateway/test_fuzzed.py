"""The whole HTTP API, data plane and control plane behind one URL, under schemathesis: nothing it sends is a 500."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lockgate.bootstrap import App
from lockgate.project.service import load_project
from lockgate.testing import FakeModelServer

pytestmark = pytest.mark.integration_only

SECONDS = 45


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    with FakeModelServer("hello") as model:
        (tmp_path / "prices.yaml").write_text(
            "fake: {fake-model: {input: 1.0, output: 2.0}}\nclaude: {fake-model: {input: 1.0, output: 2.0}}\n"
        )
        (tmp_path / "lockgate.yaml").write_text(
            "project: test\nprices: prices.yaml\nproviders:\n"
            f"  fake: {{kind: openai, base_url: '{model.base_url}', timeout: 5, retries: 0}}\n"
            f"  claude: {{kind: anthropic, base_url: '{model.base_url}', timeout: 5, retries: 0}}\n"
        )
        yield tmp_path


@pytest.fixture
def url(root: Path) -> Iterator[str]:
    log = root / "up.log"
    with log.open("w") as said:
        up = subprocess.Popen(
            [sys.executable, "-m", "lockgate", "up", "--port", "0", "--workers", "1", "--drain", "1"],
            cwd=root,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + 60
        while not (found := re.search(r"up at (\S+)[\s\S]*Ready in", log.read_text())):
            assert up.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield found[1]
        assert up.poll() is None
    finally:
        up.terminate()
        up.wait(60)


def document(url: str) -> dict[str, object]:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(f"{url}/api/openapi.json", timeout=60) as answer:
                return dict(json.loads(answer.read()))
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_no_request_makes_the_api_fail(root: Path, url: str) -> None:
    text = json.dumps(document(url))
    named = '"enum": ["fake/fake-model", "claude/fake-model", "nobody/nothing", "agent:nobody"]'
    text = text.replace(
        '"description": "`provider/name`; on chat', f'{named}, "description": "`provider/name`; on chat'
    )
    assert named in text
    (root / "openapi.json").write_text(text)
    key = App(load_project(root)).keys.create(tenant="acme", environment="dev", roles=["admin"])[0]
    schemathesis = [str(Path(sys.executable).with_name("schemathesis")), "run", str(root / "openapi.json")]
    options = ["--url", url, "--header", f"authorization: Bearer {key}", "--phases", "coverage,fuzzing"]
    options += ["--checks", "not_a_server_error,status_code_conformance", "--max-time", str(SECONDS), "--seed", "5"]
    options += ["--max-examples", "20", "--workers", "1", "--request-timeout", "60", "--generation-database", "none"]
    done = subprocess.run([*schemathesis, *options], cwd=root, capture_output=True, text=True, timeout=280, check=False)
    # Not its exit code: the tool now and then stumbles over an example of its own.
    found = re.search(r"(\d+) generated, (\d+) passed$", done.stdout, re.MULTILINE)
    told = done.stdout.partition("FAILURES ===")[2][:5000] or done.stdout[-5000:]
    assert found, told
    assert found[1] == found[2], told
    assert int(found[1]) > 200
    assert "Traceback" not in (root / "up.log").read_text()
