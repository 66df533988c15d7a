"""Which checks apply to a call, from what a version's and a tenant's guardrails say. Pure.

A policy is data: the agent file's ``guardrails`` (part of the version, so of its digest) and the tenant's entry in the
project file. The tenant's checks come first on the way in and last on the way out: nobody's agent gets around them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

import msgspec

from lockgate.gateway.guardrails import canaries, entities, personal, rules, secrets
from lockgate.gateway.guardrails.model import Action, Detector, Side
from lockgate.gateway.guardrails.rules import BUILT_IN, Rule, Topics
from lockgate.versions.model import Guardrails

DEFAULT_THRESHOLD = 0.6

Name = Literal["pii", "secrets", "injection", "topics", "canary", "max_length", "schema"]


class Asked(msgspec.Struct, frozen=True):
    """A model that judges texts."""

    provider: str
    name: str

    @property
    def wire_name(self) -> str:
        return f"{self.provider}/{self.name}"


class Guard(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """One check, compiled. The options are those of :class:`lockgate.project.guards.GuardSpec`."""

    guard: Name
    action: Action
    kinds: tuple[str, ...] | None = None
    threshold: float = DEFAULT_THRESHOLD
    mark: bool = True
    model: Asked | None = None
    rules: tuple[str | Rule, ...] = ()
    tokens: tuple[str, ...] = ()
    characters: int = 0
    repair: bool = True

    @cached_property
    def detectors(self) -> list[Detector]:
        """What looks at texts piece by piece; none for checks of a whole text."""
        match self.guard:
            case "pii":
                kinds = personal.DEFAULT_KINDS if self.kinds is None else self.kinds
                named = tuple(kind for kind in kinds if kind in entities.KINDS)
                return personal.detectors(kinds) + ([entities.Entities(named)] if named else [])
            case "secrets":
                return secrets.detectors(tuple(secrets.KINDS) if self.kinds is None else self.kinds)
            case "topics":
                return [self.topics]
            case "canary":
                return [canaries.Canaries(self.tokens)]
            case _:
                return []

    @cached_property
    def rule_list(self) -> tuple[Rule, ...]:
        return tuple(BUILT_IN[rule] if isinstance(rule, str) else rule for rule in self.rules)

    @cached_property
    def topics(self) -> Topics:
        return rules.Topics(self.rule_list)


class Policy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """The checks of a call, in their order."""

    input: tuple[Guard, ...] = ()
    output: tuple[Guard, ...] = ()
    own_prompt: str = ""  # the version's system prompt: nobody's data
    keeps_nothing: bool = False  # whether providers are told to keep nothing either

    def __bool__(self) -> bool:
        return bool(self.input or self.output)

    @cached_property
    def reads_answers(self) -> bool:
        """Whether a check looks at each text of an answer; a schema's looks at the answer as a whole."""
        return any(guard.guard != "schema" for guard in self.output)

    @cached_property
    def schemas(self) -> tuple[tuple[int, Guard], ...]:
        """The checks of a schema, and where they stand in ``output``."""
        return tuple((place, guard) for place, guard in enumerate(self.output) if guard.guard == "schema")

    def with_planted(self, token: str) -> Policy:
        """The policy that looks for this canary where it would look for the one it plants."""
        mine = self.planted
        if mine is None or not token or token == mine:
            return self
        output = tuple(
            msgspec.structs.replace(guard, tokens=(token,))
            if guard.guard == "canary" and guard.tokens == (mine,)
            else guard
            for guard in self.output
        )
        return msgspec.structs.replace(self, output=output)

    @cached_property
    def asks_model(self) -> bool:
        """Whether a model is asked about requests."""
        return any(guard.model is not None for guard in self.input)

    @cached_property
    def lines(self) -> str:
        """Stands for all that is done to a request: what went through the same has the same; empty for nothing. Which
        canary is planted does not matter: each machine has its own."""
        if not self.input and self.planted is None:
            return ""
        done = msgspec.json.encode((self.input, self.own_prompt, self.planted is not None))
        return hashlib.blake2b(done, digest_size=16).hexdigest()

    @cached_property
    def planted(self) -> str | None:
        """The canary that goes into the prompt."""
        for guard in self.output:
            if guard.guard == "canary" and guard.tokens and guard.tokens[0].startswith(canaries.PREFIX):
                return guard.tokens[0]
        return None


def compile_policy(
    version: Guardrails | None,
    tenant: tuple[Sequence[Mapping[str, Any]], Sequence[Mapping[str, Any]]] = ((), ()),
    *,
    canary: str = "",
    own_prompt: str = "",
    keeps_nothing: bool = False,
) -> Policy:
    """The checks of a version and of a tenant (its ``input`` and ``output`` guards, as configurations).

    ``canary`` is planted where a canary guard names no tokens of its own.
    """
    incoming: list[Mapping[str, Any]] = list(tenant[0])
    outgoing: list[Mapping[str, Any]] = []
    if version is not None:
        if version.pii_redaction:
            incoming.append({"guard": "pii", "action": "redact"})
        if version.injection != "off":
            incoming.append({"guard": "injection", "action": version.injection})
        incoming += version.input
        outgoing += version.output
    outgoing += tenant[1]
    return Policy(
        input=_compiled(incoming, "input", canary),
        output=_compiled(outgoing, "output", canary),
        own_prompt=own_prompt,
        keeps_nothing=keeps_nothing,
    )


def _compiled(configs: Iterable[Mapping[str, Any]], side: Side, canary: str) -> tuple[Guard, ...]:
    guards = []
    for config in configs:
        guard = msgspec.convert(config, Guard)
        if guard.guard == "canary" and not guard.tokens:
            if side == "input" or not canary:
                continue
            guard = msgspec.structs.replace(guard, tokens=(canary,))
        if guard.guard == "schema" and side == "input":
            continue
        guards.append(guard)
    return tuple(guards)
