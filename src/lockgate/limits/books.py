"""The limits in force: what ``lockgate.yaml`` says now, for each environment."""

from __future__ import annotations

from collections.abc import Callable

from lockgate.limits.book import Book
from lockgate.limits.overrides import with_settings
from lockgate.project.model import Project, ProjectConfig
from lockgate.settings.model import Snapshot


class Books:
    """``books(environment)`` is the environment's limits; made anew when the project's configuration was, or when
    another number of ``machines`` shares its rates (None: it is one machine, and its caps are its own)."""

    def __init__(
        self,
        project: Project,
        machines: Callable[[], int] | None = None,
        settings: Callable[[], Snapshot] = Snapshot,
    ) -> None:
        """``settings`` gives what people have set, which goes before the file."""
        self._project = project
        self._machines = machines
        self._settings = settings
        self._made: dict[str, tuple[ProjectConfig, int, int, Book]] = {}

    def __call__(self, environment: str) -> Book:
        config = self._project.config
        machines = 1 if self._machines is None else self._machines()
        settings = self._settings()
        made = self._made.get(environment)
        if made is None or made[0] is not config or made[1:3] != (machines, settings.revision):
            book = self._make(config, environment, machines, settings)
            made = self._made[environment] = (config, machines, settings.revision, book)
        return made[3]

    def _make(self, config: ProjectConfig, environment: str, machines: int, settings: Snapshot) -> Book:
        own = config.environments.get(environment)
        limits = with_settings(config.limits if own is None else own.limits.over(config.limits), settings, environment)
        return Book(environment, limits, shared=self._machines is not None, machines=machines)

    def all(self) -> list[Book]:
        """One of each environment."""
        return [self(environment) for environment in self._project.config.environments]
