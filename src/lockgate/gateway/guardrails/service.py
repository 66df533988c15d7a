"""The guardrails of a gateway worker: which apply to a call, and what comes of them."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NoReturn

from lockgate.errors import Blocked, LockgateError, UpstreamError
from lockgate.gateway.calls.call import Attempt, Call
from lockgate.gateway.calls.seams import StreamGuard, TryAgain
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.guardrails import canaries, entities, schemas
from lockgate.gateway.guardrails.answers import checked_body
from lockgate.gateway.guardrails.metrics import GuardMetrics
from lockgate.gateway.guardrails.model import Outcome
from lockgate.gateway.guardrails.policy import Guard, Policy, compile_policy
from lockgate.gateway.guardrails.requests import checked_request, judging, verdict, with_canary
from lockgate.gateway.guardrails.schemas import Asked
from lockgate.gateway.guardrails.stages import Chain, blocked, check_fit, outcomes_of
from lockgate.gateway.guardrails.streams import STREAMS
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.protocols.chat import Chat
from lockgate.gateway.protocols.model import Request
from lockgate.gateway.routing.prefix import OPENAI
from lockgate.project.guards import TenantSpec
from lockgate.versions.model import AgentVersion

log = logging.getLogger(__name__)

IN_A_THREAD = 64 * 1024
"""Characters from which a request is looked at in a thread, so that other calls go on."""
MAX_HELD = 16 * 1024 * 1024
"""Bytes of a stream that is held to its end: its text is kept beside it, and taken apart there."""
ATTRIBUTE = "lockgate.guardrails"
_REPAIRED = "lockgate.guardrails.repaired"
_POLICY = "policy"  # where a call's notes keep its own
_POLICIES = 512  # compiled policies that are kept
_CHAT_COMPLETIONS = "/chat/completions"  # the path, at upstreams

Ask = Callable[[Call, str, Request], Awaitable[dict[str, Any]]]
TenantOf = Callable[[str], TenantSpec | None]


class Guardrails:
    """See :class:`lockgate.gateway.calls.seams.Guards`. ``ask`` is set once there is a proxy to ask through."""

    def __init__(
        self,
        *,
        version_of: Callable[[str], AgentVersion],
        tenant_of: TenantOf,
        secret: bytes,
        metrics: GuardMetrics,
    ) -> None:
        self.ask: Ask | None = None
        self._version_of = version_of
        self._tenant_of = tenant_of
        self._secret = secret
        self._metrics = metrics
        self._policies: dict[tuple[str, str], tuple[TenantSpec | None, Policy]] = {}

    def policy(self, call: Call) -> Policy:
        """What applies to the call: from its beginning to its end the same."""
        policy: Policy | None = call.notes.get(_POLICY)
        if policy is None:
            policy = call.notes[_POLICY] = self.policy_of(call.identity)
        return policy

    def policy_of(self, identity: Identity) -> Policy:
        """What applies to the caller's calls."""
        return self.policy_for(identity.tenant, identity.run.behaviour_digest if identity.run is not None else "")

    def policy_for(self, tenant_name: str, digest: str) -> Policy:
        """What applies to a tenant's calls, made by the version with this behaviour digest or by none."""
        tenant = self._tenant_of(tenant_name)
        key = digest, "" if tenant is None else tenant_name  # the entry '*' holds for many, each with its own canary
        known = self._policies.get(key)
        if known is not None and known[0] is tenant:
            return known[1]
        version = self._version_of(digest) if digest else None
        policy = compile_policy(
            version.guardrails if version is not None else None,
            ((), ())
            if tenant is None
            else ([guard.config() for guard in tenant.input], [guard.config() for guard in tenant.output]),
            canary=canaries.token_for(digest or tenant_name, self._secret),
            own_prompt=version.system_prompt if version is not None else "",
            keeps_nothing=tenant is not None and tenant.no_store,
        )
        if len(self._policies) >= _POLICIES:
            self._policies.clear()
        self._policies[key] = tenant, policy
        return policy

    # --- the way in -------------------------------------------------------------------------------------------

    async def before(self, call: Call) -> None:
        """Check, and change, the request. Raises :class:`Blocked`."""
        policy = self.policy(call)
        if policy.keeps_nothing:
            _keep_nothing(call)
        if policy.input:
            outcomes = outcomes_of(policy.input, "input")
            try:
                texts = call.request.texts()
                if sum(len(text.text) for text in texts) > IN_A_THREAD or _is_slow(policy.input):
                    call.request = await asyncio.to_thread(checked_request, call.request, texts, policy, outcomes)
                else:
                    call.request = checked_request(call.request, texts, policy, outcomes)
                for guard, outcome in zip(policy.input, outcomes, strict=True):
                    if guard.guard == "injection" and guard.model is not None:
                        await self._judge(call, guard, outcome)
            finally:
                self._note(call, outcomes)
        if policy.planted is not None:
            call.request = with_canary(call.request, policy.planted)

    def sent(self, attempt: Attempt, body: bytes) -> bytes:
        """What the attempt's upstream gets: one that stores chat completions, as OpenAI does for new accounts unless
        told, is told not to."""
        if not self.policy(attempt.call).keeps_nothing or attempt.passage.path != _CHAT_COMPLETIONS:
            return body
        provider = attempt.target.provider
        if not knows_storing(provider.kind, attempt.target.host, provider.api_version):
            return body
        return f.encode({**f.take_apart(body, "a chat completion"), "store": f.FALSE})

    async def _judge(self, call: Call, guard: Guard, outcome: Outcome) -> None:
        """Ask a model about what the marks let pass. One that does not say stops what a guard that blocks protects."""
        texts = [text for text in call.request.texts() if text.role in ("user", "tool") and text.text.strip()]
        if self.ask is None or guard.model is None or not texts or outcome.findings:
            return
        asked = judging(guard.model.wire_name, texts)
        problem = f"{guard.model.wire_name} said neither YES nor NO"
        found: bool | None = None
        try:
            answer = await self.ask(call, guard.model.wire_name, Chat().read(json.dumps(asked).encode()))
            found = verdict(_first_content(answer))
        except UpstreamError as error:
            problem = error.message
        if found is None:
            outcome.count("no_answer")
            outcome.action = guard.action
            if guard.action == "block":
                raise UpstreamError(
                    f"the guardrail 'injection' could not ask its model: {problem}",
                    sent=False,
                    remedy="try again, or name another model in the guardrail",
                )
        elif found:
            outcome.count("model")
            if guard.action == "block":
                raise blocked(outcome, "a model takes it for a prompt injection")
            outcome.action = "flag"

    # --- the way out ------------------------------------------------------------------------------------------

    async def after_answer(self, call: Call, body: bytes) -> bytes:
        """Check, and change, a whole answer. Raises :class:`Blocked`, and TryAgain for one repair."""
        policy = self.policy(call)
        dialect = call.request.dialect.name
        if not policy.output or dialect not in STREAMS:
            return body
        outcomes = outcomes_of(policy.output, "output")
        try:
            if policy.reads_answers:
                if len(body) > IN_A_THREAD or _is_slow(policy.output):
                    body = await asyncio.to_thread(_checked_body, dialect, body, policy, outcomes)
                else:
                    body = _checked_body(dialect, body, policy, outcomes)
            asked = schemas.asked_schema(call.request) if policy.schemas else None
            if asked is not None:
                for said in schemas.said_texts(dialect, body):
                    check_fit(asked, said, policy, outcomes, _again(call, asked))
        finally:
            self._note(call, outcomes)
        return body

    def on_stream(self, call: Call) -> StreamGuard | None:
        """The checks of a stream; None when there are none."""
        policy = self.policy(call)
        dialect = call.request.dialect.name
        if not policy.output or dialect not in STREAMS:
            return None
        if not policy.reads_answers and schemas.asked_schema(call.request) is None:
            return _Unread(self, call, policy)
        return _Stream(self, call, policy, dialect)

    def _note(self, call: Call, outcomes: Sequence[Outcome]) -> None:
        # a list of its own: the span of an attempt that was asked for once more keeps the one it has
        earlier = call.attributes.get(ATTRIBUTE)
        shown = call.attributes[ATTRIBUTE] = [] if earlier is None else [*earlier]
        for outcome in outcomes:
            shown.append(outcome.attributes())
        self.tell(call.exchange, call.identity, call.agent, outcomes)

    def tell(self, exchange: Exchange, who: Identity, agent: str | None, outcomes: Sequence[Outcome]) -> None:
        """What checks did, for the metrics and the log."""
        for outcome in outcomes:
            self._metrics.note(who.environment, agent or "", outcome)
            if outcome.action != "allow":
                log.info(
                    "guardrail %s on the %s of a call of %s: %s %s",
                    outcome.guard, outcome.side, agent or who.tenant, outcome.action, dict(outcome.findings),
                    extra={"trace_id": exchange.trace_id.hex(), "request_id": exchange.request_id},
                )  # fmt: skip


