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
    used_in: list[str] = []  # the newest version of each that names this file: AGENT@VERSION
    serves_in: list[str] = []  # environments


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
    users: dict[str, dict[str, int]] = {}
    for path in agent_files(project.root):
        data = read_yaml(path, shown_as=path.relative_to(project.root).as_posix()).data
        agent = data.get("agent") if isinstance(data, dict) else None
        if isinstance(agent, dict) and isinstance(agent.get("system_prompt"), str):
            name, number = str(agent.get("name")), agent.get("version", 1)
            known = users.setdefault(agent["system_prompt"], {})
            known[name] = max(known.get(name, 0), number if isinstance(number, int) else 0)
    serving = _serving(versions)
    found = []
    for path in prompt_files(project.root):
        shown = path.relative_to(project.root).as_posix()
        text, spec = read_prompt(project.root, shown)
        digest, mine = sha256(text.encode()), users.get(shown, {})
        found.append(
            Prompt(
                name=spec.name if spec else path.stem,
                path=shown,
                digest=digest,
                version=None if spec is None or spec.version is None else str(spec.version),
                objective=spec.objective if spec else None,
                owner=ownership.of("prompt", path).owner,
                metadata=spec.metadata if spec else {},
                used_by=list(mine),
                used_in=[f"{name}@{number}" for name, number in mine.items()],
                serves_in=sorted({env for env, agent, text in serving if agent in mine and text == digest}),
            )
        )
    return found


def _serving(versions: Versions) -> list[tuple[str, str, str]]:
    """``(environment, agent, digest of the prompt's text)`` of all that is stable somewhere."""
    with versions.control.read() as connection:
        rows = connection.execute(deployments.select()).mappings().all()
    return [
        (row["environment"], row["agent"], sha256(versions.load(row["stable_behaviour"]).system_prompt.encode()))
        for row in rows
    ]


def find(versions: Versions, name: str) -> Prompt:
    """A prompt by its path, its name, or NAME@VERSION; of several versions under one name, the newest.

    Raises :class:`NotFound`, and :class:`InputError` when two files say they are the same version.
    """
    every = prompts(versions)
    plain, _, wanted = name.partition("@")
    found = [one for one in every if one.path == name] or [
        one for one in every if one.name == plain and (not wanted or one.version == wanted)
    ]
    if not found:
        named = [one.name if one.version is None else f"{one.name}@{one.version}" for one in every]
        raise NotFound(f"no prompt {name!r} below prompts/", remedy=did_you_mean(name, named))
    newest = max(_age(one) for one in found)
    found = [one for one in found if _age(one) == newest]
    if len(found) > 1:
        files = " and ".join(one.path for one in found)
        raise InputError(f"{name!r} is {files} alike", remedy=f"give the path, such as {found[0].path}")
    return found[0]


def _age(prompt: Prompt) -> tuple[int, str]:
    """What orders the versions of a prompt: numbers by their size."""
    version = prompt.version or ""
    return (int(version), "") if version.isdecimal() else (0, version)


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
