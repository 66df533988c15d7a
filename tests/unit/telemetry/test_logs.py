"""What processes say on standard error."""

from __future__ import annotations

import json
import logging

import pytest

from lockgate.telemetry import logs


def record(message: str, *arguments: object, **extra: object) -> logging.LogRecord:
    made = logging.makeLogRecord({"name": "lockgate.x", "levelno": 30, "levelname": "WARNING", "msg": message})
    made.args = arguments
    made.__dict__.update(extra)
    return made


def test_a_json_line_says_what_it_is_about() -> None:
    token = logs.current.set((b"\xab" * 16, "req_1"))
    try:
        line = json.loads(logs.JsonLines("gateway-0").format(record("%d calls\nwaited", 3, status=200)))
    finally:
        logs.current.reset(token)
    assert (line["level"], line["process"], line["message"]) == ("warning", "gateway-0", "3 calls\nwaited")
    assert (line["trace_id"], line["request_id"], line["status"]) == ("ab" * 16, "req_1", 200)
    assert line["time"].endswith("+00:00")


@pytest.mark.parametrize("formatter", [logs.JsonLines("x"), logs.Lines("x")])
def test_secrets_do_not_get_into_logs(formatter: logging.Formatter) -> None:
    said = formatter.format(record("refused %s", "sk-abcdefghijklmnop1234", header="Bearer abcdefgh12345678"))
    assert "sk-abcdefgh" not in said
    assert "abcdefgh12345678" not in said


def test_an_exception_is_one_line_and_valid_json_whatever_it_holds() -> None:
    try:
        raise ValueError('half "quoted" \ud83d')
    except ValueError as error:
        made = record("failed")
        made.exc_info = (ValueError, error, error.__traceback__)
    line = logs.JsonLines("x").format(made)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["exception"]


def test_the_format_is_what_the_parent_said(monkeypatch: pytest.MonkeyPatch) -> None:
    root = logging.getLogger()
    before = root.handlers[:]
    try:
        monkeypatch.setenv(logs.FORMAT_VARIABLE, "json")
        logs.configure("control")
        assert isinstance(root.handlers[0].formatter, logs.JsonLines)
        monkeypatch.setenv(logs.FORMAT_VARIABLE, "text")
        logs.configure("control")
        assert isinstance(root.handlers[0].formatter, logs.Lines)
    finally:
        root.handlers[:] = before


def test_what_a_message_quotes_begins_no_line_and_steers_no_terminal() -> None:
    said = logs.Lines("gateway-0").format(record("GET %s", "/a\ngateway-0: INFO forged \x1b[2J\u202e é"))
    assert said == "gateway-0: WARNING GET /a\\ngateway-0: INFO forged \\x1b[2J\\u202e é"
