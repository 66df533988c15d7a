"""What the commands of rollouts do, by name: the same here and in the control plane that a command hands it over to.

Each takes the service and plain arguments, and gives what the command prints with ``--json``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from lockgate.rollouts.model import Rollout
    from lockgate.rollouts.service import Rollouts

Verb = Callable[..., dict[str, Any]]


def deploy(
    rollouts: Rollouts, *, ref: str, environment: str, direct: bool, override: str | None, by: str
) -> dict[str, Any]:
    done = rollouts.deploy(ref, environment, direct=direct, override_reason=override, by=by)
    return {
        "outcome": done.outcome,
        "environment": done.environment,
        "version": msgspec.to_builtins(done.version),
        "rollout": done.rollout.id if done.rollout else None,
        "message": done.message,
    }


def undo(rollouts: Rollouts, *, agent: str, environment: str, reason: str, by: str) -> dict[str, Any]:
    return dict(msgspec.to_builtins(rollouts.undo(agent, environment, reason=reason, by=by)))


def promote(rollouts: Rollouts, *, ref: str, environment: str | None, reason: str, by: str) -> dict[str, Any]:
    return _brief(rollouts.promote(ref, environment, reason=reason, by=by))


def abort(rollouts: Rollouts, *, ref: str, environment: str | None, reason: str, by: str) -> dict[str, Any]:
    return _brief(rollouts.abort(ref, environment, reason=reason, by=by))


def pause(rollouts: Rollouts, *, ref: str, environment: str | None, reason: str, by: str) -> dict[str, Any]:
    return _brief(rollouts.pause(ref, environment, reason=reason, by=by))


def resume(rollouts: Rollouts, *, ref: str, environment: str | None, reason: str, by: str) -> dict[str, Any]:
    return _brief(rollouts.resume(ref, environment, reason=reason, by=by))


def retry(rollouts: Rollouts, *, ref: str, environment: str | None, by: str) -> dict[str, Any]:
    return _brief(rollouts.retry(ref, environment, by=by))


VERBS: dict[str, Verb] = {
    "deploy": deploy,
    "undo": undo,
    "promote": promote,
    "abort": abort,
    "pause": pause,
    "resume": resume,
    "retry": retry,
}


def _brief(rollout: Rollout) -> dict[str, Any]:
    from lockgate.rollouts.view import brief

    return brief(rollout)
