"""The limits in force: what ``lockgate.yaml`` says now, for each environment."""

from __future__ import annotations

from collections.abc import Callable

from lockgate.limits.book import Book
from lockgate.project.model import Project, ProjectConfig


class Books:
    """``books(environment)`` is the environment's limits; made anew when the project's configuration was, or when
    another number of ``machines`` shares its rates (None: it is one machine, and its caps are its own)."""

    def __init__(self, project: Project, machines: Callable[[], int] | None = None) -> None:
        self._project = project
        self._machines = machines
        self._made: dict[str, tuple[ProjectConfig, int, Book]] = {}

    def __call__(self, environment: str) -> Book:
        config = self._project.config
        machines = 1 if self._machines is None else self._machines()
        made = self._made.get(environment)
        if made is None or made[0] is not config or made[1] != machines:
            made = self._made[environment] = (config, machines, self._make(config, environment, machines))
        return made[2]

    def _make(self, config: ProjectConfig, environment: str, machines: int) -> Book:
        own = config.environments.get(environment)
        limits = config.limits if own is None else own.limits.over(config.limits)
        return Book(environment, limits, shared=self._machines is not None, machines=machines)

    def all(self) -> list[Book]:
        """One of each environment."""
        return [self(environment) for environment in self._project.config.environments]
