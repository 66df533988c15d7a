"""How a case says that it is a simulation: ``metadata.simulation`` of a golden set's line."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import Case


class UserScript(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Who the simulated user is and what they want. ``model`` is ``provider:name`` (default: the agent's own).

    The conversation ends when the user says one of ``stop``, or after ``max_turns`` answers of the agent.
    """

    goal: str
    persona: str = ""
    known: str = ""
    unknown: str = ""
    model: str | None = None
    stop: tuple[str, ...] = ("###STOP###", "###TRANSFER###", "###OUT-OF-SCOPE###")
    max_turns: int = 20
    greeting: str = "Hi! How can I help you today?"
    temperature: float = 0.0
    max_tokens: int = 256


class Simulation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A user, a world, or both. ``world`` is ``path/to/file.py:function``, from the project's root."""

    user: UserScript | None = None
    world: str | None = None


def simulation_of(case: Case) -> Simulation | None:
    """The simulation of a case; None where it is a single question. Raises :class:`InputError`."""
    given = case.metadata.get("simulation")
    if given is None:
        return None
    try:
        found = msgspec.convert(given, Simulation)
    except msgspec.ValidationError as wrong:
        raise InputError(
            f"case {case.id!r}: metadata.simulation: {wrong}",
            remedy='write {"user": {"goal": …, "persona": …}, "world": "evals/worlds/shop.py:world"}',
        ) from None
    if found.user is not None and not 1 <= found.user.max_turns <= 200:
        raise InputError(
            f"case {case.id!r}: metadata.simulation.user.max_turns is {found.user.max_turns}, not in 1..200",
            remedy="20 is usual",
        )
    return found


def trial_key(case: Case, root: Path = Path()) -> str:
    """What a trial of the case is kept under: the case's digest and, of a simulation, its world's file too, which is
    named from ``root``."""
    given: Any = case.metadata.get("simulation")
    world = given.get("world") if isinstance(given, dict) else None
    if not isinstance(world, str):
        return case.digest
    file = root / world.rpartition(":")[0]
    source = file.read_bytes() if file.is_file() else b""
    return "sha256:" + hashlib.sha256(case.digest.encode() + b" " + hashlib.sha256(source).digest()).hexdigest()
