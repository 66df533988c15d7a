"""What a gateway asks a host to run, and where hosts and the control plane listen: what both sides must agree on."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path
from typing import Any, Literal

import msgspec

_LONGEST_ADDRESS = 100

Arm = Literal["stable", "candidate", "shadow", "direct"]
"""Which side of a rollout a run is on; ``direct`` when the caller named the version."""

RunMode = Literal["live", "shadow"]


class Origin(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a call counts for, as its caller says; a run's calls count for what the one said who started it."""

    key: str = ""  # the caller's API key
    key_limits: tuple[tuple[str, float], ...] = ()  # its own, by the names of project.limits.Allowance
    session: str | None = None
    task: str | None = None
    labels: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    cache: Literal["", "bypass", "refresh"] = ""  # whether answers may come from the cache, and go into it


class RunRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One run of the version a host serves (POST /runs, JSON). A :class:`~lockgate.results.RunResult` comes back."""

    run_id: str
    agent: str
    environment: str
    behaviour_digest: str
    effective_digest: str
    arm: Arm
    rollout_id: str | None
    assignment_key: str
    session: str | None
    tenant: str
    input: Any  # a string, or {"messages": [...]}
    trace_id: str  # 32 hex
    parent_span: str | None  # 16 hex
    token: str  # the run token its model calls carry
    mode: RunMode = "live"
    primary_run: str | None = None  # of a shadow
    depth: int = 0  # 0 for a caller's own run, 1 for a run that one started, ...
    tools: tuple[str, ...] | None = None  # that the caller may have called; None: any
    origin: Origin = Origin()


def host_socket(home: Path, effective_digest: str) -> Path:
    """The Unix socket of the host that serves a version: ``<home>/run/host-<12 hex>.sock``."""
    return _socket(home, f"host-{effective_digest.removeprefix('sha256:')[:12]}.sock")


def control_socket(home: Path) -> Path:
    """The Unix socket of the control plane: ``<home>/run/control.sock``."""
    return _socket(home, "control.sock")


def command_socket(home: Path) -> Path:
    """The Unix socket where the control plane takes what commands hand over: ``<home>/run/command.sock``."""
    return _socket(home, "command.sock")


def _socket(home: Path, name: str) -> Path:
    # A path too long for a socket address (104 bytes on some systems) moves to a private folder for temporary files.
    path = home / "run" / name
    if len(os.fsencode(path)) < _LONGEST_ADDRESS:
        return path
    folder = hashlib.sha256(os.fsencode(home)).hexdigest()[:12]
    return Path(tempfile.gettempdir()) / f"lockgate-{os.getuid()}-{folder}" / name
