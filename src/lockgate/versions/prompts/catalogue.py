"""Finds the project's prompts, the agents that use them, and every text of theirs that was ever locked."""

from __future__ import annotations

import difflib
from typing import Any

import msgspec

from lockgate.errors import InputError, NotFound
from lockgate.project.yamlfile import did_you_mean, read_yaml
from lockgate.storage.schema import deployments
from lockgate.versions.contracts import read_prompt
from lockgate.versions.digest import sha256
from lockgate.versions.ownership import Ownership, prompt_files
from lockgate.versions.service import Versions
from lockgate.versions.source import agent_files


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """One prompt file as it stands."""

    name: str
    path: str
    digest: str  # of its text
    version: str | None = None
    objective: str | None = None
    owner: str | None = None
    metadata: dict[str, Any] = {}
    used_by: list[str] = []  # agents


class Text(msgspec.Struct, frozen=True, kw_only=True):
    """One text that was locked: with which version of which agent, and where that serves (its labels)."""

    digest: str
    agent: str
    file_version: int
    behaviour_digest: str
    locked_at: float
    git_commit: str | None
    labels: list[str]


def prompts(versions: Versions) -> list[Prompt]:
    """Every prompt below ``prompts/``. A prompt file that cannot be read is an error with file and line."""
    project, ownership = versions.project, Ownership(versions.project)
    users: dict[str, list[str]] = {}
    for path in agent_files(project.root):
        data = read_yaml(path, shown_as=path.relative_to(project.root).as_posix()).data
        agent = data.get("agent") if isinstance(data, dict) else None
        if isinstance(agent, dict) and isinstance(agent.get("system_prompt"), str):
            names = users.setdefault(agent["system_prompt"], [])
            if str(agent.get("name")) not in names:
                names.append(str(agent.get("name")))
    found = []
    for path in prompt_files(project.root):
        shown = path.relative_to(project.root).as_posix()
        text, spec = read_prompt(project.root, shown)
        found.append(
            Prompt(
                name=spec.name if spec else path.stem,
                path=shown,
                digest=sha256(text.encode()),
                version=None if spec is None or spec.version is None else str(spec.version),
                objective=spec.objective if spec else None,
                owner=ownership.of("prompt", path).owner,
                metadata=spec.metadata if spec else {},
                used_by=users.get(shown, []),
            )
        )
    return found


def find(versions: Versions, name: str) -> Prompt:
    """A prompt by its name or its path. Raises :class:`NotFound`."""
    every = prompts(versions)
    found = [one for one in every if name in (one.path, one.name)]
    if not found:
        raise NotFound(f"no prompt {name!r} below prompts/", remedy=did_you_mean(name, [one.name for one in every]))
    if len(found) > 1:
        raise InputError(f"{name!r} names {len(found)} prompts", remedy=f"give the path, such as {found[0].path}")
    return found[0]


def history(versions: Versions, prompt: Prompt) -> list[Text]:
    """The texts its agents were locked with, the newest first."""
    with versions.control.read() as connection:
        serving = connection.execute(deployments.select()).mappings().all()
    texts = []
    for agent in prompt.used_by:
        for row in versions.history(agent):
            labels = sorted(one["environment"] for one in serving if one["stable_behaviour"] == row.behaviour_digest)
            texts.append(
                Text(
                    digest=sha256(versions.load(row.behaviour_digest).system_prompt.encode()),
                    agent=row.agent,
                    file_version=row.file_version,
                    behaviour_digest=row.behaviour_digest,
                    locked_at=row.created_at,
                    git_commit=row.git_commit,
                    labels=labels,
                )
            )
    return sorted(texts, key=lambda one: -one.locked_at)


def difference(versions: Versions, before: str, after: str) -> list[str]:
    """The prompts of two versions of agents, as a diff."""
    old, new = (versions.load(versions.find(ref)).system_prompt.splitlines() for ref in (before, after))
    return list(difflib.unified_diff(old, new, before, after, lineterm=""))
