"""Runs a version in this process, without gateway or store: what evals and quick tries use."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lockgate import clock as clocks
from lockgate.errors import NotFound, RunFailed, Unavailable
from lockgate.evals.fixtures import fixtures_of
from lockgate.results import RunResult
from lockgate.runtime.calling import call_function
from lockgate.runtime.context import MODEL_TIMEOUT, RunContext
from lockgate.runtime.execution import execute
from lockgate.runtime.journal import Journal
from lockgate.runtime.loader import Code
from lockgate.runtime.model import Answer, ModelClient, Step
from lockgate.runtime.tracing import Emit, Tracer
from lockgate.tools.contracts import plain, stubbed_result
from lockgate.tools.model import Approval, Ruling
from lockgate.tools.policy import Policy
from lockgate.versions.model import AgentVersion, ToolContract


class LocalRunner:
    """One version, ready to run many times at once.

    ``code`` is the folder with the version's materialised code. Reads and pure tools are carried out; a write, or a
    call that would need an approval, is recorded as an intention and answered with a stub, or with a fixture. Raises
    :class:`Unavailable` when a package that the code imports is not installed.
    """

    def __init__(
        self,
        version: AgentVersion,
        client: ModelClient,
        code: Path,
        *,
        environment: str = "dev",
        emit: Emit | None = None,
        clock: clocks.Clock = clocks.system,
        model_timeout: float = MODEL_TIMEOUT,
    ) -> None:
        self.version = version
        self._client = client
        self._code = Code(code)
        self._policy = Policy(version.policies)
        self._environment = environment
        self._emit = emit
        self._clock = clock
        self._model_timeout = model_timeout
        self._check_packages()

    def _check_packages(self) -> None:
        """A package that is not here is this machine's lack: no failure of the version's, to be kept as one."""
        code = (self.version.framework.entrypoint, *(tool.python for tool in self.version.tools))
        for reference in filter(None, code):
            if (package := self._code.missing_package(reference)) is not None:
                raise Unavailable(
                    f"{reference!r} needs the package {package!r}, which is not installed here",
                    remedy="install what the agent's code needs: pip install -r requirements.txt",
                )

    async def run(
        self,
        input: Any,
        *,
        fixtures: Sequence[dict[str, Any]] = (),
        world: Mapping[str, Callable[..., Any]] | None = None,
        run_id: str = "",
    ) -> RunResult:
        """One run; what fails in it is in the result.

        ``world`` has functions by tool: they answer in place of the tools, writes included, and all others are
        refused.

        ``fixtures`` answer tool calls, the first that fits: ``{"tool": name, "arguments": those that must match
        (optional), "result": value}``, or ``"error": text`` for a result. Where there are any, a read that none answers
        ends the run as ``no_fixture``. Raises :class:`InputError` for other shapes.
        """
        ctx = RunContext(
            self.version,
            self._client,
            code=self._code,
            policy=self._policy,
            mode=EvalTools(fixtures, world),
            recorder=Unrecorded(),
            journal=Journal(),
            tracer=Tracer(self._emit, self.version, run_id=run_id),
            clock=self._clock,
            environment=self._environment,
            run_id=run_id,
            model_timeout=self._model_timeout,
        )
        result = await execute(ctx, input)
        if result.status == "cancelled":
            raise asyncio.CancelledError
        return result

    def close(self) -> None:
        """Forget the version's modules."""
        self._code.close()


class EvalTools:
    """Tool calls of an eval: nothing outside changes. In a simulation, only its own world does.

    With fixtures nothing outside is read either: a read that none of them answers ends the run.
    """

    def __init__(self, fixtures: Sequence[Any] = (), world: Mapping[str, Callable[..., Any]] | None = None) -> None:
        self._fixtures = fixtures_of(fixtures) if fixtures else []
        self._world = world

    async def answer(self, contract: ToolContract, arguments: dict[str, Any], *, asks: bool) -> Answer | None:
        stubbed = contract.effect == "write" or asks
        for fixture in self._fixtures:
            if fixture.tool == contract.name and _fits(fixture.arguments or {}, arguments):
                if fixture.error is not None:
                    return Answer(error_type="tool_failed", error=fixture.error)
                return Answer(result=fixture.result, stubbed=stubbed)
        if self._world is not None and contract.effect != "pure":
            return await self._in_world(self._world, contract, arguments)
        if stubbed:
            return Answer(result=stubbed_result(contract, arguments), stubbed=True)
        if self._fixtures and contract.effect == "read":
            raise RunFailed(
                "no_fixture",
                f"tool {contract.name!r} was called with {arguments!r}, for which the case has no fixture",
                remedy="add one: a case with fixtures reads nothing else",
            )
        return None

    async def _in_world(
        self, world: Mapping[str, Callable[..., Any]], contract: ToolContract, arguments: dict[str, Any]
    ) -> Answer:
        act = world.get(contract.name)
        if act is None:
            return Answer(error_type="tool_failed", error=f"the simulation's world has no tool {contract.name!r}")
        try:
            async with asyncio.timeout(contract.timeout):
                return Answer(result=plain(await call_function(act, **plain(arguments))))
        except TimeoutError:
            return Answer(error_type="tool_timeout", error=f"tool {contract.name!r} took {contract.timeout:g} s")
        except Exception as failure:  # the project's own world: what it refuses, the agent is told
            return Answer(error_type="tool_failed", error=f"{type(failure).__name__}: {failure}")


class Unrecorded:
    """Keeps no steps: the run's result is all that is wanted."""

    async def started(self, step: Step) -> None:
        pass

    async def ended(self, step: Step) -> None:
        pass

    async def waiting(self, step: Step, ruling: Ruling) -> Approval:
        raise NotFound(f"nobody can approve {step.name!r} here")

    async def decision(self, step: Step) -> Approval:
        raise NotFound(f"nobody can approve {step.name!r} here")

    async def claim(self, step: Step, approval: Approval) -> None:
        raise NotFound(f"nobody can approve {step.name!r} here")


def _fits(wanted: dict[str, Any], arguments: dict[str, Any]) -> bool:
    return all(name in arguments and arguments[name] == value for name, value in wanted.items())
