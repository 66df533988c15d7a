"""Versions made worse on purpose, for ``lockgate eval --self-check``: a gate that passes one is not strict enough."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import msgspec

from lockgate.evals.model import Case, Subject
from lockgate.evals.service import Mutant
from lockgate.results import RunResult
from lockgate.subjects import open_models, override_model
from lockgate.versions.model import AgentVersion

if TYPE_CHECKING:
    from lockgate.bootstrap import App


def of_version(app: App, behaviour_digest: str, environment: str, *, weaker: str | None = None) -> list[Mutant]:
    """The mutants that can be made of a version; ``weaker`` is a model, ``provider:name``, to put in its place."""
    version = app.versions.load(behaviour_digest)
    made: list[tuple[str, str, AgentVersion]] = []
    prompt = version.system_prompt
    if prompt.strip():
        made.append(
            ("prompt cut", "the second half of the system prompt is missing", _with_prompt(version, _half(prompt)))
        )
        made.append(("no prompt", "the system prompt is empty", _with_prompt(version, "")))
    if version.tools and version.handler is None:
        one = version.tools[0].name
        fewer = msgspec.structs.replace(version, tools=version.tools[1:])
        made.append(("tool removed", f"the tool {one} is missing", fewer))
    if weaker:
        made.append(("model swapped", f"answered by {weaker}", override_model(version, weaker)))
    return [
        Mutant(name, what, lambda changed=changed: _open(app, changed, environment))  # type: ignore[misc]
        for name, what, changed in made
    ]


def _with_prompt(version: AgentVersion, prompt: str) -> AgentVersion:
    return msgspec.structs.replace(version, system_prompt=prompt)


def _half(text: str) -> str:
    lines = text.splitlines(keepends=True)
    return "".join(lines[: len(lines) // 2]) if len(lines) > 1 else text[: len(text) // 2]


@asynccontextmanager
async def _open(app: App, version: AgentVersion, environment: str) -> AsyncIterator[Subject]:
    from lockgate.runtime.local import LocalRunner

    code = app.home / "run" / "code" / version.behaviour_digest.removeprefix("sha256:")[:12]
    app.versions.materialise(version, code)
    async with open_models(app, version, environment) as client:
        runner = LocalRunner(version, client, code, environment=environment)

        async def subject(case: Case, trial: int) -> RunResult:
            return await runner.run(case.input, fixtures=case.metadata.get("fixtures", ()))

        yield subject
        runner.close()
