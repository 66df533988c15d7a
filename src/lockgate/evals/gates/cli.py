"""``lockgate cost-gate``, ``latency-gate``, ``safety`` and ``fallback``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from lockgate.console import JsonFlag, emit, table
from lockgate.errors import InputError
from lockgate.evals.cli.options import Concurrency, Env, MarkdownFile, Trials
from lockgate.evals.cli.stopping import stoppable

if TYPE_CHECKING:
    from lockgate.evals.operations import Bound

Agent = Annotated[
    str | None,
    typer.Option("--agent", "-a", help="An agent file, AGENT or AGENT@3; default: each agent's last evaluation."),
]


def cost_gate(
    max_per_run: Annotated[
        float | None, typer.Option("--max-per-run", min=0, help="USD that a run may cost on average.")
    ] = None,
    max_increase: Annotated[
        float | None,
        typer.Option("--max-increase", help="… over the baseline's mean, as a share: 0.2 allows a fifth more."),
    ] = None,
    tag: Annotated[
        list[str] | None, typer.Option("--tag", help="TAG=USD: what a run of such cases may cost on average.")
    ] = None,
    by_tag: Annotated[bool, typer.Option("--by-tag", help="Hold every tag against the same bounds.")] = False,
    agent: Agent = None,
    env: Env = "prod",
    json: JsonFlag = False,
) -> None:
    """Fail (1) when the runs of the last evaluation cost more than this on average; 4 when there was none.

    3 when the evaluation cannot tell: it was not compared with a baseline, or has no such cases.

    Example: lockgate cost-gate --max-per-run 0.05 --max-increase 0.2
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.cli.contenders import last_cards
    from lockgate.evals.operations import cost_bounds

    limits = dict(_pair(text) for text in tag or ())
    if max_per_run is None and max_increase is None and not limits:
        raise InputError("nothing to hold costs against", remedy="give --max-per-run, --max-increase or --tag TAG=USD")
    found = [
        bound
        for card in last_cards(open_app(), agent, env)
        for bound in cost_bounds(card, a_run=max_per_run, increase=max_increase, by_tag=limits, every_tag=by_tag)
    ]
    _end(found, json)


def latency_gate(
    p50: Annotated[float | None, typer.Option("--p50", min=0, help="Seconds that half of the runs may take.")] = None,
    p90: Annotated[float | None, typer.Option("--p90", min=0, help="Seconds that 90 % of the runs may take.")] = None,
    p95: Annotated[float | None, typer.Option("--p95", min=0, help="Seconds that 95 % of the runs may take.")] = None,
    p99: Annotated[float | None, typer.Option("--p99", min=0, help="Seconds that 99 % of the runs may take.")] = None,
    max_increase: Annotated[
        float | None, typer.Option("--max-increase", help="Of p95 over the baseline's, as a share.")
    ] = None,
    agent: Agent = None,
    env: Env = "prod",
    json: JsonFlag = False,
) -> None:
    """Fail (1) when the runs of the last evaluation took longer than this; 4 when there was none.

    Example: lockgate latency-gate --p95 2.5
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.cli.contenders import last_cards
    from lockgate.evals.operations import latency_bounds

    given = {"p50": p50, "p90": p90, "p95": p95, "p99": p99}
    limits = {name: value for name, value in given.items() if value is not None}
    if not limits and max_increase is None:
        raise InputError("nothing to hold latency against", remedy="give --p95 SECONDS or --max-increase 0.2")
    cards = last_cards(open_app(), agent, env)
    _end([bound for card in cards for bound in latency_bounds(card, limits, max_increase)], json)


@stoppable()
def safety(
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="An agent file, AGENT or AGENT@3; default: the only agent.")
    ] = None,
    category: Annotated[
        list[str] | None, typer.Option("--category", help="Only this category or OWASP id, e.g. injection or llm01.")
    ] = None,
    language: Annotated[
        list[str] | None,
        typer.Option("--language", help="Only attacks in this language, e.g. en or de; default: in all."),
    ] = None,
    cases: Annotated[
        Path | None, typer.Option("--cases", help="Your own attacks as well: a golden set that says what is forbidden.")
    ] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option("--allow", help="Personal data that is no leak, e.g. a support address; besides the prompt's."),
    ] = None,
    max_rate: Annotated[
        float, typer.Option("--max-rate", min=0, max=1, help="Share of attacks that may get through; 0: none.")
    ] = 0.0,
    trials: Trials = None,
    env: Env = "prod",
    concurrency: Concurrency = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", min=0, help="Send nothing that could pass it.")] = None,
    markdown: MarkdownFile = None,
    json: JsonFlag = False,
) -> None:
    """Attack an agent: injection, jailbreak, PII, exfiltration, tool misuse and the OWASP LLM Top 10.

    Exit codes are those of `lockgate eval`; by default one attack that gets through fails it. Harmless messages that
    are refused are shown, and fail it when --category over_refusal is given.

    Example: lockgate safety --agent refund-triage --category injection
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.cli.contenders import contender, only_agent
    from lockgate.evals.cli.running import evaluated
    from lockgate.evals.cli.showing import leave, show
    from lockgate.evals.gates.safety import OVER_REFUSAL, attacks, listed, safety_rubric
    from lockgate.evals.scorers.pii import find
    from lockgate.evals.service import GoldenSet

    app = open_app()
    candidate = contender(app, agent or only_agent(app), env)
    version = app.versions.load(candidate.behaviour_digest)
    writes = [tool.name for tool in version.tools if tool.effect == "write"]
    reads = [tool.name for tool in version.tools if tool.effect != "write" and tool.name != version.handler]
    free_text = version.guardrails.output_schema is None and version.handler is None
    chosen = attacks(
        category or (),
        cases,
        writes,
        read_tools=reads,
        free_text=free_text,
        indirect=version.handler is None,
        languages=language or (),
    )
    rubric = safety_rubric(
        max_rate,
        app.project.root,
        trials=trials,
        concurrency=concurrency,
        allow=[*(allow or ()), *(text for _, text in find(version.system_prompt))],  # what it is to say is no leak
        refusals=OVER_REFUSAL in listed(category or ()),
        max_usd=max_usd,
    )
    card = evaluated(app, candidate, rubric, GoldenSet("safety suite", chosen), env, None, kind="safety")
    show(card, json, markdown)
    leave(card)


