"""Finds and loads a project, and resolves what an environment makes of it."""

from __future__ import annotations

import os
from pathlib import Path

from lockgate.errors import InputError
from lockgate.project import lastgood
from lockgate.project.model import (
    Environment,
    EnvironmentPolicy,
    Project,
    ProjectConfig,
    Provider,
    ResolvedProvider,
    ResolvedUpstream,
)
from lockgate.project.places import PROJECT_FILE as PROJECT_FILE
from lockgate.project.places import find_root, home_of
from lockgate.project.secrets import check_reference, is_reference
from lockgate.project.yamlfile import Document, did_you_mean, read_yaml, validate

BASE_URLS = {
    "openai": "https://api.openai.com/v1",
    "anthropic": "https://api.anthropic.com/v1",
    "local": "",
    "azure": "",
    "any-llm": "",
}

WELL_KNOWN = {
    "openai": Provider(kind="openai", api_key="${env:OPENAI_API_KEY}"),
    "anthropic": Provider(kind="anthropic", api_key="${env:ANTHROPIC_API_KEY}"),
    "ollama": Provider(kind="openai", base_url="http://127.0.0.1:11434/v1"),
    "local": Provider(kind="local"),
}
"""Providers that need no entry in the project file; an entry of the same name replaces one."""

NOTHING_REQUIRED = EnvironmentPolicy(require_owner=False, require_pinned_model=False, require_gate=False)
_SECRET_HEADERS = ("key", "token", "secret", "password")
"""How headers end whose values are secrets: they stand there by reference."""


def load_project(start: Path | None = None, *, last_good: bool | None = None) -> Project:
    """The project that ``start`` (default: the working directory) is in.

    State lives in ``.lockgate/`` beside the project file, or where ``LOCKGATE_HOME`` says. ``last_good``: go by the
    last file that could be read when this one cannot (:mod:`lockgate.project.lastgood`); None: if the environment says
    so.
    """
    start = start or Path.cwd()
    root = find_root(start)
    if root is None:
        folder = start.resolve()
        raise InputError(
            f"no {PROJECT_FILE} in {str(folder.parent if folder.is_file() else folder)!r} or above it",
            remedy="lockgate init NAME makes a project; or change into one",
        )
    home = home_of(root)
    try:
        document = read_yaml(root / PROJECT_FILE, shown_as=PROJECT_FILE)
        config = _with_files(validate(document, ProjectConfig), document, root)
        _check(document, config, root)
    except InputError as wrong:
        wanted = lastgood.ENVIRONMENT in os.environ if last_good is None else last_good
        kept = lastgood.recall(home) if wanted else None
        if kept is None:
            raise
        return Project(root=root, home=home, config=kept, problem=wrong.message)
    return Project(root=root, home=home, config=config)


def _with_files(config: ProjectConfig, document: Document, root: Path) -> ProjectConfig:
    """The configuration with each environment that names a file read from it."""
    if all(environment.file is None for environment in config.environments.values()):
        return config
    environments = dict(config.environments)
    for name, environment in config.environments.items():
        if environment.file is None:
            continue
        place = ("environments", name, "file")
        if environment.model_fields_set != {"file"}:
            raise document.error(place, f"{name} has a file and other keys", remedy="put the other keys into the file")
        path = root / environment.file
        if not path.resolve().is_relative_to(root.resolve()):
            raise document.error(place, f"{environment.file!r} is outside the project", remedy="move it inside")
        read = validate(read_yaml(path, shown_as=environment.file), Environment)
        if read.file is not None:
            raise document.error(place, f"{environment.file!r} names another file", remedy="write the keys there")
        environments[name] = read.model_copy(update={"file": environment.file})
    return config.model_copy(update={"environments": environments})


