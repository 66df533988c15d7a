"""How a fake model's reply looks in protocols beside chat completions.

OpenAI's responses and embeddings, reranking, and Anthropic's messages.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from lockgate.testing.replies import ModelRequest, Reply, chunks, completion, usage_of

_STOP = {"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}


class Wire(NamedTuple):
    """A protocol of the fake server: a whole answer, and a stream where there is one."""

    answer: Callable[[ModelRequest, Reply], dict[str, Any]]
    stream: Callable[[ModelRequest, Reply], Iterator[bytes]] | None = None


def _event(kind: str, **fields: Any) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n".encode()


# --- Anthropic's messages -------------------------------------------------------------------------------------


def message(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """An Anthropic message."""
    usage = usage_of(request, reply)
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text is not None else []
    for index, tool in enumerate(reply.tool_calls):
        made = {"type": "tool_use", "id": tool.id or f"toolu_{index}", "name": tool.name}
        content.append({**made, "input": tool.arguments})
    reason = reply.finish_reason or ("tool_use" if reply.tool_calls else "end_turn")
    answer: dict[str, Any] = {
        "id": "msg_fake",
        "type": "message",
        "role": "assistant",
        "model": reply.model or request.model,
        "content": content,
        "stop_reason": _STOP.get(reason, reason),
        "stop_sequence": None,
    }
    if reply.report_usage:
        answer["usage"] = {
            "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
            "output_tokens": usage.output_tokens,
            "cache_read_input_tokens": usage.cached_tokens,
            "cache_creation_input_tokens": usage.cache_write_tokens,
        }
    return answer


def message_events(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    """The events of a streamed message: one delta a word."""
    whole = message(request, reply)
    usage = whole.get("usage") or {}
    head = {**whole, "content": [], "stop_reason": None, "usage": {**usage, "output_tokens": 1}}
    yield _event("message_start", message=head)
    for index, block in enumerate(whole["content"]):
        is_text = block["type"] == "text"
        empty = {"type": "text", "text": ""} if is_text else {**block, "input": {}}
        yield _event("content_block_start", index=index, content_block=empty)
        yield _event("ping")
        if is_text:
            for word in _words(block["text"]):
                yield _event("content_block_delta", index=index, delta={"type": "text_delta", "text": word})
        else:
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
            yield _event("content_block_delta", index=index, delta=delta)
        yield _event("content_block_stop", index=index)
    counted = {"usage": {"output_tokens": usage["output_tokens"]}} if usage else {}
    yield _event("message_delta", delta={"stop_reason": whole["stop_reason"], "stop_sequence": None}, **counted)
    yield _event("message_stop")


def _count(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    return {"input_tokens": usage_of(request, reply).input_tokens}


# --- OpenAI's responses ---------------------------------------------------------------------------------------


def response(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """An OpenAI response."""
    usage = usage_of(request, reply)
    output: list[dict[str, Any]] = []
    if reply.text is not None:
        part = {"type": "output_text", "text": reply.text, "annotations": []}
        told = {"type": "message", "id": "msg_fake", "status": "completed", "role": "assistant"}
        output.append({**told, "content": [part]})
    for index, tool in enumerate(reply.tool_calls):
        made = {"type": "function_call", "id": f"fc_{index}", "call_id": tool.id or f"call_{index}"}
        output.append({**made, "name": tool.name, "arguments": json.dumps(tool.arguments), "status": "completed"})
    answer: dict[str, Any] = {
        "id": "resp_fake",
        "object": "response",
        "created_at": 0,
        "status": "completed",
        "error": None,
        "model": reply.model or request.model,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    if reply.report_usage:
        answer["usage"] = {
            "input_tokens": usage.input_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens},
            "output_tokens": usage.output_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.total_tokens,
        }
    return answer


def response_events(request: ModelRequest, reply: Reply) -> Iterator[bytes]:
    """The events of a streamed response: one delta a word."""
    whole = response(request, reply)
    number = 0

    def event(kind: str, **fields: Any) -> bytes:
        nonlocal number
        number += 1
        return _event(kind, sequence_number=number - 1, **fields)

    yield event("response.created", response={**whole, "status": "in_progress", "output": [], "usage": None})
    for index, item in enumerate(whole["output"]):
        yield event("response.output_item.added", output_index=index, item={**item, "status": "in_progress"})
        if item["type"] == "message":
            at = {"item_id": item["id"], "output_index": index, "content_index": 0}
            yield event("response.content_part.added", **at, part={**item["content"][0], "text": ""})
            for word in _words(reply.text or ""):
                yield event("response.output_text.delta", **at, delta=word, logprobs=[])
            yield event("response.output_text.done", **at, text=reply.text, logprobs=[])
            yield event("response.content_part.done", **at, part=item["content"][0])
        yield event("response.output_item.done", output_index=index, item=item)
    yield event("response.completed", response=whole)


# --- embeddings, reranking ------------------------------------------------------------------------------------


def embeddings(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """One short vector for each input, the same for the same text."""
    given = request.body.get("input")
    inputs = given if isinstance(given, list) and not all(isinstance(one, int) for one in given) else [given]
    tokens = reply.usage.input_tokens if reply.usage else sum(max(1, len(str(one).split())) for one in inputs)
    data = [{"object": "embedding", "index": index, "embedding": _vector(str(one))} for index, one in enumerate(inputs)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"object": "list", "model": reply.model or request.model, "data": data, "usage": usage}


def _vector(text: str) -> list[float]:
    return [len(text) / 100, sum(text.encode()) % 97 / 97, 0.5]


def ranking(request: ModelRequest, reply: Reply) -> dict[str, Any]:
    """Documents by how many words of the query they hold."""
    query = set(str(request.body.get("query", "")).lower().split())
    documents = [str(one.get("text") if isinstance(one, dict) else one) for one in request.body.get("documents", ())]
    scores = [len(query & set(text.lower().split())) / max(1, len(query)) for text in documents]
    order = sorted(range(len(documents)), key=lambda index: -scores[index])[: request.body.get("top_n")]
    tokens = reply.usage.input_tokens if reply.usage else sum(len(text.split()) for text in documents)
    results = [{"index": index, "relevance_score": scores[index]} for index in order]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"id": "rerank-fake", "model": reply.model or request.model, "results": results, "usage": usage}


def _words(text: str) -> list[str]:
    pieces = text.split(" ")
    return [piece if index == 0 else " " + piece for index, piece in enumerate(pieces)]


WIRES = {
    "/v1/chat/completions": Wire(completion, chunks),
    "/v1/responses": Wire(response, response_events),
    "/v1/embeddings": Wire(embeddings),
    "/v1/rerank": Wire(ranking),
    "/v1/messages": Wire(message, message_events),
    "/v1/messages/count_tokens": Wire(_count),
}
