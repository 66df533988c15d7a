"""The scorecard as one HTML file that needs nothing else: charts, every case with its answers then and now, a filter.

All that comes from outside is escaped; the one script and the one style stand in the page, and a content policy allows
nothing to be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape as e
from pathlib import Path

from lockgate.evals.figures import show
from lockgate.evals.model import MetricCard, Scorecard
from lockgate.evals.reports import charts, words
from lockgate.evals.reports.case_list import browser
from lockgate.evals.reports.cases import CaseView, TrialView
from lockgate.money import show_usd

MOST_CASES = 2000
"""Cases shown; those with something to see come first."""

Spread = dict[str, tuple[list[float], list[float]]]
"""Metric → the cases' means, of this version and of the baseline."""


def html(card: Scorecard, cases: Iterable[CaseView] = ()) -> str:
    """The page."""
    shown, left_out, spread = _gathered(card, cases)
    sections = [
        _head(card),
        _tiles(card),
        _metrics(card),
        _spread(spread),
        _slices(card),
        _times(card),
        _costs(card),
        _checks(card),
        browser(card, shown, left_out),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">"
        f"<title>{e(card.label)}: {e(words.WORDS[card.verdict])}</title><style>{_asset('page.css')}</style></head>"
        "<body><main>"
        + "".join(sections)
        + f"<footer>{e(' · '.join(words.facts(card)))}</footer></main><script>{_asset('page.js')}</script>"
        "</body></html>\n"
    )


def _gathered(card: Scorecard, cases: Iterable[CaseView]) -> tuple[list[CaseView], int, Spread]:
    """The cases to show, how many are left out, and how the means of all are spread: in one pass."""
    marked: list[CaseView] = []
    plain: list[CaseView] = []
    names = [metric.name for metric in words.ordered(card) if metric.blocking and metric.unit == "score"]
    spread: Spread = {name: ([], []) for name in names}
    total = 0
    for one in cases:
        total += 1
        kept = marked if one.marks else plain
        if len(kept) < MOST_CASES:
            kept.append(one)
        for name, (now, before) in spread.items():
            now += _mean(one.trials, name)
            before += _mean(one.baseline, name)
    found = [*marked, *plain][:MOST_CASES]
    return found, total - len(found), {name: values for name, values in spread.items() if values[0]}


def _mean(trials: Sequence[TrialView], name: str) -> list[float]:
    values = [value for one in trials if name in one.scores and (value := one.scores[name][0]) is not None]
    return [sum(values) / len(values)] if values else []


def _head(card: Scorecard) -> str:
    reasons = "".join(f"<li>{e(reason)}</li>" for reason in card.reasons)
    warnings = "".join(f'<p class="warning">{e(text)}</p>' for text in card.warnings)
    against = f" against {e(card.baseline_label)}" if card.baseline_label else ""
    box = f'<ul class="reasons {card.verdict}">{reasons}</ul>' if reasons else ""
    return (
        f'<header><h1><span class="verdict {card.verdict}">{e(words.WORDS[card.verdict])}</span>{e(card.label)}</h1>'
        f"<p>{e(card.dataset)}{against}, for {e(card.environment)}</p></header>{box}{warnings}"
    )


def _tiles(card: Scorecard) -> str:
    """The figures one looks for first."""
    found = [("cases", f"{card.cases:,}", f"× {card.trials} trials" if card.trials > 1 else "one trial each")]
    before = "" if card.baseline_run_usd is None else f"baseline {show(card.baseline_run_usd, 'usd')}"
    found.append(("a run", show(card.mean_cost_usd, "usd"), before))
    if card.latency is not None:
        other = card.baseline_latency
        found.append(
            ("p95", show(card.latency.p95, "seconds"), f"baseline {show(other.p95, 'seconds')}" if other else "")
        )
    found.append(("spent", show_usd(card.spent_nano), f"in {card.seconds:.1f} s"))
    if card.baseline_label:
        found.append(("broken", f"{len({one.case_id for one in card.broken})}", "since the baseline"))
        found.append(("fixed", f"{len({one.case_id for one in card.fixed})}", "since the baseline"))
    if card.trials > 1:
        found.append(("flaky", f"{len(card.flaky)}", "right once, wrong once"))
    if card.failed_trials:
        found.append(("failed", f"{card.failed_trials}", "trials without an answer"))
    tiles = "".join(f"<div><dt>{e(name)}</dt><dd>{e(value)}</dd><p>{e(more)}</p></div>" for name, value, more in found)
    return f"<dl class=tiles>{tiles}</dl>"