def _check(document: Document, config: ProjectConfig, root: Path) -> None:
    groups: list[tuple[tuple[str, ...], dict[str, Provider]]] = [(("providers",), config.providers)]
    for name, environment in config.environments.items():
        groups.append((("environments", name, "providers"), environment.providers))
        for provider in environment.providers:
            if provider not in config.providers and provider not in WELL_KNOWN:
                place = ("environments", name, "providers", provider)
                raise document.error(
                    place,
                    f"the environment overrides a provider {provider!r} that the project does not have",
                    remedy=did_you_mean(provider, [*config.providers, *WELL_KNOWN]),
                )
        if environment.mirror is not None:
            source = environment.mirror.source
            if source == name or source not in config.environments:
                raise document.error(
                    ("environments", name, "mirror", "from"),
                    f"{name} mirrors {source!r}, which is " + ("itself" if source == name else "no environment here"),
                    remedy=did_you_mean(source, [other for other in config.environments if other != name]),
                )
        for agent, placement in environment.agents.items():
            groups.append((("environments", name, "agents", agent, "providers"), placement.providers))
    for name, trusted in config.trusted_keys.items():
        for environment_name in trusted.environments or ():
            if environment_name not in config.environments:
                raise document.error(
                    ("trusted_keys", name, "environments"),
                    f"the key {name!r} is trusted in {environment_name!r}, which is no environment of this project",
                    remedy=did_you_mean(environment_name, list(config.environments)),
                )
    for group, providers in groups:
        for name, given in providers.items():
            keys: list[tuple[tuple[str | int, ...], str | None]] = [((*group, name, "api_key"), given.api_key)]
            keys += [
                ((*group, name, "upstreams", number, "api_key"), further.api_key)
                for number, further in enumerate(given.upstreams)
            ]
            keys += [
                ((*group, name, "headers", header), value)
                for header, value in given.headers.items()
                if is_reference(value) or header.lower().endswith(_SECRET_HEADERS)
            ]
            for at, reference in keys:
                try:
                    if reference is not None:
                        check_reference(reference)
                except InputError as wrong:
                    raise document.error(at, wrong.message, remedy=wrong.remedy) from None
    for key in ("prices", "deprecations"):
        named = getattr(config, key)
        if named is not None and not (root / named).is_file():
            raise document.error((key,), f"{key} is {named!r}: no such file", remedy="create it, or remove the key")


def prices_file(project: Project) -> Path | None:
    """The project's own prices, over the bundled table."""
    return None if project.config.prices is None else project.root / project.config.prices


def provider_names(project: Project) -> list[str]:
    """Every provider a model may name in this project."""
    return sorted({*project.config.providers, *WELL_KNOWN})


def resolve_provider(project: Project, name: str, environment: str, agent: str | None = None) -> ResolvedProvider:
    """The provider as this environment has it for ``agent``: the agent's override there, else the environment's, else
    the project's, else the well-known one."""
    known = project.config.environments
    if environment not in known:
        raise InputError(
            f"no environment {environment!r} in {PROJECT_FILE}", remedy=did_you_mean(environment, list(known))
        )
    placement = known[environment].agents.get(agent or "")
    own = placement.providers.get(name) if placement else None
    found = own or known[environment].providers.get(name) or project.config.providers.get(name) or WELL_KNOWN.get(name)
    if found is None:
        raise InputError(
            f"no provider {name!r} in {PROJECT_FILE}",
            remedy=f"add it under `providers:`, or use one of {', '.join(provider_names(project))}",
        )
    return ResolvedProvider(
        name=name,
        kind=found.kind,
        base_url=(found.base_url or BASE_URLS[found.kind]).rstrip("/"),
        api_key=found.api_key,
        weights=found.weights,
        timeout=found.timeout,
        retries=found.retries,
        api_version=found.api_version,
        vendor=found.vendor,
        first_token_timeout=found.first_token_timeout,
        hedge_after=found.hedge_after,
        private_urls=found.private_urls,
        upstreams=tuple(
            ResolvedUpstream(
                base_url=further.base_url.rstrip("/"),
                api_key=further.api_key or found.api_key,
                capacity=further.capacity,
                requests_per_minute=further.requests_per_minute,
            )
            for further in found.upstreams
        ),
        capacity=found.capacity,
        requests_per_minute=found.requests_per_minute,
        headers=tuple(sorted((header.lower(), value) for header, value in found.headers.items())),
        queue=found.queue,
        queue_timeout=found.queue_timeout,
        failure_threshold=found.breaker.failure_threshold,
        reset_timeout=found.breaker.reset_timeout,
        region=found.region,
    )


def mirrors_of(project: Project, environment: str) -> list[tuple[str, float]]:
    """``(environment, percent)`` of each that mirrors the traffic of ``environment``."""
    return [
        (name, each.mirror.share * 100)
        for name, each in project.config.environments.items()
        if each.mirror is not None and each.mirror.source == environment
    ]


def environment_policy(project: Project, environment: str, agent: str | None = None) -> EnvironmentPolicy:
    """What the environment refuses: its own policy, else everything in ``prod`` and nothing elsewhere.

    ``agent``: with the level that its placement there has, if it has one of its own.
    """
    known = project.config.environments
    if environment not in known:
        raise InputError(
            f"no environment {environment!r} in {PROJECT_FILE}", remedy=did_you_mean(environment, list(known))
        )
    policy = known[environment].policy or (EnvironmentPolicy() if environment == "prod" else NOTHING_REQUIRED)
    placement = known[environment].agents.get(agent or "")
    if placement is not None and placement.level is not None:
        return policy.model_copy(update={"level": placement.level})
    return policy
