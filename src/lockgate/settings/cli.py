"""``lockgate settings``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, group, table

if TYPE_CHECKING:
    from lockgate.settings.model import Scope, Setting

settings = group(
    "Change what may change while everything runs: limits, prices, alert rules, kill switch, rollout pause.\n\n"
    "Example: lockgate settings set kill on --agent refund-triage --reason 'pays twice'"
)

Name = Annotated[str, typer.Argument(help="The setting's name; `lockgate settings list --all` shows them.")]
Env = Annotated[str, typer.Option("--env", "-e", help="Only in this environment. Default: in all.")]
Agent = Annotated[str, typer.Option("--agent", "-a", help="Only for this agent.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Only for this tenant.")]
Model = Annotated[str, typer.Option("--model", help="Only for this model, PROVIDER/NAME, or PROVIDER/*.")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept, and told to whoever is refused.")]


@settings.command("list")
def list_(
    name: Annotated[str | None, typer.Argument(help="Only this setting.")] = None,
    everything: Annotated[bool, typer.Option("--all", help="Every setting there is, with what it takes.")] = False,
    env: Annotated[str | None, typer.Option("--env", "-e", help="Only what holds in this environment.")] = None,
    json: JsonFlag = False,
) -> None:
    """List what is set, or with --all what can be.

    Example: lockgate settings list --env prod
    """
    if everything:
        from lockgate.settings.catalogue import describe

        known = describe()
        rows = [(one["name"], one["takes"], " ".join(one["narrowed"]), one["help"]) for one in known]
        emit(known, json, lambda: table(("setting", "takes", "narrowed by", "what it does"), rows))
        return
    from lockgate.bootstrap import open_app

    found = open_app(last_good=True).settings.all(name, env)
    emit([_shown(one) for one in found], json, lambda: _draw(found))


@settings.command("get")
def get(
    name: Name, env: Env = "", agent: Agent = "", tenant: Tenant = "", model: Model = "", json: JsonFlag = False
) -> None:
    """Show what holds at a place: the narrowest setting that covers it.

    Example: lockgate settings get agent.daily_usd --env prod --agent refund-triage
    """
    from lockgate.bootstrap import open_app
    from lockgate.settings.catalogue import definition

    definition(name)
    known = open_app(last_good=True).settings.snapshot()
    found = known.find(name, environment=env, agent=agent, tenant=tenant, model=model)

    def render() -> None:
        if found is None:
            console().print(f"{name} is not set there: the default holds", markup=False)
        else:
            _draw([found])

    emit(None if found is None else _shown(found), json, render)


@settings.command("set")
def set_(
    name: Name,
    value: Annotated[str, typer.Argument(help="The value, as YAML: on, 25, '{input: 0.2, output: 0.8}'.")] = "on",
    env: Env = "",
    agent: Agent = "",
    tenant: Tenant = "",
    model: Model = "",
    reason: Reason = "",
    json: JsonFlag = False,
) -> None:
    """Put a value in force: every gateway and the control plane take it within two seconds, without a restart.

    Example: lockgate settings set agent.daily_usd 25 --env prod --agent refund-triage --reason "campaign"
    """
    from lockgate.bootstrap import open_app
    from lockgate.project.yamlfile import parse_yaml

    done = open_app(last_good=True).settings.set(
        name, parse_yaml(value, "VALUE").data, _scope(env, agent, tenant, model), actor=_who(), reason=reason
    )

    def render() -> None:
        one = done.setting
        console().print(f"{one.name} = {_value(one.value)} ({one.scope}), revision {one.revision}", markup=False)
        for note in done.notes:
            console(stderr=True).print(f"note: {note}", markup=False)

    emit({**_shown(done.setting), "notes": done.notes}, json, render)


@settings.command("unset")
def unset(
    name: Name,
    env: Env = "",
    agent: Agent = "",
    tenant: Tenant = "",
    model: Model = "",
    reason: Reason = "",
    json: JsonFlag = False,
) -> None:
    """Take a value away: a wider one, or the default, holds again.

    Example: lockgate settings unset kill --agent refund-triage --reason "fixed in version 4"
    """
    from lockgate.bootstrap import open_app

    was = open_app(last_good=True).settings.unset(name, _scope(env, agent, tenant, model), actor=_who(), reason=reason)
    emit(_shown(was), json, lambda: console().print(f"{name} is not set any more for: {was.scope}", markup=False))


@settings.command("history")
def history(
    name: Annotated[str | None, typer.Argument(help="Only this setting.")] = None,
    env: Annotated[str | None, typer.Option("--env", "-e", help="Only what holds in this environment.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 100,
    json: JsonFlag = False,
) -> None:
    """Who changed what, when and why: the newest first.

    Example: lockgate settings history kill
    """
    import msgspec

    from lockgate.bootstrap import open_app

    found = open_app(last_good=True).settings.history(name, environment=env, limit=limit)
    rows = [
        (
            one.revision,
            _time(one.at),
            one.actor,
            one.name,
            str(one.scope),
            "unset" if one.removed else _value(one.value),
            one.reason,
        )
        for one in found
    ]
    columns = ("revision", "at (UTC)", "by", "setting", "for", "value", "reason")
    emit(msgspec.to_builtins(found), json, lambda: table(columns, rows))


def _scope(env: str, agent: str, tenant: str, model: str) -> Scope:
    from lockgate.settings.model import Scope

    return Scope(environment=env, agent=agent, tenant=tenant, model=model)


def _shown(one: Setting) -> dict[str, Any]:
    import msgspec

    return dict(msgspec.to_builtins(one))


def _draw(found: list[Setting]) -> None:
    if not found:
        console().print("nothing is set: the defaults hold")
        return
    rows = [
        (one.name, str(one.scope), _value(one.value), one.actor, _time(one.at), one.reason, one.revision)
        for one in found
    ]
    table(("setting", "for", "value", "by", "since (UTC)", "reason", "revision"), rows)


def _value(value: Any) -> str:
    import msgspec

    if isinstance(value, bool):
        return "on" if value else "off"
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _who() -> str:
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "cli"
