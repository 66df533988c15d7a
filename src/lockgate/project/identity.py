"""Whose tokens count beside API keys, as ``lockgate.yaml`` says."""

from __future__ import annotations

from typing import Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator
from pydantic_core import PydanticCustomError

from lockgate.project.strict import Strict

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a key pair alone: a shared secret could sign as well as verify."""


class ClaimNames(Strict):
    """Which claim says what. A claim inside another is named with dots."""

    tenant: str = Field(default="tenant", description="Who pays; a token without it is refused.")
    agents: str | None = Field(default=None, description="A list of agents it may run. Default: any.")
    models: str | None = Field(default=None, description="A list of `PROVIDER/NAME` it may call. Default: any.")
    tools: str | None = Field(default=None, description="A list of tools. Default: any.")
    roles: str | None = Field(default=None, description="A list of roles. Default: none.")


class Issuer(Strict):
    """One issuer of JSON Web Tokens (an OpenID Connect provider)."""

    issuer: str = Field(description="The `iss` of its tokens, and the address its configuration is found under.")
    audience: str = Field(min_length=1, description="The `aud` that its tokens must have.")
    environment: str = Field(description="The environment its tokens are good for.")
    algorithms: list[Algorithm] = Field(default=["RS256", "ES256"], min_length=1, description="Signatures that count.")
    jwks: str | None = Field(default=None, description="Where its keys are. Default: as its configuration says.")
    claims: ClaimNames = Field(default_factory=ClaimNames, description="Which claim says what.")
    leeway: float = Field(default=30.0, ge=0, le=300, description="Seconds that clocks may be apart.")
    max_age: float | None = Field(default=None, gt=0, description="Seconds after `iat` that a token counts at most.")

    @field_validator("issuer", "jwks")
    @classmethod
    def _is_safe(cls, value: str | None) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        local = parts.hostname in ("localhost", "127.0.0.1", "::1")
        if not (parts.scheme == "https" or (parts.scheme == "http" and local)) or not parts.hostname:
            message = f"{value!r} is no https address"
            raise PydanticCustomError("issuer", "{message}", {"message": message, "remedy": "write https://…"})
        return value
