"""A scorecard as people read it: Markdown for a pull request, a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from lockgate.evals.figures import show, signed
from lockgate.evals.model import Change, MetricCard, Scorecard, Slice, Verdict
from lockgate.money import show_usd

if TYPE_CHECKING:
    from rich.console import Console

MARKER = "<!-- lockgate:scorecard:{agent} -->"
"""Stands first in the Markdown, so that a bot finds its earlier comment and replaces it."""

_WORDS: dict[Verdict | None, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive", None: "–"}
_SIGNS: dict[Verdict | None, str] = {"pass": "✅", "fail": "❌", "inconclusive": "❔", None: "·"}
_STYLES: dict[Verdict | None, str] = {"pass": "green", "fail": "bold red", "inconclusive": "yellow", None: "dim"}

SHOWN_SLICES = 6
SHOWN_CASES = 8


def markdown(card: Scorecard) -> str:
    """The scorecard as GitHub-flavoured Markdown."""
    lines = [
        MARKER.format(agent=card.agent),
        f"## {_SIGNS[card.verdict]} {_plain(card.label)}: {_WORDS[card.verdict]}",
        "",
        *(f"- {_plain(reason)}" for reason in card.reasons if card.verdict != "pass"),
    ]
    if card.verdict == "pass":
        lines.append(f"All {sum(metric.blocking for metric in card.metrics)} blocking metrics hold.")
    lines += ["", "| metric | | score | wanted | baseline | difference |", "|---|---|---|---|---|---|"]
    for metric in _ordered(card):
        name = metric.name if metric.blocking else f"{metric.name} _(advisory)_"
        cells = (name, _SIGNS[metric.verdict], _score(metric), _wanted(metric), _baseline(metric), _difference(metric))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if card.slices and (rows := _worst_slices(card)):
        lines += ["", "**Where it is worst**", "", "| cases | | metric | score | baseline |", "|---|---|---|---|---|"]
        for part in rows:
            before = "" if part.baseline_mean is None else f"{part.baseline_mean:.2f}"
            lines.append(f"| {part.kind} `{part.name}` | {part.cases} | {part.metric} | {part.mean:.2f} | {before} |")
    for title, changes in (("Newly broken", card.broken), ("Newly fixed", card.fixed)):
        if changes:
            lines += ["", f"**{title}**: {_listed(changes, '`')}"]
    if card.flaky:
        lines += ["", f"**Flaky** (right in one trial, wrong in another): {_ids(card.flaky, '`')}"]
    for warning in card.warnings:
        lines += ["", f"> ⚠️ {_plain(warning)}"]
    lines += ["", "<sub>" + " · ".join(_facts(card)) + "</sub>", ""]
    return "\n".join(lines)


def no_verdict(agent: str, label: str, why: str) -> str:
    """What stands in a scorecard's place when there was no evaluation."""
    return f"{MARKER.format(agent=agent)}\n## ⛔ {_plain(label)}: no verdict\n\n{_plain(why)}\n"


def draw(card: Scorecard, console: Console) -> None:
    """The scorecard on a terminal."""
    from rich.table import Table
    from rich.text import Text

    console.print(
        Text.assemble((_WORDS[card.verdict], _STYLES[card.verdict]), f"  {card.label}", ("  eval gate", "dim"))
    )
    compared = any(metric.difference is not None for metric in card.metrics)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric", no_wrap=True)
    table.add_column("", no_wrap=True)
    for column in ("score", "wanted", *(("baseline", "difference") if compared else ())):
        table.add_column(column, overflow="fold")
    for metric in _ordered(card):
        cells = [_score(metric, around=not compared), _wanted(metric)]
        if compared:
            cells += [_baseline(metric), _difference(metric)]
        table.add_row(
            Text(metric.name, style="" if metric.blocking else "dim"),
            Text(_word(metric), style=_STYLES[metric.verdict]),
            *cells,
        )
    console.print(table)
    for reason in card.reasons if card.verdict != "pass" else ():
        console.print(Text(f"  {reason}"))
    if rows := _worst_slices(card):
        console.print(Text("worst kinds of case:", style="bold"))
        for part in rows:
            before = "" if part.baseline_mean is None else f" (baseline {part.baseline_mean:.2f})"
            console.print(Text(f"  {part.kind} {part.name}: {part.metric} {part.mean:.2f}{before}, {part.cases} cases"))
    for title, changes in (("newly broken", card.broken), ("newly fixed", card.fixed)):
        if changes:
            console.print(Text.assemble((f"{title}: ", "bold"), _listed(changes, "")))
    if card.flaky:
        console.print(Text.assemble(("flaky: ", "bold"), _ids(card.flaky, "")))
    for warning in card.warnings:
        console.print(Text.assemble(("warning: ", "yellow"), warning))
    console.print(Text(" · ".join(_facts(card)), style="dim"))


