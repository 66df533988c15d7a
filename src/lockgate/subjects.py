"""A locked version as the thing under test: what evals run cases through."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError, Unavailable, UpstreamError
from lockgate.evals.model import Case, Subject
from lockgate.results import RunResult, Usage
from lockgate.versions.model import AgentVersion, ModelRef

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.model import JudgeSettings
    from lockgate.evals.running.meter import AskVectors
    from lockgate.evals.scorers.judge import Ask, JudgeReply
    from lockgate.evals.simulation.conversation import UserTurn
    from lockgate.evals.simulation.model import UserScript
    from lockgate.offswitch import OffSwitch
    from lockgate.runtime.clients import Send
    from lockgate.runtime.direct import Endpoint
    from lockgate.runtime.local import LocalRunner
    from lockgate.runtime.model import Completion, ModelClient

USER_SECONDS = 60.0
"""Until a simulated user that says nothing is given up."""
JUDGE_SECONDS = 120.0
"""Until a judge that does not answer is given up."""


@asynccontextmanager
async def open_subject(
    app: App,
    behaviour_digest: str,
    environment: str,
    *,
    model_override: str | None = None,
    system_prompt: str | None = None,
) -> AsyncIterator[Subject]:
    """Make the version ready to run in this process, and its providers ready to be asked.

    ``model_override`` is ``provider:name``, ``system_prompt`` a text in place of the version's own. A provider of kind
    ``local`` is started, or joined when it runs already.
    """
    from lockgate.offswitch import OffSwitch
    from lockgate.runtime.local import LocalRunner

    version = app.versions.load(behaviour_digest)
    if model_override:
        version = override_model(version, model_override)
    if system_prompt is not None:
        version = msgspec.structs.replace(version, system_prompt=system_prompt)
    code = app.home / "run" / "code" / version.behaviour_digest.removeprefix("sha256:")[:12]
    app.versions.materialise(version, code)
    switch = OffSwitch(app, environment, version.agent)
    async with open_models(app, version, environment, switch=switch) as client:
        runner = LocalRunner(version, _governed(client, version), code, environment=environment)
        subject = _subject(runner, client, version, app.project.root)

        async def unless_killed(case: Case, trial: int) -> RunResult:
            result = await subject(case, trial)
            if switch.thrown is not None:  # no result of the version: nor is one that a fallback gave
                raise switch.thrown
            return result

        yield unless_killed
        runner.close()


def _governed(client: ModelClient, version: AgentVersion) -> ModelClient:
    """The client with the version's own checks and triage around it. What they need is imported for them alone."""
    if version.triage is None and not version.guardrails.checks:
        return client
    from lockgate.gateway.offline import governed

    governing: ModelClient = governed(client, version)
    return governing


def _subject(runner: LocalRunner, client: ModelClient, version: AgentVersion, root: Path) -> Subject:
    """Cases as they are run: a question, or a simulation."""
    from lockgate.evals.simulation import changes, converse, load_world, simulation_of
    from lockgate.tools.contracts import plain

    async def subject(case: Case, trial: int) -> RunResult:
        fixtures = case.metadata.get("fixtures", ())
        simulation = simulation_of(case)
        if simulation is None:
            return await runner.run(case.input, fixtures=fixtures)
        world = None if simulation.world is None else load_world(simulation.world, root)(case)
        before = None if world is None else plain(world.state())

        async def turn(messages: list[dict[str, str]] | Any) -> RunResult:
            asked = {"messages": messages} if isinstance(messages, list) else messages
            return await runner.run(asked, fixtures=fixtures, world=None if world is None else world.tools)

        if simulation.user is None:
            result = await turn(case.input)
        else:
            result = await converse(simulation.user, turn, _user(simulation.user, client, version))
        if world is None:
            return result
        return msgspec.structs.replace(result, changes=changes(before, plain(world.state())))

    return subject


def _user(script: UserScript, client: ModelClient, version: AgentVersion) -> UserTurn:
    """The simulated user's model."""
    model = version.model if script.model is None else override_model(version, script.model).model
    model = msgspec.structs.replace(model, temperature=script.temperature, max_tokens=script.max_tokens)

    async def ask(messages: list[dict[str, str]]) -> str:
        body = {"messages": messages, "temperature": script.temperature, "max_tokens": script.max_tokens}
        try:
            completion = await client.complete(model, body, timeout=USER_SECONDS)
        except TimeoutError:
            raise Unavailable(f"no answer in {USER_SECONDS:g} s") from None
        content = completion.message.get("content")
        return content if isinstance(content, str) else ""

    return ask


