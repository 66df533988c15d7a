"""The root of the command line: a table of commands, each loaded when it is used."""

from __future__ import annotations

import importlib
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any, NamedTuple, NoReturn

import typer
from typer.core import TyperGroup
from typer.main import get_command

from lockgate import __version__
from lockgate.errors import LockgateError, Unavailable


class Entry(NamedTuple):
    """Where a command lives. ``attribute`` is a function, or a ``typer.Typer`` with commands of its own."""

    module: str
    attribute: str
    help: str
    panel: str


COMMANDS: dict[str, Entry] = {
    "init": Entry("lockgate.project.cli", "init", "Scaffold a project that locks and evaluates as it stands.", "Plan"),
    "schema": Entry("lockgate.schemas", "schema", "Print the JSON Schema of a Lockgate file.", "Plan"),
    "lock": Entry("lockgate.versions.cli", "lock", "Turn each agent into one version with one digest.", "Version"),
    "diff": Entry("lockgate.versions.cli", "diff", "Show how two versions of an agent differ in behaviour.", "Version"),
    "versions": Entry("lockgate.versions.cli", "versions", "List, show and verify locked versions.", "Version"),
    "attest": Entry("lockgate.versions.attest_cli", "attest", "Verify signed verdicts; say whose count.", "Version"),
    "push": Entry("lockgate.versions.registry_cli", "push", "Bring a version to an OCI registry.", "Version"),
    "pull": Entry("lockgate.versions.registry_cli", "pull", "Bring a version from an OCI registry.", "Version"),
    "prompts": Entry("lockgate.versions.prompts.cli", "prompts", "List, compare, release and undo prompts.", "Version"),
    "eval": Entry("lockgate.evals.cli.evaluate", "eval_command", "Run the golden set and give a verdict.", "Gate"),
    "compare": Entry("lockgate.evals.cli.compare", "compare", "Compare two versions on the same cases.", "Gate"),
    "ab": Entry("lockgate.evals.ab.cli", "ab", "Ask a judge which of two versions or prompts is better.", "Gate"),
    "cost-gate": Entry("lockgate.evals.gates.cli", "cost_gate", "Fail when a run costs too much.", "Gate"),
    "latency-gate": Entry("lockgate.evals.gates.cli", "latency_gate", "Fail when runs take too long.", "Gate"),
    "safety": Entry("lockgate.evals.gates.cli", "safety", "Attack an agent and see what it lets through.", "Gate"),
    "fallback": Entry("lockgate.evals.gates.cli", "fallback", "Try the backup model on a slice.", "Gate"),
    "golden": Entry("lockgate.evals.golden.cli", "golden", "Import, check and grow golden sets.", "Plan"),
    "scorers": Entry("lockgate.evals.scorers.cli", "scorers", "List the scorers a rubric can name.", "Gate"),
    "judge": Entry("lockgate.evals.judges.cli", "judge", "Hold a judge against people's labels.", "Gate"),
    "annotate": Entry("lockgate.evals.annotation.cli", "annotate", "Grade answers, to hold judges against.", "Gate"),
    "report": Entry("lockgate.evals.cli.report", "report", "Write a scorecard as Markdown or JSON.", "Gate"),
    "up": Entry("lockgate.gateway.cli", "up", "Start gateway, hosts and control plane on this machine.", "Run"),
    "gateway": Entry("lockgate.gateway.cli", "gateway", "Start the gateway workers alone.", "Run"),
    "control": Entry("lockgate.rollouts.cli", "control", "Start the control plane alone.", "Run"),
    "host": Entry("lockgate.runtime.cli", "host", "Serve the runs of one agent version.", "Run"),
    "keys": Entry("lockgate.gateway.keys_cli", "keys", "Create, list, rotate and revoke API keys.", "Run"),
    "run": Entry("lockgate.runtime.cli", "run", "Run an agent once.", "Run"),
    "runs": Entry("lockgate.runtime.cli", "runs", "List runs, or show one step by step.", "Run"),
    "replay": Entry("lockgate.runtime.cli", "replay", "Re-run a recorded run from its digest and trace.", "Run"),
    "approvals": Entry("lockgate.tools.cli", "approvals", "Decide on tool calls that wait for a person.", "Run"),
    "tools": Entry("lockgate.tools.cli", "tools", "List tools and their contracts.", "Run"),
    "settings": Entry("lockgate.settings.cli", "settings", "Change what may change while everything runs.", "Run"),
    "budgets": Entry("lockgate.limits.cli", "budgets", "Show what is spent, held and left.", "Run"),
    "deploy": Entry("lockgate.rollouts.cli", "deploy", "Bring a gated version to an environment.", "Deploy"),
    "apply": Entry("lockgate.rollouts.cli", "apply", "Bring an environment to what its file says.", "Deploy"),
    "gitops": Entry("lockgate.rollouts.cli", "gitops", "Follow a git branch that says what serves.", "Deploy"),
    "rollout": Entry("lockgate.rollouts.cli", "rollout", "Start, watch and steer a staged rollout.", "Deploy"),
    "trace": Entry("lockgate.telemetry.cli", "trace", "Show a trace as a tree of spans.", "Observe"),
    "alerts": Entry("lockgate.fleet.cli", "alerts", "List open alerts.", "Observe"),
    "fleet": Entry("lockgate.fleet.heartbeats.cli", "fleet", "Which instance runs which version.", "Operate"),
    "triage": Entry("lockgate.improve.cli", "triage", "Review failures and make them test cases.", "Improve"),
    "feedback": Entry("lockgate.improve.cli", "feedback", "Record what a user said of a run.", "Improve"),
    "doctor": Entry("lockgate.versions.doctor.cli", "doctor", "Check the project and this machine.", "Operate"),
    "owners": Entry("lockgate.versions.doctor.cli", "owners", "Who answers for what.", "Operate"),
    "demo": Entry("lockgate.demo.cli", "demo", "Watch the whole loop on a real local model.", "Operate"),
}


