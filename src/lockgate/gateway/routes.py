"""Which version serves an agent now. Pure.

A candidate is served on a lease that the control plane renews. When nobody renews it, because the control plane or
the store is away, the route falls back to what is known to be good: the stable version alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from difflib import get_close_matches

import msgspec

from lockgate.errors import NotFound
from lockgate.gateway.model import Route


def in_force(route: Route, now: float) -> Route:
    """The route as it holds at ``now``: without its candidate once the lease has lapsed."""
    if route.candidate is None or (route.lease_until is not None and now < route.lease_until):
        return route
    return msgspec.structs.replace(route, candidate=None, rollout_id=None, weight=0.0, mirror=0.0)


class Routes:
    """A snapshot of every route, as one reading of the store had them."""

    def __init__(self, routes: Iterable[Route] = ()) -> None:
        self._routes = {(route.environment, route.agent): route for route in routes}

    def agents(self, environment: str) -> list[str]:
        """The agents that have a route in an environment, sorted."""
        return sorted(agent for place, agent in self._routes if place == environment)

    def settings_of(self, environment: str, agent: str) -> Route | None:
        """The route whatever its lease says, for settings that every version shares."""
        return self._routes.get((environment, agent))

    def get(self, environment: str, agent: str, now: float) -> Route:
        """The route in force, else :class:`NotFound`."""
        route = self._routes.get((environment, agent))
        if route is None:
            near = get_close_matches(agent, self.agents(environment), 1)
            raise NotFound(
                f"no agent {agent!r} is deployed in {environment!r}",
                remedy=f"did you mean {near[0]!r}?" if near else f"lockgate deploy {agent} --env {environment}",
            )
        return in_force(route, now)


def chosen(key: str, percent: float) -> bool:
    """Whether ``key`` is among the ``percent`` (0..100) of keys: the same answer for the same key, everywhere."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
    return number < percent / 100 * 2**64
