"""Heartbeats, what they are answered, and an instance as the fleet sees it. Times are Unix seconds."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from lockgate.project.model import NAME

Said = Literal["ok", "degraded", "stopping"]
State = Literal["ok", "degraded", "stopping", "missing"]
Role = Literal["reports", "stable", "candidate", "previous", "retired"]
"""``reports``: an instance that is not ours and tells of itself. The others are our hosts, by what they serve."""

FIELD_INTERVAL = 600.0
"""Seconds between the heartbeats of agents that do not say how often they send them: what the field does."""


class Heartbeat(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an instance says of itself: ``version`` is what it runs (a digest, 12 hex of one, or a file version), and
    ``interval`` the seconds until it reports again."""

    agent: Annotated[str, msgspec.Meta(pattern=NAME, max_length=128)]
    instance: Annotated[str, msgspec.Meta(min_length=1, max_length=128)]
    version: Annotated[str, msgspec.Meta(max_length=128)] = ""
    status: Said = "ok"
    message: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    interval: Annotated[float, msgspec.Meta(ge=1, le=86_400)] = 60.0


class Event(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """A heartbeat as agents of the field send it, as an event. Who it is may be left to the key."""

    type: str
    status_message: Annotated[str, msgspec.Meta(max_length=1000)] = ""
    agent: Annotated[str, msgspec.Meta(pattern=NAME, max_length=128)] | None = None
    instance: Annotated[str, msgspec.Meta(min_length=1, max_length=128)] | None = None
    version: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """The version that serves an agent in an environment, and since when."""

    behaviour_digest: str
    effective_digest: str
    file_version: int
    since: float


class Directive(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a heartbeat: the version the instance should have, and where to pull it."""

    environment: str
    agent: str
    instance: str
    config_version: str
    """The behaviour digest it should run."""
    effective_digest: str
    file_version: int
    up_to_date: bool | None
    """None: it did not say what it runs."""
    lag_seconds: float
    pull: str | None
    """``oci://…@sha256:…``, for ``lockgate pull`` or any OCI client, with the key as the password."""


class Reported(msgspec.Struct, frozen=True, kw_only=True):
    """An instance as it last told of itself."""

    environment: str
    agent: str
    instance: str
    version: str
    status: Said
    message: str
    interval: float
    first_seen_at: float
    last_seen_at: float
    behind_since: float | None = None


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the fleet. ``lag``: seconds for which it runs another version than it should; 0 when it does not."""

    environment: str
    agent: str
    instance: str
    role: Role
    runs: str
    should_run: str
    lag: float
    status: State
    message: str
    last_seen_at: float
