"""``lockgate up``, ``lockgate gateway`` and ``lockgate keys``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, table
from lockgate.errors import InputError

if TYPE_CHECKING:
    from lockgate.gateway.model import ApiKey

Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Gateway processes.")]
Drain = Annotated[float, typer.Option("--drain", min=0, help="Seconds that calls get to end on a stop.")]


def up(
    host: Host = "127.0.0.1",
    port: Port = 8700,
    workers: Workers = 2,
    drain: Drain = 30.0,
) -> None:
    """Start gateway, hosts and control plane on this machine.

    Everything is behind one URL; Ctrl-C stops it after the calls under way.

    Example: lockgate up --port 8700 --workers 2
    """
    from lockgate.bootstrap import open_app
    from lockgate.gateway.serving import start

    start(open_app(), host, port, workers=workers, drain=drain, everything=True)


def gateway(
    host: Host = "127.0.0.1",
    port: Port = 8700,
    workers: Workers = 2,
    drain: Drain = 30.0,
) -> None:
    """Start the gateway workers alone, without control plane and hosts.

    Example: lockgate gateway --host 0.0.0.0 --port 8700
    """
    from lockgate.bootstrap import open_app
    from lockgate.gateway.serving import start

    start(open_app(), host, port, workers=workers, drain=drain, everything=False)


keys = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Create, list and revoke API keys.\n\nExample: lockgate keys create --tenant acme --env prod",
)


@keys.command("create")
def create_key(
    tenant: Annotated[str, typer.Option("--tenant", help="Who pays.")],
    environment: Annotated[str, typer.Option("--env", help="The environment the key is for.")] = "dev",
    name: Annotated[str, typer.Option("--name", help="What the key is for.")] = "",
    role: Annotated[list[str] | None, typer.Option("--role", help="A role; repeat for several.")] = None,
    agent: Annotated[list[str] | None, typer.Option("--agent", help="An agent it may run. Default: any.")] = None,
    model: Annotated[list[str] | None, typer.Option("--model", help="A provider/model it may call.")] = None,
    expires: Annotated[str | None, typer.Option("--expires", help="How long it is good: 12h, 30d.")] = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and show it, once.

    Example: lockgate keys create --tenant acme --env prod --name "support desk" --expires 90d
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
        agents=agent or None,
        models=model or None,
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
    from lockgate.bootstrap import open_app

    app = open_app()
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
            _state(key, now),
        )
        for key in found
    ]
    columns = ("id", "name", "tenant", "environment", "agents", "models", "state")
    emit([_shown(key) for key in found], json, lambda: table(columns, rows))


@keys.command("revoke")
def revoke_key(key: Annotated[str, typer.Argument(help="The key's id, as `keys list` shows it.")]) -> None:
    """Refuse a key from now on; every gateway does within two seconds.

    Example: lockgate keys revoke key_01k9x7c1r5
    """
    from lockgate.bootstrap import open_app

    open_app().keys.revoke(key)
    console().print(f"{key} is revoked.", markup=False)


def _shown(key: ApiKey) -> dict[str, object]:
    import msgspec

    shown: dict[str, object] = msgspec.to_builtins(key)
    return shown


def _state(key: ApiKey, now: float) -> str:
    if key.revoked_at is not None:
        return "revoked"
    if key.expires_at is None:
        return "good"
    when = datetime.fromtimestamp(key.expires_at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return f"expired {when}" if key.expires_at <= now else f"good until {when}"


def _seconds(text: str) -> float:
    units = {"s": 1, "m": 60, "h": 3600, "d": 86400}
    number, unit = text[:-1], text[-1:]
    if unit not in units or not number.isdecimal() or int(number) == 0:
        raise InputError(f"--expires is {text!r}", remedy="write a number and a unit: 90m, 12h, 30d")
    return float(int(number) * units[unit])
