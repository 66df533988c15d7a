"""Daily budgets that ``lockgate.yaml`` gives an agent in an environment, followed while everything runs."""

from __future__ import annotations

import msgspec

from lockgate.project.model import Budgets, ProjectConfig
from lockgate.rollouts import controller, store
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.versions.service import Versions


def follow(control: Database, versions: Versions, before: ProjectConfig, after: ProjectConfig, *, now: float) -> int:
    """Put budgets that changed in the file in force for what is deployed; returns how many agents that were.

    Environments that a git branch is followed for get them from there.
    """
    changed = {
        (environment, agent): wanted
        for environment, each in after.environments.items()
        for agent in {
            *each.agents,
            *(before.environments[environment].agents if environment in before.environments else ()),
        }
        if (wanted := _budgets(after, environment, agent)) != _budgets(before, environment, agent)
        and not is_followed(after, environment)
    }
    done = 0
    for (environment, agent), wanted in changed.items():
        with control.write() as connection:
            deployed = store.deployment(connection, environment, agent)
            if deployed is None:
                continue
            own = versions.settings(deployed.stable.behaviour_digest)
            settings = msgspec.structs.replace(
                deployed.settings,
                daily_usd=own.daily_usd if wanted.daily_usd is None else wanted.daily_usd,
                daily_tokens=own.daily_tokens if wanted.daily_tokens is None else wanted.daily_tokens,
            )
            if settings == deployed.settings:
                continue
            store.save_deployment(connection, msgspec.structs.replace(deployed, settings=settings, updated_at=now))
            route = store.route(connection, environment, agent) or controller.stable_route(deployed)
            store.save_route(connection, msgspec.structs.replace(route, settings=settings))
            audit.record(
                connection,
                at=now,
                actor="lockgate.yaml",
                action="settings",
                subject=f"{environment}/{agent}",
                details={"budgets": wanted.model_dump()},
            )
            done += 1
    return done


def _budgets(config: ProjectConfig, environment: str, agent: str) -> Budgets:
    each = config.environments.get(environment)
    placement = None if each is None else each.agents.get(agent)
    return Budgets() if placement is None else placement.budgets


def is_followed(config: ProjectConfig, environment: str) -> bool:
    """Whether a git branch, and not this machine's file, says what serves there."""
    if config.gitops is None:
        return False
    return config.gitops.environments is None or environment in config.gitops.environments
