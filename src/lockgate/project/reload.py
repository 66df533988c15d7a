"""Follows ``lockgate.yaml`` on disk, so that what of it is operational holds without a restart.

A file that cannot be read leaves the last good one in force. What is part of an effective digest (a provider's kind,
address and weights) stays as it was when this process began: it defines what served versions answer.
"""

from __future__ import annotations

import logging
from pathlib import Path

from lockgate.errors import LockgateError
from lockgate.project import lastgood
from lockgate.project.model import Environment, Project, ProjectConfig, Provider
from lockgate.project.service import PROJECT_FILE, WELL_KNOWN, load_project, provider_names, resolve_provider

log = logging.getLogger(__name__)

_IDENTITY = ("kind", "base_url", "weights", "api_version", "vendor", "upstreams")
Stamp = tuple[tuple[str, int, int, int], ...]


class ProjectFile:
    """The project file of one process. :meth:`refresh` replaces ``project.config``, which everybody reads."""

    def __init__(self, project: Project) -> None:
        self.problem: str | None = project.problem
        """What is wrong with the file as it stands; None when it is in force."""
        self.kept: list[str] = []
        """What stands in the file, and is not in force before a restart: parts of effective digests."""
        self._project = project
        self._began = project.config
        self._seen: Stamp = ()  # it may have been changed since it was loaded
        if project.problem is None:
            lastgood.remember(project)

    def refresh(self) -> bool:
        """Look whether the file was changed, and take it if it is good. True when another is in force now."""
        now = stamp(self._paths())
        if now == self._seen:
            return False
        self._seen = now
        try:
            read = load_project(self._project.root, last_good=False).config
        except LockgateError as wrong:
            self.problem = wrong.message
            log.warning("%s is not taken, the last good one stays in force: %s", PROJECT_FILE, wrong.message)
            return False
        self.problem = None
        config, self.kept = operational(self._began, read, self._project)
        for name in self.kept:
            log.warning(
                "%s changed in %s: it is part of effective digests, and holds from a restart on", name, PROJECT_FILE
            )
        if config == self._project.config:
            return False
        self._project.config = config
        lastgood.remember(self._project)
        self._seen = stamp(self._paths()) if len(self._paths()) != len(now) else now
        log.info("%s was changed, and is in force", PROJECT_FILE)
        return True

    def _paths(self) -> list[Path]:
        root = self._project.root
        named = [each.file for each in self._project.config.environments.values() if each.file is not None]
        return [root / PROJECT_FILE, *(root / name for name in sorted(named))]


def stamp(paths: list[Path]) -> Stamp:
    """What changes when a file does: its place on the disk, its size and its time."""
    found = []
    for path in paths:
        try:
            stat = path.stat()
        except OSError:
            found.append((str(path), 0, 0, 0))
        else:
            found.append((str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns))
    return tuple(found)


def operational(began: ProjectConfig, read: ProjectConfig, project: Project) -> tuple[ProjectConfig, list[str]]:
    """The configuration as read, but with every provider's identity as it was; and the names of those that differ."""
    before, after = _of(project, began), _of(project, read)
    kept: list[str] = []
    environments = dict(read.environments)
    for environment in read.environments:
        if environment not in began.environments:
            continue
        for name in provider_names(before):
            providers = _held(before, after, name, environment, None)
            if providers is not None:
                kept.append(f"providers.{name} (in {environment})")
                environments[environment] = _with(environments[environment], {name: providers})
            for agent, placement in began.environments[environment].agents.items():
                own = name in placement.providers or name in _placed(read, environment, agent)
                if own and (held := _held(before, after, name, environment, agent)) is not None:
                    kept.append(f"environments.{environment}.agents.{agent}.providers.{name}")
                    environments[environment] = _with_placed(environments[environment], agent, {name: held})
    return (read.model_copy(update={"environments": environments}) if kept else read), kept


def _held(before: Project, after: Project, name: str, environment: str, agent: str | None) -> Provider | None:
    """The provider with what it was at its beginning, where the file now says something else."""
    old = resolve_provider(before, name, environment, agent)
    if name not in provider_names(after):
        return None
    new = resolve_provider(after, name, environment, agent)
    if old.identity() == new.identity():
        return None
    was, now = _written(before, name, environment, agent), _written(after, name, environment, agent)
    return now.model_copy(update={field: getattr(was, field) for field in _IDENTITY})


def _written(project: Project, name: str, environment: str, agent: str | None) -> Provider:
    """The entry that :func:`resolve_provider` goes by."""
    here = project.config.environments[environment]
    places = (_placed(project.config, environment, agent or ""), here.providers, project.config.providers, WELL_KNOWN)
    return next(place[name] for place in places if name in place)


def _placed(config: ProjectConfig, environment: str, agent: str) -> dict[str, Provider]:
    placement = config.environments[environment].agents.get(agent)
    return {} if placement is None else placement.providers


def _with(environment: Environment, providers: dict[str, Provider]) -> Environment:
    return environment.model_copy(update={"providers": {**environment.providers, **providers}})


def _with_placed(environment: Environment, agent: str, providers: dict[str, Provider]) -> Environment:
    placement = environment.agents.get(agent)
    if placement is None:
        return environment
    changed = placement.model_copy(update={"providers": {**placement.providers, **providers}})
    return environment.model_copy(update={"agents": {**environment.agents, agent: changed}})


def _of(project: Project, config: ProjectConfig) -> Project:
    return Project(root=project.root, home=project.home, config=config)
