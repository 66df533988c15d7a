"""``lockgate deploy``, ``lockgate rollout …`` and ``lockgate control``."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, group, table
from lockgate.errors import InputError

if TYPE_CHECKING:
    from lockgate.rollouts.model import Rollout
    from lockgate.rollouts.service import Rollouts

SAY_SECONDS = 5.0
"""How often a watched rollout says where it stands, when nothing happens to it."""

rollout = group("Start, watch and steer a staged rollout.\n\nExample: lockgate rollout status refund-triage --watch")

Environment = Annotated[str, typer.Option("--env", "-e", help="The environment.")]
AnyEnvironment = Annotated[str | None, typer.Option("--env", "-e", help="The environment; default: the latest in any.")]
Which = Annotated[str, typer.Argument(help="A rollout's id, or an agent (its latest rollout).")]
Reason = Annotated[str, typer.Option("--reason", "-r", help="Why; it is kept in the audit log.")]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow it to its end: exit 0 promoted, 1 rolled back.")]


def deploy(
    version: Annotated[str, typer.Argument(help="agent, agent@3, agent@DIGEST, or a path to an agent file.")],
    env: Environment = "prod",
    direct: Annotated[bool, typer.Option("--direct", help="No phases: take over as soon as a host is ready.")] = False,
    override: Annotated[
        str | None, typer.Option("--override", help="Go past policy and holds, for this reason (audited).")
    ] = None,
    watch: Watch = False,
    json: JsonFlag = False,
) -> None:
    """Bring a gated version to an environment: the first one at once, later ones by a rollout.

    Example: lockgate deploy refund-triage@3 --env prod --watch
    """
    _deploy(version, env, direct=direct, override=override, watch=watch, json=json)


def apply(
    env: Environment = "prod",
    agent: Annotated[
        list[str] | None, typer.Option("--agent", "-a", help="Only this agent; repeat for several.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    json: JsonFlag = False,
) -> None:
    """Bring an environment to what lockgate.yaml says of it: each agent as by `lockgate deploy`.

    Exit code 1 when an agent is held, refused, or cannot be read; the others are brought about all the same.

    Example: lockgate apply --env prod --dry-run
    """
    import msgspec

    from lockgate.bootstrap import open_app

    environments = open_app().environments
    if dry_run:
        steps = [step for step in environments.plan(env) if agent is None or step.agent in agent]
    else:
        steps = environments.apply(env, by=_who(), only=agent)

    def render() -> None:
        if not steps:
            console().print(f"lockgate.yaml names no agent in {env}; add environments.{env}.agents")
            return
        table(("agent", "status", "action", ""), [(one.agent, one.status, one.action, one.message) for one in steps])

    emit(msgspec.to_builtins(steps), json, render)
    if any(step.action in ("held", "refused", "error") for step in steps):
        raise typer.Exit(1)


gitops = group("Follow a git branch that says what ought to serve.\n\nExample: lockgate gitops status")


@gitops.command("status")
def gitops_status(json: JsonFlag = False) -> None:
    """Synced, OutOfSync, Progressing or Degraded, for each agent that the branch names; 1 unless all are Synced.

    Example: lockgate gitops status
    """
    import msgspec

    from lockgate.bootstrap import open_app

    app = open_app()
    config, source, states = app.gitops.config, app.gitops.source(), app.gitops.states()

    def render() -> None:
        seen = source.seen_commit[:12] or "nothing yet"
        console().print(f"{config.repository} {config.branch}: {seen}", markup=False)
        if source.error:
            console().print(f"not followed: {source.error}", markup=False, style="red")
        columns = ("environment", "agent", "status", "wants", "")
        table(
            columns,
            [(one.environment, one.agent, one.status, one.wanted_behaviour[7:19], one.message) for one in states],
        )

    emit({"source": msgspec.to_builtins(source), "agents": msgspec.to_builtins(states)}, json, render)
    if source.error or any(one.status != "Synced" for one in states):
        raise typer.Exit(1)


@gitops.command("sync")
def gitops_sync(json: JsonFlag = False) -> None:
    """Look at the repository now, and converge, without waiting for the control plane.

    Example: lockgate gitops sync
    """
    import msgspec

    from lockgate.bootstrap import open_app

    app = open_app()
    _ = app.gitops.config
    app.gitops.ask()
    steps = app.gitops.tick()
    error = app.gitops.source().error

    def render() -> None:
        if error:
            console().print(f"not followed: {error}", markup=False, style="red")
        rows = [(one.environment, one.agent, one.status, one.action, one.message) for one in steps]
        table(("environment", "agent", "status", "action", ""), rows)

    emit({"error": error, "agents": msgspec.to_builtins(steps)}, json, render)
    if error or any(step.status == "Degraded" for step in steps):
        raise typer.Exit(1)


@rollout.command("start")
def start(
    version: Annotated[str, typer.Argument(help="agent, agent@3, agent@DIGEST, or a path to an agent file.")],
    env: Environment = "prod",
    override: Annotated[
        str | None, typer.Option("--override", help="Go past policy and holds, for this reason (audited).")
    ] = None,
    watch: Watch = False,
    json: JsonFlag = False,
) -> None:
    """Start a rollout: the same as `lockgate deploy`.

    Example: lockgate rollout start refund-triage@4 --env prod --watch
    """
    _deploy(version, env, direct=False, override=override, watch=watch, json=json)


@rollout.command("list")
def list_(
    env: AnyEnvironment = None,
    agent: Annotated[str | None, typer.Option("--agent", "-a", help="Only this agent's.")] = None,
    live: Annotated[bool, typer.Option("--live", help="Only those that are still on.")] = False,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="At most so many.")] = 20,
    json: JsonFlag = False,
) -> None:
    """List rollouts, newest first.

    Example: lockgate rollout list --env prod --live
    """
    found = [_brief(one) for one in _rollouts().list(environment=env, agent=agent, live=live, limit=limit)]

    def render() -> None:
        if not found:
            console().print("no rollouts; start one with: lockgate deploy AGENT")
            return
        rows = [
            (one["id"], one["agent"], one["environment"], _stage(one), _versions(one), _age(one), one["reason"])
            for one in found
        ]
        table(("id", "agent", "env", "status", "versions", "age", "reason"), rows)

    emit(found, json, render)


@rollout.command("get")
def get(which: Which, env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Show one rollout, its plan and its history.

    Example: lockgate rollout get refund-triage --env prod
    """
    from lockgate.rollouts.view import describe, draw

    rollouts = _rollouts()
    found = rollouts.status(which, env)
    emit(describe(found), json, lambda: draw(found, history=True))


