"""What a diff compares: a file, a git revision, a digest, a locked version, or what an environment serves."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from lockgate.errors import InputError, NotFound
from lockgate.project.model import Project
from lockgate.versions import lockfile
from lockgate.versions.bundle import unpack
from lockgate.versions.diff import Snapshot
from lockgate.versions.locking import Names, pack_file
from lockgate.versions.revisions import commit_of, project_at
from lockgate.versions.source import agent_files

if TYPE_CHECKING:
    from lockgate.versions.service import Versions

Serves = Callable[[str, str], str | None]
"""``(environment, agent)`` → the behaviour digest that serves there, None when none does."""
Checkout = Callable[[Project, str], AbstractContextManager[Project]]
"""Opens the project as a git revision has it."""

_FILES = (".yaml", ".yml")
_DIGEST = re.compile(r"(sha256:)?[0-9a-f]{12,64}")
_NUMBER = re.compile(r"[@v]?[0-9]{1,6}", re.ASCII)


class Sides(NamedTuple):
    """What a diff compares. ``absent``: the agents that one side does not have; None when one agent was meant."""

    pairs: list[tuple[Snapshot, Snapshot]]
    absent: list[str] | None = None


def sides(versions: Versions, before: str, after: str | None, serves: Serves) -> Sides:
    """Both sides. One that names no agent (``HEAD~1``, ``prod``) takes the other's, else the project's only one, else
    every agent is compared; without ``after`` it is the first one's file as it stands."""
    refs = [ref for ref in (before, after) if ref is not None]
    named = [agent for ref in refs if (agent := _agent(versions, ref)) is not None]
    agents = sorted(_locked_names(versions))
    if not named and len(agents) > 1 and not any(_one_agents(versions, ref) for ref in refs):
        return _every(versions, before, after, agents, serves)
    agent = named[0] if named else agents[0] if len(agents) == 1 else ""
    return Sides([_pair(versions, before, after, agent, serves, project_at)])


def _one_agents(versions: Versions, ref: str) -> bool:
    """Whether a ref that names no agent is of one all the same: a file, a number, a digest."""
    if ref in versions.project.config.environments:
        return False
    revision = _revision(versions, ref)
    return revision != ref or bool(_NUMBER.fullmatch(ref))


def _every(versions: Versions, before: str, after: str | None, agents: Sequence[str], serves: Serves) -> Sides:
    found: list[tuple[Snapshot, Snapshot]] = []
    absent: list[str] = []
    with ExitStack() as open_ones:
        read: dict[str, Project] = {}

        def checkout(project: Project, revision: str) -> AbstractContextManager[Project]:
            if revision not in read:
                read[revision] = open_ones.enter_context(project_at(project, revision))
            return nullcontext(read[revision])

        for ref in (before, after):
            if ref is not None and _revision(versions, ref) is not None:
                with checkout(versions.project, ref) as then:
                    agents = sorted({*agents, *(entry.agent for entry in lockfile.read_lock(then.root))})
        for agent in agents:
            try:
                one = _pair(versions, before, after, agent, serves, checkout)
            except NotFound:
                one = None
            if one is None or {side.version.agent for side in one} != {agent}:
                absent.append(agent)
            else:
                found.append((msgspec.structs.replace(one[0], label=f"{agent} in {one[0].label}"), one[1]))
    if not found:
        raise NotFound(f"{before!r} has none of the agents {', '.join(agents)}", remedy="name one side AGENT@VERSION")
    return Sides(found, absent)


def _pair(
    versions: Versions, before: str, after: str | None, agent: str, serves: Serves, checkout: Checkout
) -> tuple[Snapshot, Snapshot]:
    first = snapshot(versions, _numbered(versions, before, agent), agent, serves, checkout)
    second = _numbered(versions, after, agent) if after else _file_of(versions.project, first.version.agent)
    return first, snapshot(versions, second, agent, serves, checkout)


