"""Customers write to a gateway, here to one that answers what the test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from lockgate.demo.traffic import Customers, Message, read_messages

Answer = tuple[int, Any]
MESSAGES = [Message(id=f"m{number}", message=f"message {number}") for number in range(3)]


class Gateway:
    """Answers runs; keeps what was asked and how many were under way at once."""

    def __init__(self, answer: Callable[[str], Answer]) -> None:
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with gateway._lock:
                    gateway.asked.append(
                        (body["input"], self.headers["x-lockgate-session"], self.headers["authorization"])
                    )
                    gateway._now += 1
                    gateway.most_at_once = max(gateway.most_at_once, gateway._now)
                time.sleep(0.005)
                status, answered = answer(body["input"])
                content = answered if isinstance(answered, bytes) else json.dumps(answered).encode()
                with gateway._lock:
                    gateway._now -= 1
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def gateway() -> Iterator[Callable[[Callable[[str], Answer]], Gateway]]:
    opened: list[Gateway] = []

    def make(answer: Callable[[str], Answer]) -> Gateway:
        opened.append(Gateway(answer))
        return opened[-1]

    yield make
    for one in opened:
        one.close()


def _completed(cost_nano: int = 1000) -> Answer:
    return 200, {"status": "completed", "cost_nano": cost_nano}


def _write(customers: Customers, until: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    with customers.writing():
        while not until() and time.monotonic() < deadline:
            time.sleep(0.002)


def test_customers_write_in_turn_each_in_a_session_of_its_own(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: _completed())
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=2)

    _write(customers, lambda: customers.served >= 7)

    sessions = [session for _, session, _ in server.asked]
    assert len(set(sessions)) == len(sessions)
    assert {text for text, _, _ in server.asked} == {"message 0", "message 1", "message 2"}
    assert {key for _, _, key in server.asked} == {"Bearer lg_key"}
    assert server.most_at_once <= 2
    assert customers.unserved == []


def test_everyone_who_wrote_is_answered_when_the_block_ends(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: _completed())
    customers = Customers(server.url, "lg_key", "triage", MESSAGES)

    _write(customers, lambda: customers.served >= 3)

    assert customers.served == len(server.asked)


def test_they_go_on_with_new_sessions_when_they_write_again(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: _completed())
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)
    _write(customers, lambda: customers.served >= 2)
    _write(customers, lambda: customers.served >= 5)

    sessions = [session for _, session, _ in server.asked]
    assert len(set(sessions)) == len(sessions)


def test_a_run_that_waits_for_an_approval_is_served(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: (202, {"status": "suspended", "cost_nano": 500}))
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)

    _write(customers, lambda: customers.served >= 2)

    assert customers.answers["suspended"] == customers.served
    assert customers.mean_cost_usd == pytest.approx(500e-9)


def test_a_refusal_is_kept_with_what_the_gateway_said(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: (429, {"detail": "the daily budget is spent"}))
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)

    _write(customers, lambda: bool(customers.unserved))

    assert customers.served == 0
    assert customers.unserved[0] == "429: the daily budget is spent"
    assert customers.refusals[0] == customers.unserved[0]


def test_a_run_that_failed_is_not_served_and_says_why(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: (200, {"status": "failed", "error_type": "output_invalid", "error": "no JSON"}))
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)

    _write(customers, lambda: bool(customers.refusals))

    assert customers.served == 0
    assert customers.refusals[0] == "output_invalid: no JSON"


def test_a_gateway_that_is_away_leaves_customers_unserved_and_does_not_end_the_story(
    gateway: Callable[..., Gateway],
) -> None:
    server = gateway(lambda text: _completed())
    server.close()
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)

    _write(customers, lambda: bool(customers.unserved))

    assert customers.served == 0
    assert customers.mean_cost_usd == 0


def test_an_answer_that_is_no_json_is_shown_as_it_came(gateway: Callable[..., Gateway]) -> None:
    server = gateway(lambda text: (502, b"<html>bad gateway"))
    customers = Customers(server.url, "lg_key", "triage", MESSAGES)

    assert customers.send("hello", session="one") == (502, {"detail": "<html>bad gateway"})


def test_the_mean_cost_is_that_of_the_last_hundred_answers(gateway: Callable[..., Gateway]) -> None:
    costs = iter([10_000] * 5 + [1_000] * 1000)
    server = gateway(lambda text: _completed(next(costs)))
    customers = Customers(server.url, "lg_key", "triage", MESSAGES, at_once=1)

    _write(customers, lambda: customers.served >= 105)

    assert customers.mean_cost_usd == pytest.approx(1e-6)


def test_a_line_that_is_no_message_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "messages.jsonl"
    path.write_text('{"id": "one", "message": "hello"}\n\n{"id": "two"}\n')

    with pytest.raises(msgspec.ValidationError, match="message"):
        read_messages(path)
