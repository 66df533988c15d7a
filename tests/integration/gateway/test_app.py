"""The front door: whose path it is, health, metrics of all workers, and a control plane that comes and goes."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from lockgate.gateway.shared_metrics import SharedMetrics
from lockgate.runs import control_socket
from lockgate.telemetry.metrics import Registry
from lockgate.testing import FakeModelServer, Reply

if TYPE_CHECKING:
    from pathlib import Path

    from conftest import RunningGateway


def ask(gateway: RunningGateway, path: str, *, method: str = "GET", body: bytes | None = None, **headers: str) -> Any:
    """``(status, headers, body)``."""
    request = urllib.request.Request(gateway.url + path, body, headers, method=method)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def test_a_call_that_a_stop_cuts_off_is_told_so(gateway: RunningGateway, model: FakeModelServer) -> None:
    model.respond = lambda _: Reply(text="too late", latency=60.0)
    key, answers = gateway.key(), list[Any]()
    caller = threading.Thread(target=lambda: answers.append(gateway.ask(key)))
    caller.start()
    model.wait_for_requests(1)
    gateway.stop()
    caller.join(60)
    assert answers[0][0] == 503
    assert "the gateway stops" in json.loads(answers[0][2])["error"]["message"]


class Control:
    """A control plane's socket: says what it was asked; ``/events`` streams until told to go on."""

    def __init__(self, home: Path) -> None:
        self.go_on = threading.Event()
        self._path = control_socket(home)
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(60)

    def stop(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(60)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        app = web.Application()
        app.router.add_get("/events", self._events)
        app.router.add_route("*", "/{rest:.*}", self._echo)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        self._loop.run_until_complete(runner.setup())
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._loop.run_until_complete(web.UnixSite(runner, str(self._path)).start())
        self._ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())
        self._loop.close()

    async def _echo(self, request: web.Request) -> web.Response:
        told = {
            "method": request.method,
            "path": request.raw_path,
            "headers": {name.lower(): value for name, value in request.headers.items()},
            "body": (await request.read()).decode(),
        }
        return web.json_response(told, status=418, headers={"x-from": "control"})

    async def _events(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b"data: first\n\n")
        await asyncio.to_thread(self.go_on.wait, 60)
        await response.write(b"data: second\n\n")
        return response


@pytest.fixture
def control_plane(gateway: RunningGateway) -> Iterator[Control]:
    control = Control(gateway.app.home)
    yield control
    control.stop()


def test_a_head_says_how_long_the_control_planes_answer_would_be(
    gateway: RunningGateway, control_plane: Control
) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", gateway.listener_port, timeout=60)
    connection.request("HEAD", "/page")
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (418, b"")
    assert int(answer.headers["content-length"]) > 0
    connection.close()


def test_health_and_ready_need_no_key(gateway: RunningGateway) -> None:
    assert ask(gateway, "/health")[0] == 200
    assert ask(gateway, "/ready")[0] == 200


@pytest.mark.parametrize("path", ["/health", "/ready"])
def test_a_monitor_may_ask_for_the_head_alone(gateway: RunningGateway, path: str) -> None:
    """Without a control plane: it is not asked."""
    status, headers, body = ask(gateway, path, method="HEAD")
    assert (status, headers["content-type"], body) == (200, "application/json", b"")


def test_the_address_itself_says_what_is_there_and_needs_no_key(gateway: RunningGateway) -> None:
    status, _, body = ask(gateway, "/")
    assert status == 200
    told = json.loads(body)
    assert told["name"] == "lockgate"
    assert "/v1/chat/completions" in told["calls"]
    assert ask(gateway, told["health"])[0] == 200


def test_a_worker_that_cannot_read_the_store_is_healthy_but_not_ready(gateway: RunningGateway) -> None:
    assert gateway.worker is not None
    directory = gateway.worker._directory
    directory.stop()
    directory.read_at = time.time() - 61
    assert ask(gateway, "/health")[0] == 200
    assert ask(gateway, "/ready")[0] == 503


