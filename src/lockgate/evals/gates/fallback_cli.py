"""``lockgate fallback``: a slice of the golden set on the backup model."""

from __future__ import annotations

from typing import Annotated

import typer

from lockgate.console import JsonFlag
from lockgate.errors import InputError
from lockgate.evals.cli.options import Env, MarkdownFile


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