def _facts(card: Scorecard) -> Iterator[str]:
    per_case = f" × {card.trials} trials" if card.trials > 1 else ""
    yield f"{card.cases} cases{per_case}"
    if card.cached_trials:
        yield f"{card.cached_trials} trials from earlier"
    if card.failures:
        yield "failed: " + ", ".join(f"{count} × {kind}" for kind, count in sorted(card.failures.items()))
    yield f"{show(card.mean_cost_usd, 'usd')} a run"
    yield f"{show_usd(card.spent_nano)} spent in {card.seconds:.1f} s"
    if card.baseline_label:
        yield f"baseline {card.baseline_label}"
        yield "intervals 90 %"
    if card.judge:
        yield f"judge {card.judge}{'' if card.judge_calibrated else ' (uncalibrated)'}"
    if card.model_override:
        yield f"on {card.model_override} instead of its own model"
    yield f"version {card.effective_digest.removeprefix('sha256:')[:12]}"
    yield f"golden set {card.dataset_digest.removeprefix('sha256:')[:12]}"
    yield card.id


def _ordered(card: Scorecard) -> list[MetricCard]:
    """Quality first, then cost and time; what a metric is made of stands below it."""
    names = [metric.name for metric in card.metrics]

    def place(metric: MetricCard) -> tuple[bool, int, int]:
        parent = metric.name.rpartition(".")[0]
        own = names.index(metric.name)
        return metric.unit != "score", names.index(parent) if parent in names else own, own

    return sorted(card.metrics, key=place)


def _word(metric: MetricCard) -> str:
    if metric.blocking:
        return _WORDS[metric.verdict]
    return "advisory" if metric.verdict is None else f"advisory: {_WORDS[metric.verdict].lower()}"


def _score(metric: MetricCard, *, around: bool = True) -> str:
    if metric.mean is None or metric.interval is None:
        return "not scored"
    text = show(metric.mean, metric.unit)
    low, high = show(metric.interval.low, metric.unit), show(metric.interval.high, metric.unit)
    if around and low != high:
        text += f" ({low}..{high})"
    if metric.traffic_mean is not None and abs(metric.traffic_mean - metric.mean) > 0.005 * max(1e-9, abs(metric.mean)):
        text += f", by traffic {show(metric.traffic_mean, metric.unit)}"
    if metric.unscored:
        text += f", {metric.unscored} unscored"
    return text


def _wanted(metric: MetricCard) -> str:
    parts = []
    if metric.minimum is not None:
        parts.append(f"≥ {show(metric.minimum, metric.unit)}")
    if metric.maximum is not None:
        parts.append(f"≤ {show(metric.maximum, metric.unit)}")
    if metric.margin is not None:
        bounded = metric.unit in ("score", "rate")
        parts.append(f"margin {show(metric.margin, metric.unit) if bounded else f'{metric.margin:.0%}'}")
    return ", ".join(parts) + (" strict" if metric.strict else "")


def _baseline(metric: MetricCard) -> str:
    return "" if metric.baseline_mean is None else show(metric.baseline_mean, metric.unit)


def _difference(metric: MetricCard) -> str:
    if metric.difference is None or metric.difference_interval is None:
        return ""
    low = signed(metric.difference_interval.low, metric.unit)
    high = signed(metric.difference_interval.high, metric.unit)
    moved = signed(metric.difference, metric.unit)
    return moved if low == high else f"{moved} ({low}..{high})"


def _worst_slices(card: Scorecard) -> list[Slice]:
    """The worst slices, each kind of case once, on the metrics that decide where those have any."""
    deciding = {metric.name for metric in card.metrics if metric.blocking}
    parts = [part for part in card.slices if part.metric in deciding] or card.slices
    found: dict[tuple[str, str], Slice] = {}
    for part in parts:
        found.setdefault((part.kind, part.name), part)
    return list(found.values())[:SHOWN_SLICES]


def _listed(changes: list[Change], quote: str) -> str:
    by_case = {change.case_id: change for change in changes}
    return _ids(list(by_case), quote)


def _ids(ids: list[str], quote: str) -> str:
    shown = ", ".join(f"{quote}{_plain(id) if quote else id}{quote}" for id in ids[:SHOWN_CASES])
    return f"{len(ids)} cases: {shown}{', …' if len(ids) > SHOWN_CASES else ''}"


def _plain(text: str) -> str:
    """Without what Markdown or HTML would make something of: case ids and outputs come from outside."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'").replace("\n", " ")