@pytest.mark.parametrize("path", ["/api/v1/alerts", "/api/v1/rollouts", "/api/docs?x=1"])
def test_without_a_control_plane_its_paths_are_unavailable_and_the_data_planes_are_not(
    gateway: RunningGateway, path: str
) -> None:
    status, headers, body = ask(gateway, path)
    told = json.loads(body)
    assert status == 503
    assert headers["retry-after"] == "1"
    assert "the control plane does not answer" in (told.get("detail") or told["error"]["message"])
    assert ask(gateway, "/health")[0] == 200


def test_what_is_not_the_data_planes_is_passed_to_the_control_plane(
    gateway: RunningGateway, control_plane: Control
) -> None:
    status, headers, body = ask(
        gateway, "/api/v1/x%20y%3Fz?a=b%20c", method="PUT", body=b"hello", authorization="Bearer k", x_other="1"
    )
    told = json.loads(body)
    assert (status, headers["x-from"]) == (418, "control")
    assert (told["method"], told["path"], told["body"]) == ("PUT", "/api/v1/x%20y%3Fz?a=b%20c", "hello")
    assert told["headers"]["authorization"] == "Bearer k"
    assert told["headers"]["x-request-id"] == headers["x-request-id"]


def test_no_path_can_smuggle_a_second_request(gateway: RunningGateway, control_plane: Control) -> None:
    status, _, body = ask(gateway, "/x%20HTTP/1.1%0d%0ahost:%20x%0d%0a%0d%0aGET%20/y")
    assert (status, body) == (404, b"404: Not Found")  # one request, for a path with line ends in it
    assert ask(gateway, "/z")[0] == 418


def test_a_stream_of_the_control_plane_comes_through_as_it_is_made(
    gateway: RunningGateway, control_plane: Control
) -> None:
    with urllib.request.urlopen(gateway.url + "/events", timeout=60) as answer:
        assert answer.readline() == b"data: first\n"
        control_plane.go_on.set()
        assert answer.read() == b"\ndata: second\n\n"


def test_a_control_plane_that_comes_back_is_found_again(gateway: RunningGateway) -> None:
    assert ask(gateway, "/api/v1/x")[0] == 503
    control = Control(gateway.app.home)
    try:
        assert ask(gateway, "/api/v1/x")[0] == 418
    finally:
        control.stop()
    assert ask(gateway, "/api/v1/x")[0] == 503


@pytest.mark.parametrize(
    ("path", "remedy"), [("/v1/chat/completions", "send POST"), ("/v1/completions", "see docs/gateway.md")]
)
def test_what_there_is_not_below_v1_is_said_as_clients_of_models_read_it(
    gateway: RunningGateway, control_plane: Control, path: str, remedy: str
) -> None:
    status, _, body = ask(gateway, path)
    told = json.loads(body)["error"]
    assert (status, told["type"]) == (404, "not_found_error")
    assert f"there is no GET '{path}'" in told["message"]
    assert remedy in told["message"]


def test_a_bug_in_one_request_is_told_with_its_id_and_hurts_no_other(
    gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(SharedMetrics, "render", lambda _: 1 / 0)
    status, headers, body = ask(gateway, "/metrics")
    assert status == 500
    assert headers["x-request-id"] in json.loads(body)["detail"]
    assert "ZeroDivisionError" not in body.decode()
    assert "ZeroDivisionError" in caplog.text
    assert ask(gateway, "/health")[0] == 200


@pytest.mark.parametrize(
    ("path", "start"), [("/api/v1/agents/triage/runs", b'{"input":'), ("/v1/holds", b'{"what":"x","usd":1,"more":')]
)
def test_a_body_nested_too_deep_is_an_error_of_its_sender(gateway: RunningGateway, path: str, start: bytes) -> None:
    gateway.route()
    body = start + b"[" * 2_000 + b"]" * 2_000 + b"}"
    status, _, said = ask(gateway, path, method="POST", body=body, authorization=f"Bearer {gateway.key()}")
    assert (status, b"the body is wrong" in said) == (400, True), said


def test_metrics_of_all_workers_are_added_up(tmp_path: Path) -> None:
    shared = []
    for index in range(2):
        registry = Registry()
        registry.counter("things_total", "Things.").add(3 + index)
        shared.append(SharedMetrics(registry, tmp_path / "metrics", index))
        (tmp_path / "metrics").mkdir(exist_ok=True)
        shared[-1]._write()
    assert "things_total 7" in shared[0].render()
    assert "things_total 7" in shared[1].render()
