"""Gives a framework inside a run an OpenAI-compatible address for its model calls, which thereby are the run's steps.

It serves ``POST /v1/chat/completions`` on the loopback interface, for one run, under a key of that run's own. Streams
are answered with the whole answer as one event: the model itself is asked without streaming, as every step is.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import msgspec
from aiohttp import web

from lockgate.errors import LockgateError, RunFailed
from lockgate.runtime.context import RunContext
from lockgate.runtime.model import Completion, Suspend, wire_name

LARGEST_REQUEST = 16 * 1024 * 1024

_OURS = ("model", "messages", "tools", "response_format", "n", "stream", "stream_options", "max_completion_tokens")
_LIMITS = ("_exceeded", "rate_limited")


class Address(NamedTuple):
    """Where the framework asks, and its key there."""

    base_url: str
    api_key: str


@asynccontextmanager
async def model_address(ctx: RunContext) -> AsyncIterator[Address]:
    """Serve for as long as the block lasts."""
    key = f"run-{secrets.token_urlsafe(24)}"

    async def complete(request: web.Request) -> web.Response:
        if not hmac.compare_digest(request.headers.get("authorization", ""), f"Bearer {key}"):
            return _problem(401, "unauthenticated", "this address is another run's")
        try:
            body = msgspec.json.decode(await request.read(), type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeError) as error:
            return _problem(400, "invalid_request", f"the body is no JSON object: {error}")
        return await _answer(ctx, body)

    async def complete_and_close(request: web.Request) -> web.Response:
        response = await complete(request)
        response.force_close()  # the address ends with the run: a client that is kept must keep no connection to it
        return response

    app = web.Application(client_max_size=LARGEST_REQUEST)
    app.router.add_post("/v1/chat/completions", complete_and_close)
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        port = runner.addresses[0][1]
        yield Address(f"http://127.0.0.1:{port}/v1", key)
    finally:
        await runner.cleanup()


async def _answer(ctx: RunContext, body: dict[str, Any]) -> web.Response:
    if problem := _request_problem(ctx, body):
        return _problem(400, "invalid_request", problem)
    extra = {name: value for name, value in body.items() if name not in _OURS and value is not None}
    if (wanted := body.get("max_completion_tokens")) is not None:
        extra["max_tokens"] = wanted
    try:
        completion = await ctx.model(
            body["messages"], tools=body.get("tools") or (), response_format=body.get("response_format"), **extra
        )
    except Suspend:
        return _problem(409, "approval_pending", "the run waits for an approval")
    except RunFailed as failure:
        status = 429 if failure.error_type.endswith(_LIMITS) else 502
        return _problem(status, failure.error_type, failure.message)
    except LockgateError as error:
        return _problem(409, error.code, error.message)
    answer = _completion(ctx, completion)
    if not body.get("stream"):
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")
    usage = bool((body.get("stream_options") or {}).get("include_usage"))
    return web.Response(body=_events(answer, usage=usage), content_type="text/event-stream")


def _request_problem(ctx: RunContext, body: dict[str, Any]) -> str | None:
    model = ctx.version.model
    if body.get("model") not in (wire_name(model), model.name):
        return f"the agent's version names model {wire_name(model)!r}, and its code asks for {body.get('model')!r}"
    if not isinstance(body.get("messages"), list):
        return "messages is not a list"
    if body.get("n") not in (None, 1):
        return "n must be 1: a step has one answer"
    return None


def _completion(ctx: RunContext, completion: Completion) -> dict[str, Any]:
    usage = completion.usage
    return {
        "id": f"{ctx.run_id or 'run'}-{ctx.journal.position}",
        "object": "chat.completion",
        "created": 0,
        "model": completion.model_served,
        "choices": [{"index": 0, "message": completion.message, "finish_reason": completion.finish_reason}],
        "usage": {
            "prompt_tokens": usage.input_tokens,
            "completion_tokens": usage.output_tokens,
            "total_tokens": usage.total_tokens,
        },
    }


def _events(answer: dict[str, Any], *, usage: bool) -> bytes:
    choice = answer["choices"][0]
    head = {**answer, "object": "chat.completion.chunk"}
    counted = head.pop("usage")
    calls = choice["message"].get("tool_calls")
    delta = {"role": "assistant", "content": choice["message"].get("content")}
    if calls:
        delta["tool_calls"] = [{"index": index, **call} for index, call in enumerate(calls)]
    events = [
        {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]},
        {**head, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]},
    ]
    if usage:
        events.append({**head, "choices": [], "usage": counted})
    return b"".join(b"data: " + msgspec.json.encode(event) + b"\n\n" for event in events) + b"data: [DONE]\n\n"


def _problem(status: int, code: str, message: str) -> web.Response:
    error = {"message": message, "type": "run_failed", "param": None, "code": code}
    return web.Response(
        body=msgspec.json.encode({"error": error}),
        status=status,
        content_type="application/json",
        headers={"x-should-retry": "false"},  # the run itself decides what is tried again
    )