def _numbered(versions: Versions, ref: str, agent: str) -> str:
    """``support@3`` for ``3``, ``@3``, or a ``v3`` that is no tag of git's. Seven digits are a SHA."""
    if not _NUMBER.fullmatch(ref) or (ref.startswith("v") and commit_of(versions.project.root, ref) is not None):
        return ref
    if not agent:
        raise InputError(f"version {ref!r} of which agent?", remedy=f"name one side AGENT@{ref.lstrip('@v')}")
    return f"{agent}@{ref.lstrip('@v')}"


def snapshot(versions: Versions, ref: str, agent: str, serves: Serves, checkout: Checkout = project_at) -> Snapshot:
    """One side, by any kind of name."""
    project = versions.project
    environment = ref.rpartition("@")[2]
    if environment in project.config.environments and not ref.endswith(_FILES):
        name = ref.rpartition("@")[0] or agent
        digest = serves(environment, name)
        if digest is None:
            remedy = f"lockgate deploy {name or 'AGENT'} --env {environment}"
            raise NotFound(f"{name!r} does not serve in {environment!r}", remedy=remedy)
        return msgspec.structs.replace(versions.snapshot(digest), label=ref)
    if _revision(versions, ref) is not None:
        return _in_git(project, ref, agent, checkout)
    return versions.snapshot(ref)


def _revision(versions: Versions, ref: str) -> str | None:
    """The revision in ``REV:path.yaml`` or ``REV``; None when the ref is something else."""
    revision, colon, path = ref.partition(":")
    if colon and path.endswith(_FILES):
        return revision
    if colon or ref.endswith(_FILES) or "@sha256" in ref or ref in _locked_names(versions):
        return None
    name, at, wanted = ref.partition("@")
    if at and name in _locked_names(versions) and not wanted.startswith("{"):
        return None
    return ref if commit_of(versions.project.root, ref) is not None else None


def _in_git(project: Project, ref: str, agent: str, checkout: Checkout) -> Snapshot:
    revision, _, path = ref.partition(":")
    with checkout(project, revision) as then:
        file = path or _file_of(then, agent)
        if not (then.root / file).is_file():
            raise NotFound(f"{revision!r} has no file {file!r}", remedy=f"git ls-tree -r {revision} -- agents")
        names = Names(then, lockfile.read_lock(then.root), online=False)
        packed = pack_file(then.root / file, then, names)
    get = packed.bundle.blobs.__getitem__
    version = unpack(packed.entry.digest, get, file_version=packed.entry.version)
    code = {name: get(digest).decode(errors="replace") for name, digest in version.code.items()}
    return Snapshot(label=ref, version=version, settings=packed.source.settings, code=code)


def _agent(versions: Versions, ref: str) -> str | None:
    """The agent that a ref names by itself."""
    if ref.partition("@")[0] in _locked_names(versions):
        return ref.partition("@")[0]
    if ref.endswith(_FILES):
        path = Path(ref.partition(":")[2] or ref)
        return next(
            (entry.agent for entry in lockfile.read_lock(versions.project.root) if entry.file == path.as_posix()), None
        )
    if _DIGEST.fullmatch(ref):
        with suppress(NotFound):  # then it may be a commit
            return versions.load(ref).agent
    return None


def _locked_names(versions: Versions) -> set[str]:
    return {entry.agent for entry in lockfile.read_lock(versions.project.root)}


def _only(versions: Versions) -> str:
    names = _locked_names(versions)
    if len(names) == 1:
        return names.pop()
    return ""


def _file_of(project: Project, agent: str) -> str:
    """The agent's file with the highest version: as locked, else the only agent file there is."""
    entries = [entry for entry in lockfile.read_lock(project.root) if entry.agent == agent]
    here = [entry for entry in entries if (project.root / entry.file).is_file()]
    if here:
        return max(here, key=lambda entry: entry.version).file
    files = _relative(project, agent_files(project.root))
    if len(files) == 1:
        return files[0]
    remedy = "name one side AGENT@VERSION, or write REVISION:agents/NAME.yaml"
    if agent:
        raise NotFound(f"{agent!r} is not locked there", remedy=remedy)
    raise InputError("which agent's? No agent is named", remedy=remedy)


def _relative(project: Project, files: Iterable[Path]) -> list[str]:
    return [path.relative_to(project.root).as_posix() for path in files]