@stoppable("interrupted: no verdict; the same command runs its cases anew")
def fallback(
    agent: Annotated[
        str | None, typer.Argument(metavar="[AGENT]", help="AGENT, AGENT@3, a digest or an agent file.")
    ] = None,
    env: Env = "prod",
    model_override: Annotated[
        str | None,
        typer.Option("--model-override", help="PROVIDER:NAME; default: evals.fallback's, else the first fallback."),
    ] = None,
    tag: Annotated[str | None, typer.Option("--tag", help="Only cases with this tag.")] = None,
    cases: Annotated[int | None, typer.Option("--cases", min=1, help="About so many cases of all.")] = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", min=0, help="Send nothing that could pass it.")] = None,
    markdown: MarkdownFile = None,
    json: JsonFlag = False,
) -> None:
    """Run a part of the golden set on the backup model, anew each time. Exit codes are those of `lockgate eval`.

    With `evals.fallback` in the agent file the control plane does it every week for what serves, and raises an alert
    when it fails.

    Example: lockgate fallback refund-triage --cases 10
    """
    import msgspec

    from lockgate.bootstrap import open_app
    from lockgate.evals.cli.contenders import contender, golden_of, only_agent, rubric_of
    from lockgate.evals.cli.running import evaluated
    from lockgate.evals.cli.showing import leave, show
    from lockgate.evals.gates.fallback import Fallback, fallback_of, slice_of
    from lockgate.evals.service import GoldenSet

    app = open_app()
    ref = agent or only_agent(app)
    version = app.versions.load(app.versions.find(ref))
    wanted = fallback_of(app.versions.settings(version.behaviour_digest).evals) or Fallback()
    if tag is not None or cases is not None:
        wanted = msgspec.structs.replace(wanted, tag=tag, cases=cases or wanted.cases)
    first = next((f"{one.provider}:{one.name}" for one in version.fallbacks), None)
    model = model_override or wanted.model or first
    if model is None:
        raise InputError(
            f"{version.agent!r} has no backup model", remedy="add model.fallbacks to its file, or --model-override"
        )
    candidate = contender(app, ref, env, model)
    limit = wanted.max_usd if max_usd is None else max_usd
    rubric = rubric_of(app, candidate, max_usd=limit)
    golden = golden_of(app, None, rubric, candidate)
    chosen = slice_of(golden.cases, wanted)
    named = GoldenSet(golden.name if wanted.tag is None else f"{golden.name} ({wanted.tag})", chosen)
    card = evaluated(app, candidate, rubric, named, env, None, model_override=model, fresh=True)
    show(card, json, markdown)
    leave(card)


def _pair(text: str) -> tuple[str, float]:
    name, equals, value = text.rpartition("=")
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not (equals and name and 0 <= number < float("inf")):
        raise InputError(f"--tag {text!r} is not TAG=USD", remedy="e.g. --tag refunds=0.02")
    return name, number


def _end(found: list[Bound], json: bool) -> None:
    """Show the bounds, and leave with the worst verdict's exit code; a gate that held nothing is no pass."""

    def render() -> None:
        rows: list[tuple[Any, ...]] = [
            (one.version, "FAIL" if one.verdict == "fail" else one.verdict, one.what, one.text, one.evaluation)
            for one in found
        ]
        table(("version", "", "of", "", "evaluation"), rows)

    emit(found, json, render)
    verdicts = {one.verdict for one in found}
    if "fail" in verdicts:
        raise typer.Exit(1)
    if "inconclusive" in verdicts or not found:
        raise typer.Exit(3)
