"""What a call of unknown use cost, asked of its provider afterwards."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from lockgate.bootstrap import App
from lockgate.gateway.figures import Figures
from lockgate.limits.charges import Charge, Used
from lockgate.project.service import load_project
from lockgate.telemetry.model import CLIENT, Span

AT = 1_795_003_200.0
SPAN = bytes.fromhex("00f067aa0ba902b7")


class Provider:
    """Answers GETs with what ``answers`` has for a path, and remembers who asked."""

    def __init__(self) -> None:
        self.answers: dict[str, Any] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers: dict[str, str] = {}
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append((self.path, self.headers.get("authorization")))
                provider.headers = dict(self.headers.items())
                answer = provider.answers.get(self.path)
                if isinstance(answer, str):
                    self.send_response(302)
                    self.send_header("location", answer)
                    self.end_headers()
                    return
                body = json.dumps(answer).encode()
                self.send_response(404 if answer is None else 200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def provider() -> Iterator[Provider]:
    made = Provider()
    yield made
    made.stop()


@pytest.fixture
def app(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> App:
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    (tmp_path / "key").write_text("sk-provider")
    (tmp_path / "prices.yaml").write_text("asked: {m: {input: 1.0, output: 2.0, cached: 0.5}}\n")
    (tmp_path / "lockgate.yaml").write_text(
        "project: test\nprices: prices.yaml\nproviders:\n"
        f"  asked: {{kind: openai, base_url: '{provider.url}', api_key: '${{file:key}}'}}\n"
    )
    return App(load_project(tmp_path))


def figure(app: App, response_id: str | None, model: str = "asked/m") -> Used | None:
    """What is told of a call whose span says this, and which was charged at its bound."""
    attributes = {"lockgate.request_id": "req_1", "lockgate.environment": "dev", "lockgate.tenant": "acme"}
    app.spans.emit(
        Span(
            trace_id=b"1" * 16, span_id=SPAN, parent_id=None, name="chat m", kind=CLIENT, start_ns=int(AT * 1e9),
            end_ns=int(AT * 1e9) + 1, model=model, cost_nano=9_000_000,
            attributes={**attributes, "lockgate.cost_is_bound": True, "gen_ai.response.id": response_id},
        )
    )  # fmt: skip
    assert app.spans.flush(60)
    charge = Charge(SPAN.hex(), AT, "no_usage", ((("tenant:dev:acme", "2026-11-18", "usd"), 9_000_000),), 0)
    return Figures(app.project, app.accounting, app.prices)(charge)


@pytest.mark.parametrize(
    ("response_id", "path", "answer", "used"),
    [
        (
            "resp_1",
            "/v1/responses/resp_1",
            {"usage": {"input_tokens": 1000, "output_tokens": 500}},
            Used(2_000_000, 1500),
        ),
        (
            "chatcmpl-1",
            "/v1/chat/completions/chatcmpl-1",
            {
                "usage": {
                    "prompt_tokens": 1000,
                    "completion_tokens": 500,
                    "prompt_tokens_details": {"cached_tokens": 400},
                }
            },
            Used(1_800_000, 1500),
        ),
        (
            "gen-1",
            "/v1/generation?id=gen-1",
            {"data": {"total_cost": 0.0042, "tokens_prompt": 7, "tokens_completion": 3}},
            Used(4_200_000, 10),
        ),
    ],
)
def test_the_provider_is_asked_by_the_answers_id(
    app: App, provider: Provider, response_id: str, path: str, answer: Any, used: Used
) -> None:
    provider.answers[path] = answer
    assert figure(app, response_id) == used
    assert provider.asked == [(path, "Bearer sk-provider")]


def test_azure_is_asked_with_its_own_kind_of_key_and_the_providers_headers_go_along(
    app: App, provider: Provider
) -> None:
    path = app.project.root / "lockgate.yaml"
    text = path.read_text().replace("kind: openai", "kind: azure, headers: {x-account: '${file:key}'}")
    path.write_text(text)
    provider.answers["/v1/responses/resp_1"] = {"usage": {"input_tokens": 1000, "output_tokens": 500}}
    assert figure(App(load_project(app.project.root)), "resp_1") == Used(2_000_000, 1500)
    told = {name.lower(): value for name, value in provider.headers.items()}
    assert (told["api-key"], told["x-account"]) == ("sk-provider", "sk-provider")
    assert "authorization" not in told


@pytest.mark.parametrize(
    ("response_id", "answer"),
    [
        ("resp_1", None),  # 404: it keeps nothing
        ("resp_1", {"usage": None}),  # it does not know yet
        ("resp_1", {"usage": {"input_tokens": "many"}}),
        ("resp_1", ["no object"]),
        ("resp_1", "http://127.0.0.1:1/elsewhere"),  # a redirect is not followed: the key would go along
    ],
)
def test_what_the_provider_cannot_tell_stays_at_its_bound(
    app: App, provider: Provider, response_id: str, answer: Any
) -> None:
    provider.answers["/v1/responses/resp_1"] = answer
    assert figure(app, response_id) is None
    assert len(provider.asked) == 1


@pytest.mark.parametrize("response_id", [None, "msg_01", "resp_../../files", "resp_1?x=y"])
def test_an_id_that_is_none_is_not_asked_about(app: App, provider: Provider, response_id: str | None) -> None:
    assert figure(app, response_id) is None
    assert provider.asked == []


def test_a_provider_that_is_gone_from_the_project_is_not_asked(app: App) -> None:
    assert figure(app, "resp_1", model="nobody/m") is None
