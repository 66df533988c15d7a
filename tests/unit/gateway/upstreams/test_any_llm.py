"""The library ``any-llm`` as an upstream: a stand-in for it that takes what version 1.40 takes."""

from __future__ import annotations

import json
import sys
from collections.abc import AsyncIterator, Iterator
from types import ModuleType
from typing import Any

import pytest

from lockgate.errors import InputError, UpstreamError
from lockgate.gateway.providers import Target
from lockgate.gateway.upstream import Answer
from lockgate.gateway.upstreams import any_llm
from lockgate.project.model import ResolvedProvider

BODY = {"model": "mistral-small", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}
ANSWER = {"id": "c", "choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}


class Made:
    """What the library returns: a pydantic model."""

    def __init__(self, value: dict[str, Any]) -> None:
        self.value = value

    def model_dump_json(self, *, exclude_none: bool) -> str:
        assert exclude_none
        return json.dumps(self.value)


class RateLimitError(Exception):
    retry_after = "3"


class Library:
    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failure: Exception | None = None
        self.takes_options = True

    async def acompletion(self, model: str, messages: list[Any], **options: Any) -> Any:
        self.asked.append({"model": model, **options})
        if options.get("client_args") and not self.takes_options:
            raise TypeError("__init__() got an unexpected keyword argument 'max_retries'")
        if self.failure is not None:
            raise self.failure
        return self._stream() if options.get("stream") else Made(ANSWER)

    async def _stream(self) -> AsyncIterator[Made]:
        yield Made({"id": "c", "choices": [{"delta": {"content": "a"}}]})
        if self.takes_options is None:
            raise ConnectionError("gone")
        yield Made(ANSWER)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    module, library = ModuleType("any_llm"), Library()
    module.acompletion = library.acompletion  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "any_llm", module)
    yield library
    any_llm._NO_RETRY_OPTION.clear()


def target() -> Target:
    provider = ResolvedProvider(
        name="european", kind="any-llm", base_url="", api_key=None, weights=None, timeout=5, vendor="mistral"
    )
    return Target(provider, "", {}, "key-1")


async def send(**more: Any) -> Answer:
    return await any_llm.send(target(), json.dumps({**BODY, **more}).encode(), timeout=5)


async def test_an_answer_comes_back_as_a_chat_completion(library: Library) -> None:
    answer = await send()
    assert (answer.status, json.loads(await answer.read())) == (200, ANSWER)
    (asked,) = library.asked
    assert (asked["provider"], asked["api_key"], asked["api_base"]) == ("mistral", "key-1", None)
    assert asked["client_args"] == {"max_retries": 0}


async def test_a_stream_is_server_sent_events(library: Library) -> None:
    answer = await send(stream=True)
    data = b""
    while piece := await answer.piece():
        data += piece
    assert data.startswith(b'data: {"id": "c"')
    assert data.endswith(b"data: [DONE]\n\n")


async def test_an_sdk_without_the_option_is_asked_without_it_from_then_on(library: Library) -> None:
    library.takes_options = False
    await send()
    await send()
    assert ["client_args" in asked for asked in library.asked] == [True, False, False]


@pytest.mark.parametrize("name", ["api_base", "api_key", "provider", "client_args", "timeout", "session_label"])
async def test_arguments_of_the_library_are_not_the_callers_to_give(library: Library, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}'"):
        await send(**{name: "http://10.0.0.1"})
    assert library.asked == []


async def test_errors_are_answers_where_the_provider_gave_one(library: Library) -> None:
    library.failure = RateLimitError("slow down")
    answer = await send()
    assert (answer.status, answer.header("retry-after")) == (429, "3")
    library.failure = ConnectionError("gone")
    with pytest.raises(UpstreamError, match="gone") as raised:
        await send()
    assert raised.value.sent


async def test_without_the_library_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "any_llm", None)
    with pytest.raises(InputError) as raised:
        await send()
    assert raised.value.remedy == "pip install 'lockgate[any-llm]'"
