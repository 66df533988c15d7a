"""How much of what defines an agent's behaviour is locked, part by part, from what the files and the lock say.

A part that no agent uses does not count. A part counts for an agent only when that agent's lock is up to date: what
was edited since is a back-channel until it is locked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from lockgate.versions.model import LockedVersion
from lockgate.versions.pins import floating
from lockgate.versions.source import AgentSource

_PINNED_LINE = re.compile(r"^\s*(?:#.*|-.*|\S+\s*(?:==|@)\s*\S+.*)?$")


class Facts(NamedTuple):
    """One agent as it stands: its files, its entry in the lock (None: not locked), whether that is up to date."""

    source: AgentSource
    entry: LockedVersion | None
    current: bool
    kinds: Mapping[str, tuple[str, str]]  # provider → (kind, base URL)
    dependency_text: str  # of the dependency lock file
    committed: bool  # the project's files are as git has them


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One part of the behaviour over all agents that have it. ``locked`` of ``of`` agents; weight in points."""

    name: str
    weight: int
    locked: int
    of: int
    missing: list[str]  # what keeps it unlocked, one line an agent
    remedy: str

    @property
    def share(self) -> float:
        """0..1."""
        return self.locked / self.of


class Reproducibility(msgspec.Struct, frozen=True, kw_only=True):
    """The score (percent), each part's share, and the part to lock next (None: all are)."""

    percent: float
    parts: list[Part]
    next: Part | None


class _Rule(NamedTuple):
    name: str
    weight: int
    remedy: str
    has: Callable[[Facts], bool]
    lacks: Callable[[Facts], str | None]  # why it is not locked; None: it is


def measure(agents: Sequence[Facts]) -> Reproducibility:
    """Score the project. Without agents nothing is locked, and nothing can be reproduced."""
    parts = []
    for rule in _RULES:
        having = [facts for facts in agents if rule.has(facts)]
        if not having:
            continue
        missing = []
        for facts in having:
            why = _stale(facts) or rule.lacks(facts)
            if why is not None:
                missing.append(f"{facts.source.file}: {why}")
        parts.append(
            Part(
                name=rule.name,
                weight=rule.weight,
                locked=len(having) - len(missing),
                of=len(having),
                missing=missing,
                remedy="lockgate lock" if any(map(_stale, having)) else rule.remedy,
            )
        )
    total = sum(part.weight for part in parts)
    percent = 100 * sum(part.weight * part.share for part in parts) / total if total else 0.0
    open_parts = [part for part in parts if part.missing]
    following = max(open_parts, key=lambda part: part.weight * (1 - part.share), default=None)
    return Reproducibility(percent=percent, parts=parts, next=following)


def _stale(facts: Facts) -> str | None:
    if facts.entry is None:
        return "not in lockgate.lock"
    return None if facts.current else "changed since the last lock"


def _always(facts: Facts) -> bool:
    return True


def _locked(facts: Facts) -> None:
    return None


def _floating(facts: Facts, *, main: bool) -> str | None:
    version = facts.source.version
    others = (*version.fallbacks, *([version.triage] if version.triage else []))
    for model in (version.model,) if main else others:
        kind, url = facts.kinds.get(model.provider, ("openai", ""))
        if reason := floating(kind, url, model):
            return f"{model.provider}/{model.name}: {reason}"
    return None


def _parameters(facts: Facts) -> str | None:
    model = facts.source.version.model
    return "temperature is the provider's default" if model.temperature is None else None


def _contracts(facts: Facts) -> str | None:
    bare = [tool.name for tool in facts.source.version.tools if tool.python is None and not tool.input]
    return f"no contract for {', '.join(bare)}" if bare else None


def _knowledge(facts: Facts) -> str | None:
    retrieval = facts.source.version.retrieval or {}
    return None if retrieval.get("digest") else f"no snapshot of {retrieval.get('knowledge_base')!r} here"


def _dependencies(facts: Facts) -> str | None:
    names = list(facts.source.version.dependencies)
    if not names:
        return "no dependency lock file"
    if names[0].startswith("requirements"):
        loose = [line.strip() for line in facts.dependency_text.splitlines() if not _PINNED_LINE.match(line)]
        return f"{names[0]} does not pin {loose[0]!r}" if loose else None
    return None


_RULES = (
    _Rule("agent definition", 3, "lockgate lock", _always, _locked),
    _Rule("prompt", 3, "lockgate lock", lambda facts: bool(facts.source.version.system_prompt), _locked),
    _Rule("model", 3, "name a dated model, or add `revision:`", _always, lambda facts: _floating(facts, main=True)),
    _Rule("model parameters", 1, "write `temperature:` in the agent file", _always, _parameters),
    _Rule(
        "fallbacks and routing",
        1,
        "pin each fallback's name",
        lambda facts: bool(facts.source.version.fallbacks or facts.source.version.triage),
        lambda facts: _floating(facts, main=False),
    ),
    _Rule(
        "tool contracts",
        2,
        "write tools/NAME.yaml (lockgate schema tool)",
        lambda facts: bool(facts.source.version.tools),
        _contracts,
    ),
    _Rule("code", 2, "lockgate lock", lambda facts: bool(facts.source.code), _locked),
    _Rule(
        "dependencies",
        2,
        "commit a lock file with exact versions (uv lock, or pip freeze > requirements.txt)",
        lambda facts: bool(facts.source.code),
        _dependencies,
    ),
    _Rule(
        "output schema",
        1,
        "lockgate lock",
        lambda facts: facts.source.version.guardrails.output_schema is not None,
        _locked,
    ),
    _Rule("guardrails and limits", 1, "lockgate lock", _always, _locked),
    _Rule("policies", 1, "lockgate lock", lambda facts: bool(facts.source.version.policies), _locked),
    _Rule(
        "knowledge base",
        2,
        "put its snapshot below kb/",
        lambda facts: facts.source.version.retrieval is not None,
        _knowledge,
    ),
    _Rule("memory settings", 1, "lockgate lock", lambda facts: facts.source.version.memory is not None, _locked),
    _Rule(
        "golden set",
        1,
        "add `evals:` with a `dataset:`",
        _always,
        lambda facts: None if facts.source.settings.evals.get("dataset") else "no golden set",
    ),
    _Rule(
        "git commit",
        2,
        "commit the project's files, lockgate.lock too",
        _always,
        lambda facts: None if facts.committed else "files differ from the commit, or are in none",
    ),
)
