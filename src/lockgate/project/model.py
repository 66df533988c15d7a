"""What ``lockgate.yaml`` says."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import msgspec
from pydantic import BaseModel, ConfigDict, Field

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Strict(BaseModel):
    """The base of everything read from a file: unknown keys are errors, values are not coerced."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Provider(Strict):
    """Where models are served. ``kind: local`` runs the named weights on this machine."""

    kind: Literal["openai", "anthropic", "local"] = Field(description="The wire protocol, or `local`.")
    base_url: str | None = Field(default=None, description="The API's root; each kind has a default.")
    api_key: str | None = Field(default=None, description="A secret reference such as `${env:OPENAI_API_KEY}`.")
    weights: str | None = Field(
        default=None, description="For `local`: a known model's name, or a path to a GGUF file."
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds until a model call is given up.")


class EnvironmentPolicy(Strict):
    """What an environment refuses."""

    require_owner: bool = Field(default=True, description="Refuse an agent that nobody owns.")
    require_pinned_model: bool = Field(default=True, description="Refuse a model name that can be moved.")
    require_gate: bool = Field(default=True, description="Refuse what has no passing attestation of the eval gate.")


class Environment(Strict):
    """One of dev, staging, prod: the same version flows through all of them."""

    providers: dict[str, Provider] = Field(default_factory=dict, description="Overrides by provider name.")
    policy: EnvironmentPolicy | None = Field(
        default=None, description="Default: everything required in `prod`, else nothing."
    )


class ProjectConfig(Strict):
    """The project file, ``lockgate.yaml``."""

    project: str = Field(pattern=NAME, description="The project's name.")
    owner: str | None = Field(default=None, description="Who owns what names no owner of its own.")
    providers: dict[str, Provider] = Field(
        default_factory=dict, description="By name. openai, anthropic, ollama and local need no entry."
    )
    prices: str | None = Field(default=None, description="A YAML file of prices, over the bundled table.")
    environments: dict[str, Environment] = Field(
        default_factory=lambda: {"dev": Environment(), "staging": Environment(), "prod": Environment()},
        description="By name. Default: dev, staging, prod.",
    )


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """A loaded project: where it is, and what its file says."""

    root: Path
    home: Path  # state: control.db, traces.db, blobs/, run/
    config: ProjectConfig


class ResolvedProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as one environment resolves it. ``api_key`` is still a reference: secrets resolve at use."""

    name: str
    kind: str
    base_url: str
    api_key: str | None
    weights: str | None
    timeout: float

    def identity(self) -> dict[str, Any]:
        """What of it can change an answer, for the effective digest."""
        return {"kind": self.kind, "base_url": self.base_url, "weights": self.weights}
