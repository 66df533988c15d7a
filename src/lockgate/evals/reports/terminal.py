"""The scorecard on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from lockgate.evals.model import Scorecard, Verdict
from lockgate.evals.reports import words

if TYPE_CHECKING:
    from rich.console import Console

_STYLES: dict[Verdict | None, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", None: "dim"}

_PIPED_WIDTH = 10_000

_KINDS = {"quality": "eval gate", "safety": "safety suite", "fallback": "backup model", "compare": "comparison"}


def draw(card: Scorecard, console: Console) -> None:
    """The scorecard on a terminal."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console.print(
        Text.assemble(
            (words.WORDS[card.verdict], _STYLES[card.verdict]), f"  {card.label}", (f"  {_KINDS[card.kind]}", "dim")
        )
    )
    compared = any(metric.difference is not None for metric in card.metrics)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("score", "wanted", *(("baseline", "difference") if compared else ())):
        table.add_column(column, overflow="fold")
    for metric in words.ordered(card):
        cells = [words.score(metric, around=not compared), words.wanted(metric)]
        if compared:
            cells += [words.baseline(metric), words.difference(metric)]
        table.add_row(
            Text(metric.name, style="" if metric.blocking else "dim"),
            Text(words.word(metric), style=_STYLES[metric.verdict]),
            *cells,
        )
    wide = console if console.is_terminal else Console(file=console.file, width=_PIPED_WIDTH, highlight=False)
    wide.print(table)  # a program's lines are neither folded nor cut
    for reason in card.reasons if card.verdict != "pass" else ():
        console.print(Text(f"  {reason}"))
    if rows := words.worst_slices(card):
        console.print(Text(f"{words.slices_title(card)}:", style="bold"))
        for part in rows:
            before = "" if part.baseline_mean is None else f" (baseline {part.baseline_mean:.2f})"
            console.print(Text(f"  {part.kind} {part.name}: {part.metric} {part.mean:.2f}{before}, {part.cases} cases"))
    for title, changes in (("newly broken", card.broken), ("newly fixed", card.fixed)):
        if changes:
            console.print(Text.assemble((f"{title}: ", "bold"), words.listed(changes, "")))
    if card.flaky:
        console.print(Text.assemble(("flaky: ", "bold"), words.flaky(card, "")))
    for name, text in words.design(card):
        console.print(Text.assemble((f"{name}: ", "bold"), text))
    for warning in card.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning))
    console.print(Text(" · ".join(words.facts(card)), style="dim"))