class _Unread:
    """A stream that no check has anything to look at in: it passes byte for byte, and that is noted at its end."""

    is_slow = False

    def __init__(self, service: Guardrails, call: Call, policy: Policy) -> None:
        self._service = service
        self._call = call
        self._policy = policy

    def feed(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        self._service._note(self._call, outcomes_of(self._policy.output, "output"))
        return b""


class _Stream:
    """The checks of one stream, and what is noted of them at its end."""

    def __init__(self, service: Guardrails, call: Call, policy: Policy, dialect: str) -> None:
        self._service = service
        self._call = call
        self._outcomes = outcomes = outcomes_of(policy.output, "output")
        schema = schemas.asked_schema(call.request)
        fits = any(guard.action == "block" for _, guard in policy.schemas)
        whole = any(_needs_all(guard) for guard in policy.output)
        self._holds = holds = whole or (fits and schema is not None)
        self._is_slow = _is_slow(policy.output)
        self._taken = 0

        def at_end(said: str) -> None:
            if schema is not None and said.strip():
                # what is held can still be asked for once more: nothing of it has gone out
                check_fit(schema, said, policy, outcomes, _again(call, schema) if holds else None)

        # None of them knows this object: what was held back goes when it does, not when the collector comes by.
        self._checks = STREAMS[dialect](
            lambda: Chain(policy.output, outcomes),
            lambda text: Chain(policy.output, outcomes).whole(text),
            hold=holds,
            at_end=at_end if schema is not None else None,
        )
        self._noted = False

    @property
    def is_slow(self) -> bool:
        return self._is_slow or (self._holds and self._taken > IN_A_THREAD)

    def feed(self, data: bytes) -> bytes:
        self._taken += len(data)
        try:
            if self._holds and self._taken > MAX_HELD:
                raise UpstreamError(f"a stream of more than {MAX_HELD} bytes cannot be held to its end", sent=True)
            return self._checks.feed(data)
        except LockgateError:
            self._done()
            raise

    def finish(self) -> bytes:
        try:
            return self._checks.finish()
        finally:
            self._done()

    def _done(self) -> None:
        if not self._noted:
            self._noted = True
            self._service._note(self._call, self._outcomes)


def _is_slow(guards: Sequence[Guard]) -> bool:
    """Whether a model of the language is asked, which takes some milliseconds for each hundred characters."""
    return any(guard.guard == "pii" and set(guard.kinds or ()) & entities.KINDS.keys() for guard in guards)


def _needs_all(guard: Guard) -> bool:
    """Whether a check cannot let anything out before the end."""
    if guard.guard == "injection":
        return guard.action == "block"
    return guard.guard == "pii" and bool(set(guard.kinds or ()) & set(entities.KINDS)) and guard.action != "flag"


def _checked_body(dialect: str, body: bytes, policy: Policy, outcomes: list[Outcome]) -> bytes:
    return checked_body(dialect, body, lambda text: Chain(policy.output, outcomes).whole(text))


def _again(call: Call, asked: Asked) -> Callable[[str, str], NoReturn] | None:
    """How its answer is asked for once more; None when it was."""
    return None if _REPAIRED in call.attributes else partial(_ask_again, call, asked)


def _ask_again(call: Call, asked: Asked, said: str, problem: str) -> NoReturn:
    call.attributes[_REPAIRED] = True
    raise TryAgain(schemas.repair(call.request, said, problem, asked.schema))


def _first_content(answer: dict[str, Any]) -> str:
    try:
        return str(answer["choices"][0]["message"]["content"] or "")
    except (LookupError, TypeError):
        return ""


def _keep_nothing(call: Call) -> None:
    """Tell the provider to keep nothing, whoever it is: responses are kept unless told, and what a caller wants to be
    stored is not. The other chat completions, see :meth:`Guardrails.sent`."""
    name = call.request.dialect.name
    if name == "responses" or (name == "chat" and "store" in call.request.fields):
        call.request = call.request.replaced(store=False)


def knows_storing(kind: str, host: str, api_version: str | None) -> bool:
    """Whether a provider of chat completions knows ``store``: OpenAI itself in any of its regions, and Azure, whose
    versions of before 2025 may refuse it, and store nothing unless told to."""
    if kind == "azure":
        return api_version is None or not api_version[:4].isdecimal() or api_version >= "2025"
    return kind == "openai" and (host == OPENAI or host.endswith(f".{OPENAI}"))


__all__ = ["Blocked", "Guardrails"]
