"""A provider's key, and the secrets in its headers: in no answer, span or file; a slow secret store holds up nobody."""

from __future__ import annotations

import asyncio
import json
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lockgate.errors import Unavailable
from lockgate.gateway import providers
from lockgate.gateway.providers import Providers
from lockgate.project.service import load_project
from lockgate.testing import FakeModelServer, Reply, failing

if TYPE_CHECKING:
    from conftest import RunningGateway

CANARY = "planted0canary1/value2without3shape"
HEADER = "planted0header1/value2without3shape"


@pytest.fixture
def project_folder(tmp_path: Path, model: FakeModelServer, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACME_KEY", CANARY)
    monkeypatch.setenv("ACME_HEADER", HEADER)
    root = tmp_path / "project"
    root.mkdir()
    (root / "prices.yaml").write_text("fake: {fake-model: {input: 1.0, output: 2.0}}\n")
    (root / "lockgate.yaml").write_text(
        f"project: test\nprices: prices.yaml\nproviders:\n  fake: {{kind: openai, base_url: '{model.base_url}', "
        "timeout: 60, api_key: '${env:ACME_KEY}', headers: {x-account: '${env:ACME_HEADER}'}}\n"
    )
    return root


@pytest.mark.parametrize("status", [400, 401, 429, 500, 504])
def test_a_key_that_a_provider_repeats_reaches_neither_the_client_nor_the_trace(
    gateway: RunningGateway, model: FakeModelServer, status: int
) -> None:
    # the second one stands where the span's text is cut
    model.respond = lambda request: failing(
        status, f"no {request.headers['authorization']} {request.headers['x-account']} {'x' * 390} {CANARY} {HEADER}"
    )
    body = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}]}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {gateway.key()}", "content-type": "application/json"},
    )
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=60)
    said = raised.value.read() + repr(raised.value.headers.items()).encode()
    assert model.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert b"planted0" not in said
    spans = gateway.spans()
    assert len(spans) == len(model.requests)
    assert "planted0" not in repr(spans)
    home = gateway.app.home
    assert [path for path in home.rglob("*") if path.is_file() and b"planted0" in path.read_bytes()] == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_key_in_a_good_answer_or_in_a_stream_is_masked_and_the_rest_passes_as_it_is(
    gateway: RunningGateway, model: FakeModelServer, stream: bool
) -> None:
    half = len(CANARY) // 2
    event = json.dumps({"error": {"message": f"quota of {CANARY} is used"}}).encode()
    began = b'data: {"id": "1", "choices": [{"index": 0, "delta": {"content": "hi"}}]}\n\n'
    event = event.replace(b"is used", b"is used by " + HEADER.encode())
    parts = (began, b"data: " + event[: 30 + half], event[30 + half :] + b"\n\n", b"data: [DONE]\n\n")
    if stream:
        model.respond = lambda _: Reply(text="", events=parts, chunk_latency=0.1)
    else:
        model.respond = lambda _: f"your key is {CANARY}, keep it, {HEADER}"
    body = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}], "stream": stream}
    request = urllib.request.Request(
        f"{gateway.url}/v1/chat/completions",
        json.dumps(body).encode(),
        {"authorization": f"Bearer {gateway.key()}", "content-type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=60) as answered:
        said = answered.read()
    assert b"planted0" not in said
    assert b"[redacted]" in said
    if stream:
        assert said.startswith(began + b"data: " + event[:20])
    else:
        assert json.loads(said)["choices"][0]["message"]["content"] == "your key is [redacted], keep it, [redacted]"
    assert "planted0" not in repr(gateway.spans())


def test_a_slow_secret_store_holds_up_neither_the_loop_nor_calls_that_know_the_key(
    project_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (project_folder / "lockgate.yaml").read_text()
    (project_folder / "lockgate.yaml").write_text(text.replace("${env:ACME_KEY}", "${vault:secret/llm#key}"))
    now, asked, answers = [1000.0], [0], threading.Event()
    down = [False]

    def slow(reference: str | None, root: Path) -> str:
        asked[0] += 1
        assert answers.wait(60)
        if down[0]:
            raise Unavailable("the store is down")
        return f"key-number-{asked[0]}"

    monkeypatch.setattr(providers, "resolve_secret", slow)

    async def scenario() -> None:
        ours = Providers(load_project(project_folder), lambda: now[0])
        callers = [asyncio.create_task(ours.target("dev", "fake")) for _ in range(20)]
        began = time.monotonic()
        await asyncio.sleep(0.05)  # the loop goes on
        assert time.monotonic() - began < 30
        assert not any(caller.done() for caller in callers)
        callers[0].cancel()
        answers.set()
        keys = {target.key for target in await asyncio.gather(*callers[1:])}
        assert (keys, asked[0]) == ({"key-number-1"}, 1)

        answers.clear()
        now[0] += 6.0
        assert (await ours.target("dev", "fake")).key == "key-number-1"  # at once, and asks behind it
        answers.set()
        await asyncio.gather(*ours._asking.values())
        now[0] += 5.0
        assert (await ours.target("dev", "fake")).key == "key-number-2"
        await asyncio.gather(*ours._asking.values())

        down[0] = True
        now[0] += 60.0
        with pytest.raises(Unavailable):
            await ours.target("dev", "fake")

    asyncio.run(scenario())
