"""``lockgate ab``: which of two versions or prompts a judge prefers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, table
from lockgate.errors import InputError
from lockgate.evals.cli.options import Concurrency, Dataset, Env, Judge, Trials
from lockgate.evals.cli.stopping import awaited, stoppable

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.evals.ab.outcome import AbCard
    from lockgate.evals.service import Contender
    from lockgate.versions.spec import PromptSpec

TEXTS = (".md", ".txt")
YAML = (".yaml", ".yml")
EXIT = {"b": 0, "a": 1, "neither": 3}


@stoppable()
def ab(
    a: Annotated[
        str, typer.Argument(metavar="A", help="A version (AGENT@2, a digest, an agent file) or a prompt file.")
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="The other one.")],
    agent: Annotated[
        str | None, typer.Option("--agent", "-a", help="Whose prompt it is; default: the project's only agent.")
    ] = None,
    question: Annotated[str | None, typer.Option("--question", help="What the judge is asked of each pair.")] = None,
    dataset: Dataset = None,
    judge: Judge = None,
    trials: Trials = None,
    env: Env = "prod",
    concurrency: Concurrency = None,
    max_usd: Annotated[float | None, typer.Option("--max-usd", min=0, help="Send nothing that could pass it.")] = None,
    seed: Annotated[str, typer.Option("--seed", help="Another text draws other orders.")] = "",
    json: JsonFlag = False,
) -> None:
    """Ask a judge which of two answers it prefers, case by case: 0 when B is preferred, 1 when A is, 3 when neither.

    A prompt file (.md, .txt, or a prompt YAML) is tried in place of the agent's system prompt. Both sides run the same
    cases; every pair is asked about in both orders, the first by lot. Cost and latency stand beside.

    Example: lockgate ab prompts/support.md drafts/shorter.md --agent support --judge openai:gpt-4o-2024-08-06
    """
    from lockgate.bootstrap import open_app
    from lockgate.evals.ab.service import QUESTION, run_ab
    from lockgate.evals.cli.contenders import golden_of, rubric_of
    from lockgate.evals.cli.running import progress_bars

    app = open_app()
    side_a, side_b = _side(app, a, agent, env), _side(app, b, agent, env)
    if side_a.effective_digest == side_b.effective_digest:
        raise InputError(f"{a} and {b} are the same", remedy="name two that differ")
    rubric = rubric_of(app, side_b, judge=judge, trials=trials, concurrency=concurrency, max_usd=max_usd)
    asked = rubric.judge
    if asked is None:
        raise InputError("no judge is named", remedy="give --judge PROVIDER:NAME, or evals.judge in the agent file")
    golden = golden_of(app, dataset, rubric, side_b)
    from contextlib import chdir

    with progress_bars() as watch, chdir(app.project.root):
        card = awaited(
            run_ab(
                app.control,
                app.clock,
                side_a,
                side_b,
                rubric,
                golden,
                lambda: app.judge(asked, env),
                question=question or QUESTION,
                seed=seed,
                watch=watch,
            )
        )
    emit(card, json, lambda: _draw(card))
    raise typer.Exit(EXIT[card.winner])


def _side(app: App, ref: str, agent: str | None, env: str) -> Contender:
    """A version, or the agent with another system prompt."""
    import hashlib

    from lockgate.evals.cli.contenders import contender, only_agent
    from lockgate.project.yamlfile import read_text

    template = _template(ref) if ref.endswith(YAML) else None
    if template is None and not ref.endswith(TEXTS):
        return contender(app, ref, env)
    base = contender(app, agent or only_agent(app), env)
    text = read_text(Path(ref), shown_as=ref) if template is None else _filled(app, base, template)
    if text == app.versions.load(base.behaviour_digest).system_prompt:
        return base  # its trials are there already
    mixed = hashlib.sha256(f"{base.effective_digest} prompt {text}".encode()).hexdigest()
    return base._replace(
        label=f"{base.agent} with {ref}",
        effective_digest=f"sha256:{mixed}",
        open=lambda: app.subject(base.behaviour_digest, env, system_prompt=text),
    )


def _template(ref: str) -> PromptSpec | None:
    """A prompt YAML; None for any other YAML, such as an agent file."""
    from lockgate.project.yamlfile import read_yaml, validate
    from lockgate.versions.spec import PromptSpec

    document = read_yaml(Path(ref), shown_as=ref)
    is_prompt = isinstance(document.data, dict) and "template" in document.data
    return validate(document, PromptSpec) if is_prompt else None


def _filled(app: App, base: Contender, prompt: PromptSpec) -> str:
    """The template with the values that the agent's file gives to the variables it declares."""
    from lockgate.project.yamlfile import read_yaml
    from lockgate.versions.contracts import fill
    from lockgate.versions.lockfile import read_lock

    values: dict[str, str] = {}
    for locked in read_lock(app.project.root) if prompt.variables else ():
        if locked.digest == base.behaviour_digest:
            data = read_yaml(app.project.root / locked.file, shown_as=locked.file).data
            values = data.get("agent", {}).get("variables") or {}
    return fill(prompt.template, prompt.variables, {name: values[name] for name in prompt.variables if name in values})


def _draw(card: AbCard) -> None:
    from lockgate.money import show_usd

    screen = console()
    words = {"a": f"A is preferred: {card.a.label}", "b": f"B is preferred: {card.b.label}", "neither": "no preference"}
    said = words[card.winner]
    if card.preference is not None and card.interval is not None:
        said += f"; B in {card.preference:.0%} (95 %: {card.interval.low:.0%}..{card.interval.high:.0%})"
    screen.print(said, style="bold", markup=False)
    rows = [
        (
            name,
            side.label,
            better,
            side.failed,
            f"${side.mean_cost_usd:.6f}",
            "–" if side.latency is None else f"{side.latency.p50:.2f} s",
            "–" if side.latency is None else f"{side.latency.p95:.2f} s",
            f"{side.mean_output_tokens:.0f}",
        )
        for name, side, better in (("A", card.a, card.a_better), ("B", card.b, card.b_better))
    ]
    table(("", "", "preferred", "failed", "USD a run", "p50", "p95", "output tokens"), rows)
    screen.print(
        f"{card.cases} cases, {card.pairs} pairs, {card.ties} ties ({card.by_position} changed with the order), "
        f"{card.unscored} unscored, judge {card.judge}, {show_usd(card.spent_nano)} spent",
        style="dim",
        markup=False,
    )