def _metrics(card: Scorecard) -> str:
    found = words.ordered(card)
    compared = any(metric.difference is not None for metric in found)
    seen = any(metric.detectable is not None for metric in found)
    rows = []
    for metric in found:
        advisory = "" if metric.blocking else " <i>advisory</i>"
        cells = [
            f"<th scope=row>{e(metric.name)}{advisory}</th>",
            f'<td><span class="verdict {metric.verdict or "none"}">{e(_verdict(metric))}</span></td>',
            f"<td class=figure>{e(words.score(metric))}</td><td class=chart>{charts.interval(metric)}</td>",
            f"<td class=figure>{e(words.wanted(metric))}</td>",
        ]
        if card.baseline_label:
            cells.append(f"<td class=figure>{e(words.baseline(metric))}</td>")
        if compared:
            cells.append(
                f"<td class=figure>{e(words.difference(metric))}</td><td class=chart>{charts.change(metric)}</td>"
            )
        if seen:
            cells.append(f"<td class=figure>{e(_seen(metric))}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    head = "<th>metric<th><th>score<th>interval<th>wanted" + ("<th>baseline" if card.baseline_label else "")
    head += ("<th>difference<th>worse or better" if compared else "") + ("<th>loss seen" if seen else "")
    legend = "● mean · band: its interval · ◇ baseline · dashed: what is wanted"
    return (
        f"<section><h2>Metrics</h2><div class=wide><table class=metrics><thead><tr>{head}</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div><p class=legend>{legend}</p></section>"
    )


def _verdict(metric: MetricCard) -> str:
    return words.WORDS[metric.verdict]


def _seen(metric: MetricCard) -> str:
    return "" if metric.detectable is None else show(metric.detectable, metric.unit)


def _spread(spread: Spread) -> str:
    if not spread:
        return ""
    figures = "".join(
        f"<figure><figcaption>{e(name)}</figcaption>{charts.histogram(name, now, before)}</figure>"
        for name, (now, before) in spread.items()
    )
    below = any(before for _, before in spread.values())
    legend = "cases by their mean score" + ("; above: this version, below: the baseline" if below else "")
    return (
        f"<section><h2>How cases are spread</h2><div class=figures>{figures}</div>"
        f"<p class=legend>{legend}</p></section>"
    )


def _slices(card: Scorecard) -> str:
    rows = []
    for part in words.worst_slices(card):
        before = "" if part.baseline_mean is None else f"{part.baseline_mean:.2f}"
        rows.append(
            f"<tr><th scope=row><i>{e(part.kind)}</i> {e(part.name)}</th><td>{e(part.metric)}</td>"
            f"<td class=chart>{charts.bar(part.mean, part.baseline_mean)}</td>"
            f"<td class=figure>{part.mean:.2f}</td><td class=figure>{before}</td>"
            f"<td class=figure>{part.cases}</td></tr>"
        )
    if not rows:
        return ""
    head = "<tr><th>kind of case<th>metric<th><th>score<th>baseline<th>cases</tr>"
    title = e(words.slices_title(card).capitalize())
    return _table(title, head, "".join(rows))


def _times(card: Scorecard) -> str:
    if card.latency is None or card.latency.highest <= 0:
        return ""
    times = charts.quantiles(card.latency, card.baseline_latency)
    return f"<section><h2>Time of a run</h2><div class=wide>{times}</div></section>"


def _costs(card: Scorecard) -> str:
    if not any(one.highest_usd for one in card.costs):
        return ""
    top = 1.05 * max(max(one.mean_usd, one.baseline_mean_usd or 0.0) for one in card.costs)
    rows = "".join(
        f"<tr><th scope=row>{e(one.tag)}</th>"
        f"<td class=chart>{charts.bar(one.mean_usd, one.baseline_mean_usd, top)}</td>"
        f"<td class=figure>{show(one.mean_usd, 'usd')}</td><td class=figure>{show(one.highest_usd, 'usd')}</td>"
        f"<td class=figure>{show(one.mean_seconds, 'seconds')}</td><td class=figure>{one.runs}</td></tr>"
        for one in card.costs
    )
    head = "<tr><th>tag<th><th>a run<th>dearest<th>time<th>runs</tr>"
    return _table("Cost by tag", head, rows)


def _table(title: str, head: str, rows: str) -> str:
    table = f"<table><thead>{head}</thead><tbody>{rows}</tbody></table>"
    return f"<section><h2>{title}</h2><div class=wide>{table}</div></section>"


def _checks(card: Scorecard) -> str:
    check = card.self_check
    if check is None:
        return ""
    caught = "".join(
        f'<li><span class="verdict {"pass" if one.caught else "fail"}">{"caught" if one.caught else "missed"}</span>'
        f"{e(one.name)}: {e(one.what)}</li>"
        for one in check.mutants
    )
    return (
        "<section><h2>The gate's check of itself</h2>"
        f"<p>{check.false_blocks} of {check.gates} gates blocked a version held against itself "
        f"({check.false_block_rate:.1%}; it may be {check.level:.0%}).</p><ul class=checks>{caught}</ul></section>"
    )


@cache
def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")
