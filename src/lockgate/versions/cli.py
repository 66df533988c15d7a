"""``lockgate lock``, ``diff``, ``versions`` and ``schema``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, console, emit, group, table

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.versions.diff import BehaviourDiff, Snapshot
    from lockgate.versions.estimate import Cost
    from lockgate.versions.model import Finding, LockResult, ModelRef
    from lockgate.versions.store import VersionRow

versions = group("List, show and verify locked versions.\n\nExample: lockgate versions --git HEAD", alone=True)


def lock(
    files: Annotated[list[Path] | None, typer.Argument(help="Agent files; default: all below agents/.")] = None,
    check: Annotated[bool, typer.Option("--check", help="Write nothing; fail when the lock file is stale.")] = False,
    same_number: Annotated[
        bool, typer.Option("--same-number", help="Let a deployed version's number name another behaviour.")
    ] = False,
    json: JsonFlag = False,
) -> None:
    """Turn each agent into one version with one digest, and write lockgate.lock.

    Example: lockgate lock --check
    """
    from lockgate.project.places import find_root, home_of
    from lockgate.versions import unchanged

    now = unchanged.wall_clock()
    root = None if files else find_root(Path.cwd())
    where = None if root is None else (root, home_of(root))
    result = None if where is None else unchanged.recall(*where, now)
    if result is None:
        from lockgate.bootstrap import open_app

        before = None if where is None else unchanged.look(*where, now)
        store = open_app().versions
        result = store.lock(files or None, check=check, same_number=same_number)
        if where is not None and not result.asked and not (check and result.stale):
            unchanged.remember(*where, before, result, now)
    result = _with_calibrations(result)
    emit(_lock_data(result), json, lambda: _draw_lock(result, check))
    if check and result.stale:
        raise typer.Exit(1)


def _with_calibrations(result: LockResult) -> LockResult:
    """Without the warnings of judges that people's labels have borne out; calibrations may be newer than the lock."""
    if not any(finding.kind == "judge" for finding in result.warnings):
        return result
    import msgspec

    from lockgate.bootstrap import open_app

    known = open_app().uncalibrated({finding.path or "" for finding in result.warnings if finding.kind == "judge"})
    warnings = []
    for finding in result.warnings:
        metrics = known.get(finding.path or "") if finding.kind == "judge" else None
        if metrics:
            finding = msgspec.structs.replace(finding, message=f"{finding.message}: {', '.join(metrics)}")
        if metrics != []:
            warnings.append(finding)
    return msgspec.structs.replace(result, warnings=warnings)


def _lock_data(result: LockResult) -> dict[str, Any]:
    return {
        "stale": result.stale,
        "written": result.written,
        "versions": result.versions,
        "changes": result.changes,
        "warnings": result.warnings,
    }


def _draw_lock(result: LockResult, check: bool) -> None:
    warn(result.warnings)
    changes = {(change.agent, change.version): change for change in result.changes}
    rows = []
    for entry in result.versions:
        change = changes.pop((entry.agent, entry.version), None)
        rows.append((f"{entry.agent}@{entry.version}", short(entry.digest), _what(change), entry.file))
    rows += [(f"{change.agent}@{change.version}", "", "removed", "") for change in changes.values()]
    table(("version", "digest", "", "file"), rows)
    if check and result.stale:
        console(stderr=True).print("lockgate.lock is stale\n  → lockgate lock, and commit it", markup=False)


def _what(change: Any) -> str:
    if change is None:
        return ""
    return f"{change.what}: {', '.join(change.parts)}" if change.parts else change.what


def short(digest: str) -> str:
    """The part of a digest that people type."""
    return digest.removeprefix("sha256:")[:12]


def warn(findings: Sequence[Finding]) -> None:
    """Print findings to standard error, each with its remedy."""
    from rich.text import Text

    for finding in findings:
        line = Text.assemble(("warning: ", "yellow"), str(finding))
        if finding.remedy:
            line.append(f"\n  → {finding.remedy}")
        console(stderr=True).print(line, soft_wrap=True)


