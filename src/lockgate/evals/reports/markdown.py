"""The scorecard as GitHub-flavoured Markdown: what stands as a comment in a pull request."""

from __future__ import annotations

from lockgate.evals.model import Scorecard, Verdict
from lockgate.evals.reports import words

MARKER = "<!-- lockgate:scorecard:{agent} -->"
"""Stands first in the Markdown, so that a bot finds its earlier comment and replaces it."""

SIGNS: dict[Verdict | None, str] = {"pass": "✅", "fail": "❌", "inconclusive": "❔", None: "·"}


def markdown(card: Scorecard) -> str:
    """The scorecard as GitHub-flavoured Markdown."""
    lines = [
        MARKER.format(agent=card.agent),
        f"## {SIGNS[card.verdict]} {words.plain(card.label)}: {words.WORDS[card.verdict]}",
        "",
        *(f"- {words.plain(reason)}" for reason in card.reasons if card.verdict != "pass"),
    ]
    if card.verdict == "pass":
        lines.append(f"All {sum(metric.blocking for metric in card.metrics)} blocking metrics hold.")
    lines += ["", "| metric | | score | wanted | baseline | difference |", "|---|---|---|---|---|---|"]
    for metric in words.ordered(card):
        name = metric.name if metric.blocking else f"{metric.name} _(advisory)_"
        cells = (
            name,
            SIGNS[metric.verdict],
            words.score(metric),
            words.wanted(metric),
            words.baseline(metric),
            words.difference(metric),
        )
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    if card.slices and (rows := words.worst_slices(card)):
        lines += [
            "",
            f"**{words.slices_title(card).capitalize()}**",
            "",
            "| cases | | metric | score | baseline |",
            "|---|---|---|---|---|",
        ]
        for part in rows:
            before = "" if part.baseline_mean is None else f"{part.baseline_mean:.2f}"
            lines.append(f"| {part.kind} `{part.name}` | {part.cases} | {part.metric} | {part.mean:.2f} | {before} |")
    for title, changes in (("Newly broken", card.broken), ("Newly fixed", card.fixed)):
        if changes:
            lines += ["", f"**{title}**: {words.listed(changes, '`')}"]
    if card.flaky:
        lines += ["", f"**Flaky** (right in one trial, wrong in another): {words.flaky(card, '`')}"]
    if facts_of_gate := [f"- {name}: {words.plain(text)}" for name, text in words.design(card)]:
        lines += ["", "**The gate**", "", *facts_of_gate]
    for warning in card.warnings:
        lines += ["", f"> ⚠️ {words.plain(warning)}"]
    lines += ["", "<sub>" + " · ".join(words.facts(card)) + "</sub>", ""]
    return "\n".join(lines)


def no_verdict(agent: str, label: str, why: str) -> str:
    """What stands in a scorecard's place when there was no evaluation."""
    return f"{MARKER.format(agent=agent)}\n## ⛔ {words.plain(label)}: no verdict\n\n{words.plain(why)}\n"