@rollout.command("status")
def status(
    which: Which,
    env: AnyEnvironment = None,
    watch: Watch = False,
    timeout: Annotated[float, typer.Option(min=0, help="With --watch: give up after so many seconds; 0: never.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Where a rollout stands: its phase, each metric's evidence, and what it waits for.

    With --watch the exit code is 0 promoted, 1 rolled back or aborted, 3 still undecided at the timeout.
    Example: lockgate rollout status refund-triage --watch
    """
    from lockgate.rollouts.view import describe, draw

    rollouts = _rollouts()
    found = rollouts.status(which, env)
    if watch:
        raise typer.Exit(_follow(rollouts, found.rollout.id, timeout=timeout, json=json))
    emit(describe(found), json, lambda: draw(found))


@rollout.command("promote")
def promote(which: Which, reason: Reason, env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Make the candidate stable now, whatever phase it is in.

    Example: lockgate rollout promote refund-triage --reason "verified by hand"
    """
    _show(_do("promote", ref=which, environment=env, reason=reason), json)


@rollout.command("abort")
def abort(which: Which, reason: Reason, env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Back to stable now; the candidate is held until a retry or an override.

    Example: lockgate rollout abort refund-triage --reason "complaints from support"
    """
    _show(_do("abort", ref=which, environment=env, reason=reason), json)


@rollout.command("pause")
def pause(which: Which, reason: Reason = "", env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Stay in this phase; harm still rolls back.

    Example: lockgate rollout pause refund-triage --reason "holiday freeze"
    """
    _show(_do("pause", ref=which, environment=env, reason=reason), json)


@rollout.command("resume")
def resume(which: Which, reason: Reason = "", env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Go on after a pause.

    Example: lockgate rollout resume refund-triage
    """
    _show(_do("resume", ref=which, environment=env, reason=reason), json)


@rollout.command("retry")
def retry(which: Which, env: AnyEnvironment = None, json: JsonFlag = False) -> None:
    """Start an ended rollout again; its evidence goes on where it stood.

    Example: lockgate rollout retry refund-triage --env prod
    """
    _show(_do("retry", ref=which, environment=env), json)


@rollout.command("undo")
def undo(
    agent: Annotated[str, typer.Argument(help="The agent.")],
    reason: Reason,
    env: Environment = "prod",
    json: JsonFlag = False,
) -> None:
    """The previous version serves again at once, while it is still warm.

    Example: lockgate rollout undo refund-triage --env prod --reason "wrong refunds"
    """
    done = _do("undo", agent=agent, environment=env, reason=reason)
    serves = _short(done["stable"]["behaviour_digest"])
    emit(done, json, lambda: console().print(f"{agent} in {env} serves {serves} again", markup=False))


@rollout.command("simulate")
def simulate(
    version: Annotated[str, typer.Argument(help="The version whose plan to look at: agent, agent@3, or a file.")],
    env: Environment = "prod",
    units: Annotated[int, typer.Option(min=10, max=100_000, help="Candidate units to look ahead.")] = 1000,
    trials: Annotated[int, typer.Option(min=10, max=10_000, help="Simulated rollouts.")] = 200,
    seed: Annotated[int, typer.Option(help="Of the random numbers.")] = 0,
    json: JsonFlag = False,
) -> None:
    """What the plan can decide, and after how many units.

    Example: lockgate rollout simulate refund-triage --env prod
    """
    import msgspec

    from lockgate.rollouts.view import draw_forecasts

    rollouts = _rollouts()
    plan, traffic = rollouts.plan_of(version, env)
    if not plan.metrics:
        raise InputError(f"the rollout of {version!r} watches no metric", remedy="add gates to its rollout block")
    if units * trials > 20_000_000:
        raise InputError(f"{units} units × {trials} trials is too much", remedy="keep the product below 20 million")
    from lockgate.rollouts.simulate import simulate as run

    with console(stderr=True).status(f"simulating {trials} rollouts of {units} candidate units…"):
        found = run(plan, traffic, units=units, trials=trials, seed=seed)
    data = {"traffic": msgspec.to_builtins(traffic), "forecasts": msgspec.to_builtins(found), "units": units}
    emit(data, json, lambda: draw_forecasts(plan, traffic, found, units))


def control() -> None:
    """Start the control plane alone: the API on its socket, and the controllers.

    Example: lockgate control
    """
    from lockgate.control import run

    run()


def _deploy(version: str, env: str, *, direct: bool, override: str | None, watch: bool, json: bool) -> None:
    done = _do("deploy", ref=_from_here(version), environment=env, direct=direct, override=override)
    rollout = done["rollout"]

    def render() -> None:
        console().print(done["message"], markup=False)
        if rollout and not watch:
            agent = done["version"]["agent"]
            console().print(f"  → lockgate rollout status {agent} --env {env} --watch", markup=False)

    emit(done, json and not watch, render)
    if watch and rollout:
        raise typer.Exit(_follow(_rollouts(), rollout, timeout=0, json=json))


def _do(verb: str, **arguments: Any) -> dict[str, Any]:
    """Have the control plane do it when one runs, else do it here: the same, and as fast as it can be."""
    from lockgate.handover import hand_over
    from lockgate.rollouts.verbs import VERBS

    arguments["by"] = _who()
    done = hand_over(verb, arguments)
    return VERBS[verb](_rollouts(), **arguments) if done is None else done


def _from_here(ref: str) -> str:
    """The path of an agent file made absolute, because the control plane has another working directory."""
    here = Path(ref).absolute()
    return str(here) if ref.endswith((".yaml", ".yml")) and here.is_file() else ref


def _follow(rollouts: Rollouts, rollout_id: str, *, timeout: float, json: bool) -> int:
    """Print what happens until it is over; the exit code that says how."""
    from lockgate.rollouts.view import describe, draw, line

    shown, last, say_at = 0, "", 0.0
    stop_at = time.monotonic() + timeout if timeout else None
    while True:
        found = rollouts.status(rollout_id)
        if not json:
            for event in found.events[shown:]:
                console().print(f"{_clock(event.at)}  {event.kind}: {event.message}", markup=False)
            now = line(found)
            if now != last and (time.monotonic() >= say_at or not found.rollout.live):  # as the table below it
                console().print(f"{_clock(time.time())}  {now}", markup=False, style="dim")
                last, say_at = now, time.monotonic() + SAY_SECONDS
        shown = len(found.events)
        over = not found.rollout.live
        if over or (stop_at is not None and time.monotonic() >= stop_at):
            emit(describe(found), json, lambda: draw(found))  # noqa: B023 - drawn at once
            return 3 if not over else 0 if found.rollout.status == "promoted" else 1
        time.sleep(1.0)


def _rollouts() -> Rollouts:
    from lockgate.bootstrap import open_app

    return open_app(last_good=True).rollouts


def _show(one: dict[str, Any], json: bool) -> None:
    reason = f" ({one['reason']})" if one["reason"] else ""
    text = f"{one['id']}: {one['agent']} in {one['environment']} is {_stage(one)}{reason}"
    emit(one, json, lambda: console().print(text, markup=False))


def _brief(one: Rollout) -> dict[str, Any]:
    from lockgate.rollouts.view import brief

    return brief(one)


def _stage(one: dict[str, Any]) -> str:
    """The status of a rollout, and the phase that it is in, or ended in."""
    status, phase, names = one["status"], one["phase"], one["phases"]
    if status == "promoted" or (status not in ("running", "paused") and phase >= len(names)):
        return str(status)
    name = f"{names[phase]} ({phase + 1}/{len(names)})" if phase < len(names) else "direct"
    return name if status == "running" else f"{status}, {name}" if status == "paused" else f"{status} in {name}"


def _versions(one: dict[str, Any]) -> str:
    from lockgate.rollouts.view import between

    return between(one["baseline"]["behaviour_digest"], one["candidate"]["behaviour_digest"])


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def _age(one: dict[str, Any]) -> str:
    seconds = (one["ended_at"] or time.time()) - one["created_at"]
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds / size:.0f}{unit}"
    return f"{seconds:.0f}s"


def _clock(at: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(at))


def _who() -> str:
    import getpass

    try:
        return f"cli:{getpass.getuser()}"
    except (KeyError, OSError):  # a user id without a name, as in some containers
        return "cli"