def diff(
    before: Annotated[
        str,
        typer.Argument(
            help="AGENT, AGENT@3, 3 (where the agent is clear), a digest, an agent file, a git revision "
            "(HEAD~1, HEAD~1:agents/x.yaml), or an environment (prod, AGENT@prod)."
        ),
    ],
    after: Annotated[str | None, typer.Argument(help="Another; default: the first one's file as it stands.")] = None,
    as_markdown: Annotated[bool, typer.Option("--markdown", help="For a pull request.")] = False,
    json: JsonFlag = False,
) -> None:
    """Show how two versions of an agent differ in behaviour: what got looser, what changed, where.

    Where no side names an agent and the project has several, all that differ are shown.

    Example: lockgate diff refund-triage@2 refund-triage@3
    """
    import msgspec

    from lockgate.bootstrap import open_app
    from lockgate.versions import diff as diffs
    from lockgate.versions.estimate import weigh
    from lockgate.versions.snapshots import sides

    app = open_app()

    def serves(environment: str, agent: str) -> str | None:
        stable = app.stable(environment, agent)
        return None if stable is None else stable.behaviour_digest

    pairs, absent = sides(app.versions, before, after, serves)
    cost = _pricer(app)
    found = [
        msgspec.structs.replace(
            diffs.compare(old, new), before_weight=weigh(old.version, cost), after_weight=weigh(new.version, cost)
        )
        for old, new in pairs
    ]
    if absent is None:
        shown, rest = found, ""
    else:
        shown, rest = [one for one in found if one.changes], _not_shown(pairs, found, absent)
    if as_markdown and not json:
        sys.stdout.write("\n".join([diffs.markdown(one) for one in shown] + ([f"{rest}\n"] if rest else [])))
        return

    def draw() -> None:
        for one in shown:
            _draw_diff(one)
        if rest:
            console().print(rest, markup=False, soft_wrap=True)

    emit(found[0] if absent is None else shown, json, draw)


def _not_shown(pairs: Sequence[tuple[Snapshot, Snapshot]], found: Sequence[BehaviourDiff], absent: list[str]) -> str:
    same = [old.version.agent for (old, _), one in zip(pairs, found, strict=True) if not one.changes]
    parts = (("no difference", same), ("not on both sides", absent))
    return "; ".join(f"{what}: {', '.join(agents)}" for what, agents in parts if agents)


def _pricer(app: App) -> Cost:
    from lockgate.errors import InputError
    from lockgate.project.service import WELL_KNOWN
    from lockgate.results import Usage

    def cost(model: ModelRef, input_tokens: int, output_tokens: int) -> float | None:
        provider = app.project.config.providers.get(model.provider) or WELL_KNOWN.get(model.provider)
        usage = Usage(input_tokens=input_tokens, output_tokens=output_tokens)
        try:
            nano = app.prices.cost("openai" if provider is None else provider.kind, model.provider, model.name, usage)
        except InputError:
            return None
        return nano / 1e9

    return cost


def _draw_diff(found: BehaviourDiff) -> None:
    from rich.text import Text

    from lockgate.versions.diff import one_line, weights

    digests = f"{short(found.before_digest)} → {short(found.after_digest)}"
    same = "same behaviour" if found.same_behaviour else digests
    console().print(f"{found.before} → {found.after}  ({same})", markup=False)
    if not found.changes:
        console().print("no difference")
    for line in weights(found):
        console().print(f"  {line}", markup=False, soft_wrap=True)
    styles = {"loosened": "bold red", "breaking": "bold red", "tightened": "green", "compatible": "green"}
    for change in found.changes:
        console().print(Text(f"  {one_line(change)}", style=styles.get(change.mark, "")), soft_wrap=True)
        for line in change.hunks:
            style = {"+": "green", "-": "red", "@": "cyan"}.get(line[:1], "")
            console().print(Text(f"      {line}", style=style), soft_wrap=True)


Git = Annotated[
    str | None, typer.Option("--git", metavar="SHA", help="The versions that were locked from this git commit.")
]


