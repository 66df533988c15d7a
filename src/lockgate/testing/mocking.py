"""What the ``mock_llm`` fixture gives: scripted model answers, for agents and for any OpenAI client."""

from __future__ import annotations

import os
from types import TracebackType
from typing import Any, Self

from lockgate.testing.fake_model import FakeModelServer
from lockgate.testing.replies import ModelRequest


class MockLlm:
    """Called with ``responses``, it starts a scripted model. The newest one that has not ended answers.

    While one is on, ``OPENAI_BASE_URL`` and ``OPENAI_API_KEY`` lead there, so clients made meanwhile use it too.
    """

    def __init__(self) -> None:
        self._active: list[Mocked] = []

    @property
    def current(self) -> Mocked | None:
        return self._active[-1] if self._active else None

    def __call__(self, responses: Any = "ok", *, latency: float = 0.0) -> Mocked:
        """``responses``: answers given in turn (list), one for all, or a callable(request) that gives one.

        An answer is a text, ``call("tool", argument=…)`` from :mod:`lockgate.testing`, any JSON value, or a
        :class:`~lockgate.testing.Reply`. ``latency`` is seconds before each.
        """
        mocked = Mocked(self, FakeModelServer(responses, latency=latency).start())
        self._active.append(mocked)
        return mocked

    def close(self) -> None:
        """End all that are still on."""
        while self._active:
            self._active[-1].stop()

    def _ended(self, mocked: Mocked) -> None:
        if mocked in self._active:
            self._active.remove(mocked)


class Mocked:
    """One scripted model; it ends with the ``with`` block, or with the test."""

    def __init__(self, owner: MockLlm, server: FakeModelServer) -> None:
        self._owner = owner
        self._server = server
        self._before = {name: os.environ.get(name) for name in ("OPENAI_BASE_URL", "OPENAI_API_KEY")}
        os.environ["OPENAI_BASE_URL"] = self.base_url
        os.environ["OPENAI_API_KEY"] = "mock"

    @property
    def base_url(self) -> str:
        """The API's root, for clients that are given one."""
        return self._server.base_url

    @property
    def requests(self) -> list[ModelRequest]:
        """What the model was asked, oldest first."""
        return self._server.requests

    def stop(self) -> None:
        self._server.stop()
        self._owner._ended(self)
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
        self._before = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()
