"""``deprecations.yaml``: a project's own rows over the bundled table of announced ends."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from lockgate.project.model import Project, Strict
from lockgate.project.yamlfile import read_yaml, validate
from lockgate.versions.contracts import inside
from lockgate.versions.deprecations import Deprecation, Table


def _day(value: Any) -> Any:
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise PydanticCustomError("day", "not a day", {"remedy": "write 2027-01-31"}) from None


Day = Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]


class DeprecationRow(Strict):
    """When one model goes."""

    retires: Day = Field(description="The day from which calls to it may fail.")
    announced: Day | None = Field(default=None, description="The day it was announced; warned of from then on.")
    replacement: str = Field(default="", description="What to move to.")
    source: str = Field(default="", description="Where it stands.")


class DeprecationFile(Strict):
    """Models' announced ends."""

    models: dict[str, DeprecationRow | None] = Field(
        description="By the model's name; `null` takes a row of the bundled table away."
    )


def project_table(project: Project) -> Table:
    """The project's own rows; empty when it names no file. Raises :class:`InputError` with file and line."""
    name = project.config.deprecations
    if name is None:
        return {}
    rows = validate(read_yaml(inside(project.root, name), shown_as=name), DeprecationFile).models
    return {model: None if row is None else _deprecation(model, row) for model, row in rows.items()}


def _deprecation(model: str, row: DeprecationRow) -> Deprecation:
    return Deprecation(
        model=model,
        retires=row.retires,
        announced=row.announced,
        replacement=row.replacement,
        source=row.source,
    )