@versions.callback()
def versions_command(
    context: typer.Context,
    git: Git = None,
    json: JsonFlag = False,
) -> None:
    """List, show and verify locked versions.

    Example: lockgate versions --git HEAD
    """
    if git is not None and context.invoked_subcommand is None:
        from lockgate.bootstrap import open_app

        found = open_app().versions.at_commit(git)
        emit(found, json, lambda: _draw_history(found))
    elif context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")
        raise typer.Exit(2)


@versions.command("list")
def list_command(
    agent: Annotated[str | None, typer.Argument(help="Only this agent's.")] = None,
    git: Git = None,
    json: JsonFlag = False,
) -> None:
    """List every version ever locked here, the newest first.

    Example: lockgate versions list refund-triage
    """
    from lockgate.bootstrap import open_app

    known = open_app().versions
    found = known.history(agent) if git is None else known.at_commit(git)
    if git is not None and agent is not None:
        found = [row for row in found if row.agent == agent]
    emit(found, json, lambda: _draw_history(found))


def _draw_history(found: Sequence[VersionRow]) -> None:
    table(
        ("version", "digest", "locked (UTC)", "commit", "file"),
        (
            (
                f"{row.agent}@{row.file_version}",
                short(row.behaviour_digest),
                datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%d %H:%M:%S"),
                (row.git_commit or "")[:12],
                row.source,
            )
            for row in found
        ),
    )


@versions.command("show")
def show_command(
    ref: Annotated[str, typer.Argument(help="AGENT, AGENT@3, a digest, or an agent file.")],
    environment: Annotated[
        str | None, typer.Option("--env", help="Also its effective digest and verdict there.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Show one version: its digests, its parts, and what stands beside it.

    Example: lockgate versions show refund-triage@3 --env prod
    """
    from lockgate.bootstrap import open_app

    store = open_app().versions
    digest = store.find(ref)
    version = store.load(digest)
    data: dict[str, Any] = {"version": version, "settings": store.settings(digest)}
    if environment is not None:
        effective = store.effective_digest(version, environment)
        data |= {"effective_digest": effective, "attestation": store.attestation(effective)}

    def draw() -> None:
        rows = [("version", f"{version.agent}@{version.file_version}"), ("behaviour", digest)]
        if environment is not None:
            attestation = data["attestation"]
            rows.append((f"effective in {environment}", data["effective_digest"]))
            rows.append(("gate", "none" if attestation is None else f"{attestation.verdict} ({attestation.id})"))
        model = version.model
        rows.append(("model", f"{model.provider}/{model.name}" + (f" @ {model.revision}" if model.revision else "")))
        rows.append(("tools", ", ".join(f"{tool.name} ({tool.effect})" for tool in version.tools)))
        rows.append(("policies", ", ".join(version.policies)))
        rows.append(("code", ", ".join(version.code)))
        rows.append(("owner", data["settings"].owner or "nobody"))
        table(("", ""), rows)

    emit(data, json, draw)


@versions.command("verify")
def verify_command(json: JsonFlag = False) -> None:
    """Re-hash every blob of every version.

    Example: lockgate versions verify
    """
    from lockgate.bootstrap import open_app
    from lockgate.errors import Corrupt

    store = open_app().versions
    problems = store.verify()
    count = len(store.history())

    def draw() -> None:
        for problem in problems:
            console(stderr=True).print(problem, markup=False, soft_wrap=True)
        console().print(f"{count} versions, {len(problems)} problems")

    emit({"versions": count, "problems": problems}, json, draw)
    if problems:
        raise typer.Exit(Corrupt.exit_code)


def json_schema(what: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of one kind of file."""
    from lockgate.project.model import ProjectConfig
    from lockgate.versions import spec

    models: dict[str, Any] = {
        "agent": spec.AgentFile,
        "project": ProjectConfig,
        "tool": spec.ToolFile,
        "prompt": spec.PromptSpec,
        "rubric": spec.RubricSpec,
    }
    found: dict[str, Any] = models[what].model_json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **found}