@contextmanager
def stated_interrupts() -> Iterator[None]:
    """Ctrl-C ends a command with a word, not with silence or a traceback."""
    try:
        yield
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(128 + signal.SIGINT)


class LazyGroup(TyperGroup):
    """Lists commands from :data:`COMMANDS` and imports one only to run it or to show its help."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        entry = COMMANDS.get(cmd_name)
        if entry is None:
            return None
        target = getattr(importlib.import_module(entry.module), entry.attribute)
        if not isinstance(target, typer.Typer):
            single = typer.Typer(add_completion=False, rich_markup_mode=None)
            single.command(cmd_name)(target)
            target = single
        command = get_command(target)
        command.name = cmd_name
        return command

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        panels: dict[str, list[tuple[str, str]]] = {}
        for name, entry in COMMANDS.items():
            panels.setdefault(entry.panel, []).append((name, entry.help))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)

    def make_context(self, *args: Any, **options: Any) -> Any:
        with stated_interrupts():
            return super().make_context(*args, **options)

    def invoke(self, ctx: Any) -> Any:
        try:
            with stated_interrupts():
                return super().invoke(ctx)
        except LockgateError as error:
            _stop(error)
        except Exception as failure:  # the command's boundary
            away = sys.modules.get("sqlalchemy.exc")  # not there: no database was asked
            if away is None or not isinstance(failure, away.OperationalError | away.InterfaceError):
                raise
            reason = str(failure.orig).partition("\n")[0]
            _stop(Unavailable(f"the database does not answer: {reason}", remedy="look at its server, or at its disk"))


def _stop(error: LockgateError) -> NoReturn:
    from lockgate.console import print_error

    print_error(error)
    sys.exit(error.exit_code)


app = typer.Typer(
    name="lockgate",
    cls=LazyGroup,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Start here: lockgate demo, or lockgate init my-project.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lockgate {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")
    ] = False,
) -> None:
    """DevOps for AI agents: version, gate, roll out, govern, observe, improve."""