@asynccontextmanager
async def open_models(
    app: App, version: AgentVersion, environment: str, *, switch: OffSwitch | None = None
) -> AsyncIterator[ModelClient]:
    """The version's models, ready to be asked at the providers its environment resolves.

    Raises :class:`~lockgate.errors.Killed` while the agent, its model or the environment is switched off.
    """
    from lockgate.offswitch import OffSwitch, Switched
    from lockgate.runtime.direct import DirectClient
    from lockgate.runtime.metered import MeteredClient
    from lockgate.runtime.model import wire_name

    switch = switch or OffSwitch(app, environment, version.agent)
    switch.check(wire_name(version.model))  # before anything is started
    with ExitStack() as stack:
        opened: dict[str, tuple[str, Endpoint]] = {}

        def provider(model: ModelRef) -> tuple[str, Endpoint]:
            if model.provider not in opened:  # the simulated user's may be another than the agent's
                opened[model.provider] = open_provider(app, stack, model, environment, version.agent)
            return opened[model.provider]

        for model in (version.model, *version.fallbacks):
            provider(model)

        def price(model: ModelRef, usage: Usage) -> int:
            return app.prices.cost(provider(model)[0], model.provider, model.name, usage)

        price(version.model, Usage())  # an unknown price is one clear error now, not a failure of every trial
        async with _sender() as send:
            direct = DirectClient(send, lambda name: provider(ModelRef(provider=name, name=""))[1], price)

            def bound(model: ModelRef, request_bytes: int, tokens: int) -> int:
                return app.prices.bound(
                    provider(model)[0],
                    model.provider,
                    model.name,
                    request_bytes=request_bytes,
                    max_output_tokens=tokens,
                )

            yield MeteredClient(Switched(direct, switch), bound)


@asynccontextmanager
async def _sender() -> AsyncIterator[Send]:
    """The gateway's own way to providers."""
    from yarl import URL

    import lockgate.tls  # noqa: F401 - before anything else takes aiohttp in
    from lockgate.gateway.upstream import DEFAULT_HEADERS, Upstream
    from lockgate.runtime.clients import LARGEST_ANSWER, Sent

    upstream = Upstream(connections=0)  # the evaluation's concurrency is the limit

    async def send(url: str, headers: Mapping[str, str], body: bytes, timeout: float) -> Sent:
        try:
            answer = await upstream.send(
                "POST", URL(url), headers={**DEFAULT_HEADERS, **headers}, body=body, timeout=timeout
            )
            try:
                return Sent(answer.status, dict(answer.headers()), await answer.read(LARGEST_ANSWER))
            finally:
                answer.close()
        except UpstreamError as failure:
            if failure.sent and isinstance(failure.__cause__, TimeoutError):
                raise TimeoutError from failure
            raise

    try:
        yield send
    finally:
        await upstream.close()


@asynccontextmanager
async def open_judge(app: App, settings: JudgeSettings, environment: str) -> AsyncIterator[Ask]:
    """Make the judge's model, and those of its panel, ready to be asked, at the providers the environment resolves."""
    async with AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(_open_member(app, settings, name, environment))
            for name in (settings.model, *settings.panel)
        ]

        async def ask(messages: list[dict[str, str]], schema: dict[str, Any], *, member: int = 0) -> JudgeReply:
            return await members[member](messages, schema)

        yield ask


