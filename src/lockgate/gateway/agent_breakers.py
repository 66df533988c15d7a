"""Agents whose runs keep failing are left alone for a while, and another agent answers: ``breaker:`` in the agent file.

State is this worker's own, and what it hears from the others. Only runs of the stable version count: a candidate that
fails is the rollout's to judge.
"""

from __future__ import annotations

from collections.abc import Callable

from lockgate.errors import LimitExceeded, LockgateError, Unavailable
from lockgate.gateway.model import Route
from lockgate.gateway.upstreams.breaker import Breaker
from lockgate.results import RunResult

NOT_THE_AGENTS = frozenset(
    ("budget_exceeded", "rate_limited", "killed", "model_killed", "refused", "approval_rejected", "approval_expired",
     "input_invalid", "cancelled", "depth_exceeded", "unscored", "shadow_unsupported")
)  # fmt: skip
"""How a run may fail without anything being wrong with its agent."""
MAX_STEPS = 4
"""Agents in a chain of fallbacks."""

TellAgent = Callable[[str, str, str | None, bool], None]
"""``tell(environment, agent, fallback, is_open)``."""


class AgentBreakers:
    """The breakers of one worker, by environment and agent."""

    def __init__(self, tell: TellAgent) -> None:
        self._tell = tell
        self._breakers: dict[tuple[str, str], Breaker] = {}

    def stand_in(self, route: Route, find: Callable[[str], Route], now: float) -> Route:
        """The route to take: the agent's own, or its fallback's while its breaker is open.

        ``find`` gives another agent's route in the same environment. Raises :class:`Unavailable` when none is left.
        """
        asked = route.agent
        for _ in range(MAX_STEPS):
            settings = route.settings.breaker
            if not settings:
                return route
            breaker = self._breaker(route)
            if breaker.allows(now):
                return route
            fallback = settings.get("fallback")
            if not fallback:
                break
            route = find(fallback)
        left = max(1.0, self._breaker(route).seconds_left(now))
        raise Unavailable(
            f"the runs of agent {route.agent!r} keep failing; it is left alone for another {left:.0f} s",
            remedy=f"lockgate runs list --agent {route.agent}"
            + ("" if route.agent == asked else f" (it stands in for {asked!r})"),
        )

    def ended(self, route: Route, arm: str, result: RunResult | None, error: LockgateError | None, now: float) -> None:
        """Learn from a run: its result, or why there is none (neither: its caller left)."""
        if not route.settings.breaker or arm != "stable":
            return
        breaker = self._breaker(route)
        failed = isinstance(error, LockgateError) and not isinstance(error, LimitExceeded) and error.status >= 500
        if result is not None and result.status == "failed":
            failed = result.error_type not in NOT_THE_AGENTS
        if failed:
            was_closed = breaker.state(now) == "closed"
            if breaker.failed(now) and was_closed:
                self._tell(route.environment, route.agent, route.settings.breaker.get("fallback"), True)
        elif result is not None and result.status in ("completed", "suspended"):
            if breaker.succeeded(now):
                self._tell(route.environment, route.agent, None, False)
        else:
            breaker.forgot()

    def heard(self, environment: str, agent: str, is_open: bool, at: float) -> None:
        """Another worker's breaker of this agent opened, or closed."""
        self._breakers.setdefault((environment, agent), Breaker()).heard(is_open, at)

    def _breaker(self, route: Route) -> Breaker:
        key, settings = (route.environment, route.agent), route.settings.breaker
        breaker = self._breakers.get(key)
        if breaker is None:
            breaker = self._breakers[key] = Breaker()
        breaker.threshold = int(settings.get("failure_threshold", breaker.threshold))
        breaker.reset = float(settings.get("reset_timeout", breaker.reset))
        return breaker
