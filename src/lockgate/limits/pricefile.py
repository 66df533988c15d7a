"""``prices.yaml``: a project's own prices, over the bundled table.

openai:
  gpt-4o-mini-2024-07-18: {input: 0.15, output: 0.60, cached: 0.075}   # USD per million tokens
ollama:
  "*": {input: 0, output: 0}                                           # every other model of this provider
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import ConfigDict, Field

from lockgate.project.strict import Late, Strict
from lockgate.project.yamlfile import read_yaml, validate

Usd = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class PriceRow(Strict):
    """What one model costs."""

    input: Usd = Field(description="USD per million input tokens.")
    output: Usd = Field(description="USD per million output tokens, reasoning included.")
    cached: Usd | None = Field(None, description="USD per million input tokens read from a cache; default: as input.")
    request: Usd = Field(0.0, description="USD for each request, whatever its tokens.")
    batch: float = Field(1.0, gt=0, le=1, description="The share of it that requests of batches cost; OpenAI's: 0.5.")


class PriceFile(Late):
    """Provider name → model name, or ``*`` for its other models → price."""

    model_config = ConfigDict(extra="allow", strict=True)
    __pydantic_extra__: dict[str, dict[str, PriceRow]]


def read_prices(path: Path) -> dict[str, dict[str, PriceRow]]:
    """The file's rows; :class:`InputError` names file, line, value and remedy."""
    return validate(read_yaml(path), PriceFile).__pydantic_extra__