@asynccontextmanager
async def _open_member(app: App, settings: JudgeSettings, named: str, environment: str) -> AsyncIterator[Ask]:
    """One judge's model, ready to be asked. What it was paid for and gave no score yet is not asked again."""
    from lockgate.evals.running.meter import JUDGE, METER
    from lockgate.evals.scorers.judge import JudgeReply
    from lockgate.offswitch import OffSwitch, Switched
    from lockgate.project.secrets.masking import without
    from lockgate.runtime.direct import DirectClient

    provider, _, name = named.partition(":")
    model = ModelRef(
        provider=provider,
        name=name,
        temperature=settings.temperature,
        max_tokens=settings.max_tokens,
        seed=settings.seed,
    )
    switch = OffSwitch(app, environment)
    switch.check(f"{provider}/{name}")
    with ExitStack() as stack:
        kind, endpoint = open_provider(app, stack, model, environment)

        def price(asked: ModelRef, usage: Usage) -> int:
            return app.prices.cost(kind, asked.provider, asked.name, usage)

        price(model, Usage())  # an unknown price is one clear error now
        async with _sender() as send:
            client = Switched(DirectClient(send, lambda _: endpoint, price), switch)

            async def metered(body: dict[str, Any]) -> Completion:
                meter = METER.get()
                if meter is None:
                    try:
                        return await client.complete(model, body, timeout=JUDGE_SECONDS)
                    except TimeoutError:
                        raise Unavailable(
                            f"{named} did not answer in {JUDGE_SECONDS:g} s", remedy="try again, or name another model"
                        ) from None
                size = len(msgspec.json.encode(body))
                answer: Completion = await meter.call(
                    lambda: client.complete(model, body, timeout=JUDGE_SECONDS),
                    bound=lambda: app.prices.bound(
                        kind, provider, name, request_bytes=size, max_output_tokens=model.max_tokens
                    ),
                    timeout=JUDGE_SECONDS,
                    judge=True,
                )
                return answer

            async def ask(messages: list[dict[str, str]], schema: dict[str, Any], *, member: int = 0) -> JudgeReply:
                body: dict[str, Any] = {
                    "messages": messages,
                    "temperature": model.temperature,
                    "max_tokens": model.max_tokens,
                }
                if schema:
                    form = {"name": "verdict", "schema": schema, "strict": True}
                    body["response_format"] = {"type": "json_schema", "json_schema": form}
                if model.seed is not None:
                    body["seed"] = model.seed
                meter = METER.get()
                key = JUDGE + hashlib.sha256(msgspec.json.encode([named, body])).hexdigest()
                kept = None if meter is None else meter.replay(key)
                if kept is not None:  # paid for in an evaluation that was cut off
                    return JudgeReply(text=kept)
                completion = await metered(body)
                text = completion.message.get("content")
                said = (
                    without(text.encode(), endpoint.api_key, *endpoint.secrets).decode()
                    if isinstance(text, str)
                    else ""
                )
                if meter is not None:
                    meter.keep(key, said)
                return JudgeReply(text=said, cost_nano=completion.cost_nano)  # reasons are stored and shown

            yield ask


def open_embeddings(app: App, named: str, environment: str) -> AskVectors:
    """A provider's embedding model, ``PROVIDER:MODEL``, ready to be asked for what it costs.

    Raises :class:`~lockgate.errors.InputError` where the provider has no embeddings, or no price is known.
    """
    from asyncio import to_thread

    from lockgate.evals.embeddings import SECONDS, provided
    from lockgate.evals.running.meter import METER, Vectored
    from lockgate.offswitch import OffSwitch

    model = provided(named, app.project.root, environment)
    asked_as = (model.kind, model.provider, model.model)
    app.prices.price(*asked_as)  # an unknown one is one clear error now
    switch = OffSwitch(app, environment)
    switch.check(f"{model.provider}/{model.model}")

    async def embed(texts: Sequence[str]) -> Vectored:
        size = sum(len(text.encode()) for text in texts)

        def bound() -> int:
            return app.prices.bound(*asked_as, request_bytes=size, max_output_tokens=0)

        async def send() -> Vectored:
            switch.check(f"{model.provider}/{model.model}")
            vectors, tokens = await to_thread(model.ask, texts)
            cost = bound() if tokens is None else app.prices.cost(*asked_as, Usage(input_tokens=tokens))
            return Vectored(vectors=vectors, cost_nano=cost)

        meter = METER.get()
        if meter is None:
            return await send()
        answer: Vectored = await meter.call(send, bound=bound, timeout=SECONDS, judge=True)
        return answer

    return embed


def override_model(version: AgentVersion, name: str) -> AgentVersion:
    """The version on another model alone, ``provider:name``, its parameters kept: no fallback or triage answers in that
    model's place."""
    provider, _, model = name.partition(":")
    if not provider or not model:
        raise InputError(f"{name!r} is not a model", remedy="write provider:name, such as ollama:llama3.1:70b")
    other = msgspec.structs.replace(version.model, provider=provider, name=model, revision=None)
    return msgspec.structs.replace(version, model=other, fallbacks=(), triage=None)


def open_provider(
    app: App, stack: ExitStack, model: ModelRef, environment: str, agent: str | None = None
) -> tuple[str, Endpoint]:
    """The kind of the model's provider as ``agent`` uses it there, and where to ask it.

    What is started for that ends with ``stack``.
    """
    from lockgate.project.secrets import header_value, is_reference, resolve_secret
    from lockgate.project.service import resolve_provider
    from lockgate.runtime.direct import Endpoint

    provider = resolve_provider(app.project, model.provider, environment, agent)
    if provider.kind == "local":
        from lockgate.gateway.local_model import ensure_local_model

        return provider.kind, Endpoint(stack.enter_context(ensure_local_model(app.project, provider)), None)
    root = app.project.root
    headers = tuple((name, header_value(value, root)) for name, value in provider.headers)
    secrets = tuple(
        value for (_, value), (_, given) in zip(headers, provider.headers, strict=True) if is_reference(given)
    )
    return provider.kind, Endpoint(provider.base_url, resolve_secret(provider.api_key, root), headers, secrets)
