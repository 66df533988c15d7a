"""Asking a local server for its tags, on a real socket: an answer, or nothing, and never a wait."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from lockgate.versions.resolve import digest_for, ollama_digests

TAGS = {"models": [{"name": "llama3.1:70b", "digest": "ab" * 32}, {"name": "plain:latest", "digest": "cd" * 32}]}


@contextmanager
def server(body: bytes, status: int = 200) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status if self.path == "/api/tags" else 404)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.server_port}/v1"
    finally:
        listening.shutdown()
        thread.join(60)
        listening.server_close()


def test_tags_become_digests() -> None:
    with server(json.dumps(TAGS).encode()) as url:
        digests = ollama_digests(url, timeout=20)
    assert digests is not None
    assert digest_for("llama3.1:70b", digests) == "sha256:" + "ab" * 32
    assert digest_for("plain", digests) == "sha256:" + "cd" * 32
    assert digest_for("absent", digests) is None


@pytest.mark.parametrize(
    ("body", "status"), [(b"{}", 200), (b"<html>", 200), (b'{"models": 3}', 200), (b'{"models": [3]}', 200), (b"", 500)]
)
def test_something_that_is_no_ollama_is_no_answer(body: bytes, status: int) -> None:
    with server(body, status) as url:
        assert ollama_digests(url) is None


def test_nobody_there_and_a_server_that_never_answers_are_no_answer() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        assert ollama_digests(f"http://127.0.0.1:{silent.getsockname()[1]}/v1", timeout=0.05) is None
        port = silent.getsockname()[1]
    assert ollama_digests(f"http://127.0.0.1:{port}/v1", timeout=0.05) is None


def test_hosted_providers_are_not_asked() -> None:
    assert ollama_digests("https://127.0.0.1:1/v1") is None
