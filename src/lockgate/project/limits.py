"""Limits of projects, tenants, agents, keys and models, as ``lockgate.yaml`` writes them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from zoneinfo import ZoneInfo

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lockgate.project.strict import Strict


class Allowance(Strict):
    """What one of them may use. What is not named is not limited."""

    usd: float | None = Field(default=None, ge=0, description="USD in all: for a session, a label, a task.")
    tokens: int | None = Field(default=None, ge=0, description="Tokens in all.")
    calls: int | None = Field(default=None, ge=0, description="Calls in all.")
    daily_usd: float | None = Field(default=None, ge=0, description="USD a day.")
    daily_tokens: int | None = Field(default=None, ge=0, description="Tokens a day.")
    monthly_usd: float | None = Field(default=None, ge=0, description="USD a calendar month.")
    monthly_tokens: int | None = Field(default=None, ge=0, description="Tokens a calendar month.")
    requests_per_minute: float | None = Field(default=None, gt=0, description="Requests a minute, and so many at once.")
    tokens_per_minute: float | None = Field(default=None, gt=0, description="Tokens a minute, and so many at once.")
    concurrent: int | None = Field(default=None, ge=0, description="Calls under way at the same time.")

    @field_validator("requests_per_minute", "tokens_per_minute", mode="before")
    @classmethod
    def _flows(cls, value: Any) -> Any:
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0:
            raise PydanticCustomError(
                "rate",
                "{message}",
                {
                    "message": "a rate is above 0",
                    "remedy": "leave it out where there is to be no limit, or write `calls: 0` to let no call through",
                },
            )
        return value


class RunAllowance(Strict):
    """What one run may do at most, when a caller names it by a header and no run token does."""

    max_llm_calls: int = Field(default=10, ge=0, description="Model calls.")
    max_tool_calls: int = Field(default=20, ge=0, description="Tool calls.")
    max_iterations: int = Field(default=3, ge=0, description="Iterations, as `x-lockgate-iteration` counts them.")
    max_tokens_per_run: int = Field(default=50_000, ge=0, description="Tokens.")
    max_seconds: float = Field(default=300.0, gt=0, description="Seconds from its first call.")
    max_usd_per_run: float | None = Field(default=None, ge=0, description="USD.")
    max_depth: int = Field(default=2, ge=0, description="Runs that start runs.")
    max_repeats: int = Field(default=5, ge=1, description="The same tool call with the same arguments.")


class LimitSpec(Strict):
    """Limits by name; ``*`` holds for each that has no entry of its own (each for itself, not all together)."""

    time_zone: str | None = Field(
        default=None, description="Where days and months begin, such as `Europe/Berlin`. Default: UTC."
    )
    project: Allowance | None = Field(default=None, description="All calls of an environment together.")
    tenants: dict[str, Allowance] = Field(default_factory=dict, description="By tenant.")
    agents: dict[str, Allowance] = Field(default_factory=dict, description="By agent.")
    keys: dict[str, Allowance] = Field(default_factory=dict, description="By the key's id.")
    models: dict[str, Allowance] = Field(default_factory=dict, description="By `PROVIDER/NAME`.")
    sessions: dict[str, Allowance] = Field(default_factory=dict, description="By session; `*` is the useful one.")
    tasks: dict[str, Allowance] = Field(default_factory=dict, description="By the header `x-lockgate-task`.")
    labels: dict[str, Allowance] = Field(default_factory=dict, description="By each of `x-lockgate-labels`.")
    runs: RunAllowance | None = Field(default=None, description="Runs named by the header `x-lockgate-run`.")

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                ZoneInfo(value)
            except (OSError, KeyError, ValueError):
                raise PydanticCustomError(
                    "time_zone",
                    "{message}",
                    {"message": f"no time zone {value!r}", "remedy": "write one such as Europe/Berlin"},
                ) from None
        return value

    def over(self, other: LimitSpec) -> LimitSpec:
        """These limits, and where they say nothing those of ``other``."""

        def both(name: str) -> Mapping[str, Allowance]:
            return {**getattr(other, name), **getattr(self, name)}

        scopes = ("tenants", "agents", "keys", "models", "sessions", "tasks", "labels")
        changed = {
            "time_zone": self.time_zone or other.time_zone,
            "project": self.project or other.project,
            "runs": self.runs or other.runs,
            **{name: both(name) for name in scopes},
        }
        return self.model_copy(update=changed)
