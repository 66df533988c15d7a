"""What the ``lockgate_agent`` fixture gives: an agent of the user's project, run in the test's own process.

Model calls go to the scripted model of ``mock_llm`` when there is one, else to the test's cassette, or with
``--real-llm`` to the configured providers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from lockgate.errors import InputError
from lockgate.results import RunResult, Usage
from lockgate.testing.cassettes import Cassette, Recorded, Replayed
from lockgate.versions.model import AgentVersion, ModelRef

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.runtime.direct import Endpoint
    from lockgate.runtime.model import ModelClient
    from lockgate.testing.mocking import MockLlm

Mode = Literal["default", "mock", "real"]


class AgentProject:
    """The user's project for one test session. Its state lives in ``home``, apart from the project's own."""

    def __init__(self, root: Path, home: Path) -> None:
        self._root = root
        self._home = home
        self._providers = ExitStack()
        self._endpoints: dict[str, tuple[str, Endpoint]] = {}
        self._app: App | None = None

    @property
    def app(self) -> App:
        if self._app is None:
            from lockgate.bootstrap import App
            from lockgate.project.service import load_project

            self._app = App(msgspec.structs.replace(load_project(self._root), home=self._home))
        return self._app

    def load(self, ref: str | None) -> AgentVersion:
        """A version by path (read as it stands) or name; None: the project's only agent."""
        if ref is None:
            from lockgate.versions.source import agent_files

            files = agent_files(self.app.project.root)
            if len(files) != 1:
                names = ", ".join(sorted(file.name for file in files)) or "none"
                raise InputError(
                    f"lockgate_agent() needs one agent file, and there are {len(files)}: {names}",
                    remedy='name one: lockgate_agent("agents/NAME.v1.yaml")',
                )
            ref = str(files[0])
        return self.app.versions.load(self.app.versions.find(ref))

    def code(self, version: AgentVersion) -> Path:
        """Where the version's code is materialised."""
        folder = self._home / "run" / "code" / version.behaviour_digest.removeprefix("sha256:")[:12]
        self.app.versions.materialise(version, folder)
        return folder

    def endpoint(self, model: ModelRef, environment: str) -> tuple[str, Endpoint]:
        """The kind and place of a real provider; a local model server started for it lives until :meth:`close`."""
        if model.provider not in self._endpoints:
            from lockgate.subjects import open_provider

            self._endpoints[model.provider] = open_provider(self.app, self._providers, model, environment)
        return self._endpoints[model.provider]

    def close(self) -> None:
        self._providers.close()
        if self._app is not None:
            self._app.control.close()


class TestedAgent:
    """One agent, ready to run. Model calls are answered as the test session's options say."""

    __test__ = False  # no test class, in spite of its name

    def __init__(
        self,
        project: AgentProject,
        version: AgentVersion,
        *,
        environment: str,
        mode: Mode,
        mocking: MockLlm,
        cassette: Path,
    ) -> None:
        self.version = version
        self._project = project
        self._environment = environment
        self._mode = mode
        self._mocking = mocking
        self._cassette_path = cassette
        self._cassette: Cassette | None = None

    def run(self, input: Any, *, fixtures: Sequence[dict[str, Any]] = ()) -> RunResult:
        """Run the agent once and wait for it.

        The result has ``status``, ``output``, ``tools_used``, ``cost_usd``, ``usage``, ``trace_id``, ``deliverable``.
        ``fixtures`` answer tool calls: ``{"tool": name, "arguments": {…}, "result": value}``. Writes are never carried
        out. In an ``async`` test, await :meth:`arun`.
        """
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass  # and what goes wrong below is told without it
        else:
            raise RuntimeError("agent.run() was called in an async test; write: await agent.arun(...)")
        return asyncio.run(self.arun(input, fixtures=fixtures))

    async def arun(self, input: Any, *, fixtures: Sequence[dict[str, Any]] = ()) -> RunResult:
        """:meth:`run`, for async tests."""
        from lockgate.runtime.local import LocalRunner

        async with self._client() as client:
            runner = LocalRunner(self.version, client, self._project.code(self.version), environment=self._environment)
            try:
                result = await runner.run(input, fixtures=fixtures)
            finally:
                runner.close()
            if isinstance(client, Replayed) and client.missing:
                pytest.fail(
                    f"{client.missing}. The prompt, the model or the input has changed since it was recorded; "
                    "record it again: pytest --real-llm",
                    pytrace=False,
                )
        return result

    def save(self) -> None:
        """Write what was recorded."""
        if self._cassette is not None and self._mode == "real" and self._cassette.calls:
            self._cassette.save()

    @asynccontextmanager
    async def _client(self) -> AsyncIterator[ModelClient]:
        import aiohttp

        from lockgate.runtime.clients import by_session
        from lockgate.runtime.direct import DirectClient, Endpoint

        mocked = self._mocking.current
        if mocked is None and self._mode != "real":
            yield Replayed(self._played())
            return
        async with aiohttp.ClientSession() as session:
            if mocked is not None:
                scripted = Endpoint(base_url=mocked.base_url, api_key="mock")
                yield DirectClient(by_session(session), lambda provider: scripted, self._price)
                return
            from lockgate.offswitch import OffSwitch, Switched

            switch = OffSwitch(self._project.app, self._environment, self.version.agent)
            places = {
                model.provider: self._project.endpoint(model, self._environment)[1]
                for model in (self.version.model, *self.version.fallbacks)
            }
            if self._cassette is None:
                self._cassette = Cassette(self._cassette_path, recording=True)
            direct = DirectClient(by_session(session), places.__getitem__, self._price)
            yield Recorded(self._cassette, Switched(direct, switch))

    def _played(self) -> Cassette:
        if self._cassette is None:
            if not self._cassette_path.exists():
                said = f"no cassette {str(self._cassette_path)!r}; record it: pytest --real-llm"
                if self._mode == "mock":
                    pytest.fail(said, pytrace=False)
                pytest.skip(said)
            self._cassette = Cassette(self._cassette_path)
        return self._cassette

    def _price(self, model: ModelRef, usage: Usage) -> int:
        from lockgate.project.service import resolve_provider

        kind = resolve_provider(self._project.app.project, model.provider, self._environment).kind
        try:
            return self._project.app.prices.cost(kind, model.provider, model.name, usage)
        except InputError:
            if self._mocking.current is None:
                raise
            return 0  # a scripted answer costs nothing; only where a price is known is one worth showing
