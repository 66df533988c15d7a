"""``lockgate keys``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, group, table
from lockgate.errors import InputError

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.gateway.model import ApiKey

keys = group("Create, list, rotate and revoke API keys.\n\nExample: lockgate keys create --tenant acme --env prod")


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", help="Who pays.")],
    environment: Annotated[str, typer.Option("--env", help="The environment the key is for.")] = "dev",
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "",
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat for several.")] = None,
    agents: Annotated[
        list[str] | None, typer.Option("--agent", "--agents", help="Agents it may run, by commas. Default: any.")
    ] = None,
    models: Annotated[
        list[str] | None, typer.Option("--model", "--models", help="provider/models it may call. Default: any.")
    ] = None,
    tools: Annotated[
        list[str] | None, typer.Option("--tool", "--tools", help="Tools its calls may offer a model. Default: any.")
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option("--limit", help="A limit of its own, such as daily_usd=5 or requests_per_minute=60."),
    ] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="How long it is good: 12h, 30d.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and show it, once.

    Example: lockgate keys create --tenant acme --env prod --agents refund-triage --limit daily_usd=5 --expires 90d
    """
    from lockgate.bootstrap import open_app

    app = open_app()
    known = list(app.project.config.environments)
    if environment not in known:
        raise InputError(f"no environment {environment!r} in lockgate.yaml", remedy=f"one of {', '.join(known)}")
    secret, key = app.keys.create(
        tenant=tenant,
        environment=environment,
        name=name,
        roles=role or (),
        agents=_names(agents),
        models=_names(models),
        tools=_names(tools),
        limits=_limits(limit or []),
        expires_at=None if expires is None else app.clock() + _seconds(expires),
    )

    def render() -> None:
        console().print(secret, style="bold", markup=False)
        console().print(f"{key.id}, for {tenant} in {environment}. It cannot be shown again.", markup=False)

    emit({"key": secret, **_shown(key)}, json, render)


@keys.command("list")
def list_keys(json: JsonFlag = False) -> None:
    """List keys, without their secrets.

    Example: lockgate keys list
    """
    app = _open_store()
    found = app.keys.all()
    now = app.clock()
    rows = [
        (
            key.id,
            key.name,
            key.tenant,
            key.environment,
            "any" if key.agents is None else ", ".join(key.agents),
            "any" if key.models is None else ", ".join(key.models),
            "any" if key.tools is None else ", ".join(key.tools),
            ", ".join(f"{name}={value:g}" for name, value in key.limits),
            _state(key, now),
        )
        for key in found
    ]
    columns = ("id", "name", "tenant", "environment", "agents", "models", "tools", "limits", "state")
    emit([_shown(key) for key in found], json, lambda: table(columns, rows))


@keys.command("rotate")
def rotate_key(
    key: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")],
    grace: Annotated[str, typer.Option("--grace", help="How long the old secret stays good: 0s, 1h, 7d.")] = "1d",
    json: JsonFlag = False,
) -> None:
    """Give a key another secret, shown once; its id, limits and spending stay.

    Example: lockgate keys rotate key_01k9x7c1r5 --grace 1h
    """
    secret, rotated = _open_store().keys.rotate(key, grace=_seconds(grace, "--grace", least=0))

    def render() -> None:
        console().print(secret, style="bold", markup=False)
        console().print(
            f"{key}: the secret before is good for {grace} more. This one cannot be shown again.", markup=False
        )

    emit({"key": secret, **_shown(rotated)}, json, render)


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")]) -> None:
    """Refuse a key from now on; every gateway does within two seconds.

    Example: lockgate keys revoke key_01k9x7c1r5
    """
    _open_store().keys.revoke(key)
    console().print(f"{key} is revoked.", markup=False)


def _open_store() -> App:
    """The project, whatever state its file is in: a stolen key is revoked while somebody is writing it."""
    from lockgate.bootstrap import open_store

    app = open_store()
    if app.project.problem is not None:
        warning = f"warning: the project's file has a mistake, which nothing here depends on: {app.project.problem}"
        console(stderr=True).print(warning, style="yellow", markup=False, soft_wrap=True)
    return app


def _shown(key: ApiKey) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = msgspec.to_builtins(key)
    return shown | {"limits": dict(key.limits)}


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    when = datetime.fromtimestamp(key.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"expired {when}" if key.expires_at <= now else f"good until {when}"


def _names(given: list[str] | None) -> list[str] | None:
    """Names written one at a time, or several by commas."""
    return [name for one in given for name in one.split(",") if name] if given else None


def _limits(given: list[str]) -> dict[str, float]:
    limits: dict[str, float] = {}
    for one in given:
        name, _, value = one.partition("=")
        try:
            number = float(value)
        except ValueError:
            raise InputError(f"--limit is {one!r}", remedy="write NAME=NUMBER, such as daily_usd=5") from None
        limits[name] = int(number) if number.is_integer() else number
    return limits


def _seconds(text: str, option: str = "--expires", *, least: int = 1) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal() or int(number) < least:
        raise InputError(f"{option} is {text!r}", remedy="write a number and a unit: 90m, 12h, 30d")
    return float(int(number) * units[unit])
