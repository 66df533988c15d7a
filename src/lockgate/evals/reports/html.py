# ruff: noqa: E501 - markup
"""The scorecard as one HTML file that needs nothing else: charts, every case with its answers then and now, a filter.

All that comes from outside is escaped; the one script and the one style stand in the page, and a content policy allows
nothing to be loaded.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import SequenceMatcher
from html import escape as e

from lockgate.evals.figures import show
from lockgate.evals.model import MetricCard, Scorecard
from lockgate.evals.reports.cases import CaseView, TrialView, failing, text_of
from lockgate.evals.reports.words import WORDS, baseline, difference, facts, ordered, score, wanted, word, worst_slices

MOST_CASES = 2000
"""Cases shown; those with something to see come first."""
LONGEST = 8000
"""Letters of an answer that are shown."""


def html(card: Scorecard, cases: Iterable[CaseView] = ()) -> str:
    """The page."""
    shown, left_out = _chosen(cases)
    sections = [
        _head(card),
        _metrics(card),
        _slices(card),
        _costs(card),
        _checks(card),
        _browser(card, shown, left_out),
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">"
        f"<title>{e(card.label)}: {e(WORDS[card.verdict])}</title><style>{_STYLE}</style></head><body><main>"
        + "".join(sections)
        + f"<footer>{e(' · '.join(facts(card)))}</footer></main><script>{_SCRIPT}</script></body></html>\n"
    )


def _chosen(cases: Iterable[CaseView]) -> tuple[list[CaseView], int]:
    marked: list[CaseView] = []
    plain: list[CaseView] = []
    total = 0
    for one in cases:
        total += 1
        kept = marked if one.marks else plain
        if len(kept) < MOST_CASES:
            kept.append(one)
    found = [*marked, *plain][:MOST_CASES]
    return found, total - len(found)


def _head(card: Scorecard) -> str:
    reasons = "".join(f"<li>{e(reason)}</li>" for reason in card.reasons)
    warnings = "".join(f'<p class="warning">{e(text)}</p>' for text in card.warnings)
    against = f" against {e(card.baseline_label)}" if card.baseline_label else ""
    return (
        f'<header><h1><span class="verdict {card.verdict}">{e(WORDS[card.verdict])}</span> {e(card.label)}</h1>'
        f"<p>{e(card.dataset)}: {card.cases} cases × {card.trials} trials{against}</p></header>"
        f'<ul class="reasons">{reasons}</ul>{warnings}'
    )


def _metrics(card: Scorecard) -> str:
    rows = []
    for metric in ordered(card):
        verdict = metric.verdict or "none"
        rows.append(
            f"<tr><th scope=row>{e(metric.name)}{'' if metric.blocking else ' <i>advisory</i>'}</th>"
            f'<td><span class="verdict {verdict}">{e(word(metric))}</span></td><td class=figure>{e(score(metric))}</td>'
            f"<td>{_bar(metric)}</td><td class=figure>{e(wanted(metric))}</td><td class=figure>{e(baseline(metric))}</td>"
            f"<td class=figure>{e(difference(metric))}</td><td class=figure>{e(_seen(metric))}</td></tr>"
        )
    return (
        "<section><h2>Metrics</h2><div class=wide><table><thead><tr><th>metric<th><th>score<th>interval"
        "<th>wanted<th>baseline<th>difference<th>detectable loss</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table></div></section>"
    )


def _seen(metric: MetricCard) -> str:
    return "" if metric.detectable is None else show(metric.detectable, metric.unit)


def _bar(metric: MetricCard) -> str:
    """The interval on a line from 0 to 1 (or to the highest figure), with the bound and the baseline."""
    if metric.mean is None or metric.interval is None:
        return ""
    marks = [metric.interval.high, metric.mean, metric.maximum or 0, metric.minimum or 0, metric.baseline_mean or 0]
    top = 1.0 if metric.unit in ("score", "rate") else max(marks) * 1.1 or 1.0

    def x(value: float) -> float:
        return 2 + 176 * min(1.0, max(0.0, value / top))

    low, high = x(metric.interval.low), x(metric.interval.high)
    parts = [
        '<line x1="2" x2="178" y1="11" y2="11" class="axis"/>',
        f'<rect x="{low:.1f}" y="7" width="{max(1.5, high - low):.1f}" height="8" rx="2" class="range"/>',
        f'<circle cx="{x(metric.mean):.1f}" cy="11" r="3.5" class="mean"/>',
    ]
    for bound in (metric.minimum, metric.maximum):
        if bound is not None:
            parts.append(f'<line x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="1" y2="21" class="bound"/>')
    if metric.baseline_mean is not None:
        at = x(metric.baseline_mean)
        parts.append(f'<path d="M{at:.1f} 6 l4 5 l-4 5 l-4 -5 z" class="baseline"/>')
    label = f"{metric.name}: {score(metric)}"
    return f'<svg width="180" height="22" role="img" aria-label="{e(label, quote=True)}">{"".join(parts)}</svg>'


def _slices(card: Scorecard) -> str:
    rows = []
    for part in worst_slices(card):
        before = "" if part.baseline_mean is None else f"{part.baseline_mean:.2f}"
        width = 160 * min(1.0, max(0.0, part.mean))
        bar = f'<svg width="160" height="12" aria-hidden="true"><rect width="{width:.1f}" height="12" rx="2" class="range"/></svg>'
        rows.append(
            f"<tr><th scope=row>{e(part.kind)} {e(part.name)}</th><td>{e(part.metric)}</td><td>{bar}</td>"
            f"<td class=figure>{part.mean:.2f}</td><td class=figure>{before}</td><td class=figure>{part.cases}</td></tr>"
        )
    if not rows:
        return ""
    head = "<tr><th>cases<th>metric<th><th>score<th>baseline<th>cases</tr>"
    return f"<section><h2>Where it is worst</h2><table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table></section>"


def _costs(card: Scorecard) -> str:
    if not card.costs:
        return ""
    rows = "".join(
        f"<tr><th scope=row>{e(one.tag)}</th><td class=figure>{one.runs}</td>"
        f"<td class=figure>{show(one.mean_usd, 'usd')}</td><td class=figure>{show(one.highest_usd, 'usd')}</td>"
        f"<td class=figure>{show(one.mean_seconds, 'seconds')}</td></tr>"
        for one in card.costs
    )
    head = "<tr><th>tag<th>runs<th>a run<th>dearest<th>time</tr>"
    return f"<section><h2>Cost by tag</h2><table><thead>{head}</thead><tbody>{rows}</tbody></table></section>"


def _checks(card: Scorecard) -> str:
    check = card.self_check
    if check is None:
        return ""
    caught = "".join(
        f"<li>{'caught' if one.caught else '<b>not caught</b>'}: {e(one.name)} ({e(one.what)})</li>"
        for one in check.mutants
    )
    return (
        "<section><h2>The gate's check of itself</h2>"
        f"<p>{check.false_blocks} of {check.gates} gates blocked a version held against itself "
        f"({check.false_block_rate:.1%}; it may be {check.level:.0%}).</p><ul>{caught}</ul></section>"
    )


def _browser(card: Scorecard, cases: list[CaseView], left_out: int) -> str:
    if not cases:
        return ""
    marks = sorted({mark for one in cases for mark in one.marks})
    buttons = "".join(f'<button data-mark="{mark}">{mark}</button>' for mark in marks)
    more = f"<p>{left_out:,} more cases are not shown.</p>" if left_out else ""
    return (
        f"<section><h2>Cases</h2><div class=filter><input id=search type=search aria-label=Search "
        f'placeholder="id, text or tag"><button data-mark="" class=on>all</button>{buttons}'
        f"<span id=count>{len(cases)} of {len(cases)}</span></div>{more}"
        f"{''.join(_case(card, one) for one in cases)}</section>"
    )


def _case(card: Scorecard, one: CaseView) -> str:
    marks = "".join(f'<span class="mark {mark}">{mark}</span>' for mark in one.marks)
    tags = " ".join(one.case.tags)
    asked = text_of(one.case.input)
    broken = failing(card, one.trials) if one.trials else ["not run"]
    pairs = []
    for number in range(max(len(one.trials), len(one.baseline))):
        now = one.trials[number] if number < len(one.trials) else None
        before = one.baseline[number] if number < len(one.baseline) else None
        pairs.append(_pair(now, before))
    expected = text_of(one.case.expected_output)
    wanted_part = f"<h3>expected</h3><pre>{e(expected[:LONGEST])}</pre>" if expected else ""
    why = f'<p class="warning">below: {e(", ".join(broken))}</p>' if broken else ""
    return (
        f'<details class=case data-marks="{" ".join(one.marks)}" '
        f'data-text="{e(f"{one.case.id} {tags} {asked}"[:400].lower(), quote=True)}">'
        f"<summary>{marks}<b>{e(one.case.id)}</b> <span>{e(asked[:110])}</span></summary>"
        f"<h3>input</h3><pre>{e(asked[:LONGEST])}</pre>{wanted_part}{why}{''.join(pairs)}</details>"
    )


def _pair(now: TrialView | None, before: TrialView | None) -> str:
    new, old = _answer(now), _answer(before)
    trial = now or before
    number = trial.trial + 1 if trial else 1
    if before is None:
        return f"<h3>answer, trial {number}</h3><pre>{e(new)}</pre>{_scores(now)}"
    left, right = _diff(old, new)
    return (
        f"<h3>trial {number}</h3><div class=pair><div><h4>baseline</h4><pre>{left}</pre>{_scores(before)}</div>"
        f"<div><h4>this version</h4><pre>{right}</pre>{_scores(now)}</div></div>"
    )


def _answer(trial: TrialView | None) -> str:
    if trial is None:
        return "(not run)"
    if trial.result.status != "completed" and trial.result.error_type:
        return f"[{trial.result.error_type}] {trial.result.error or ''}"[:LONGEST]
    return text_of(trial.result.output)[:LONGEST]


def _diff(old: str, new: str) -> tuple[str, str]:
    """Both sides escaped, with the words that differ marked."""
    before, after = _words(old), _words(new)
    if len(before) * len(after) > 4_000_000:
        return e(old), e(new)
    left: list[str] = []
    right: list[str] = []
    for kind, a, b, c, d in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        gone, come = e("".join(before[a:b])), e("".join(after[c:d]))
        left.append(gone if kind == "equal" or not gone else f"<del>{gone}</del>")
        right.append(come if kind == "equal" or not come else f"<ins>{come}</ins>")
    return "".join(left), "".join(right)


def _words(text: str) -> list[str]:
    found: list[str] = []
    for char in text:
        if found and char.isalnum() and found[-1][-1:].isalnum():
            found[-1] += char
        else:
            found.append(char)
    return found


def _scores(trial: TrialView | None) -> str:
    if trial is None:
        return ""
    cells = "".join(
        f"<li>{e(name)} <b>{'–' if value is None else f'{value:.3g}'}</b>{f' <i>{e(reason[:300])}</i>' if reason else ''}"
        for name, (value, _, reason) in trial.scores.items()
    )
    tools = ", ".join(use.name for use in trial.result.tools_used)
    called = f"<li>tools: {e(tools)}" if tools else ""
    return (
        f"<ul class=scores>{cells}{called}<li>{show(trial.result.cost_usd, 'usd')}, {trial.result.seconds:.2f} s</ul>"
    )


_STYLE = """
:root{--ink:#1b2733;--dim:#5b6b7a;--line:#dde3e8;--page:#fff;--soft:#f5f7f9;--good:#1a7f4b;--bad:#b42318;--open:#8a6100;
--bar:#3b7ea1}
@media(prefers-color-scheme:dark){:root{--ink:#e6ebf0;--dim:#9aa8b5;--line:#33404c;--page:#141a20;--soft:#1c242c;
--good:#5cc98f;--bad:#ff8a7d;--open:#e6b450;--bar:#6bb3d9}}
body{margin:0;background:var(--page);color:var(--ink);font:15px/1.5 system-ui,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px}h1{font-size:22px;margin:0}h2{font-size:17px;margin:32px 0 8px}
h3{font-size:13px;margin:12px 0 4px;color:var(--dim)}h4{font-size:12px;margin:0 0 4px;color:var(--dim)}
header p,footer{color:var(--dim)}footer{margin-top:40px;font-size:13px}.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:6px 10px 6px 0;border-bottom:1px solid var(--line);
font-weight:400;vertical-align:middle}thead th{color:var(--dim);font-size:13px}.figure{font-variant-numeric:tabular-nums;
white-space:nowrap}.verdict{font-weight:600}.verdict.pass{color:var(--good)}.verdict.fail{color:var(--bad)}
.verdict.inconclusive{color:var(--open)}.warning{color:var(--open);margin:6px 0}.axis{stroke:var(--line);stroke-width:2}
.range{fill:var(--bar);opacity:.55}.mean{fill:var(--bar)}.bound{stroke:var(--bad);stroke-width:1.5;stroke-dasharray:3 2}
.baseline{fill:none;stroke:var(--ink)}.filter{display:flex;gap:8px;flex-wrap:wrap;align-items:center;margin:8px 0}
input{font:inherit;padding:6px 10px;border:1px solid var(--line);border-radius:6px;background:var(--page);
color:var(--ink);min-width:220px}button{font:inherit;padding:5px 12px;border:1px solid var(--line);border-radius:6px;
background:var(--soft);color:var(--ink);cursor:pointer}button.on{border-color:var(--bar);color:var(--bar)}
#count{color:var(--dim)}.case{border-bottom:1px solid var(--line);padding:6px 0}summary{cursor:pointer;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap}summary span{color:var(--dim)}summary .mark{margin-right:6px;font-size:12px}
.mark.failed,.mark.broken,.mark.missing{color:var(--bad)}.mark.fixed{color:var(--good)}.mark.flaky{color:var(--open)}
pre{white-space:pre-wrap;overflow-wrap:anywhere;background:var(--soft);padding:10px;border-radius:6px;margin:0;
font:13px/1.45 ui-monospace,monospace}.pair{display:grid;grid-template-columns:1fr 1fr;gap:12px}
@media(max-width:700px){.pair{grid-template-columns:1fr}}del{background:#b4231833;text-decoration:none}
ins{background:#1a7f4b33;text-decoration:none}.scores{list-style:none;padding:0;margin:6px 0;font-size:13px;display:flex;
gap:4px 16px;flex-wrap:wrap}.scores i{color:var(--dim)}
"""

_SCRIPT = """
const search=document.getElementById('search');
if(search){const cases=[...document.querySelectorAll('.case')],buttons=[...document.querySelectorAll('button[data-mark]')];
let mark='';const look=()=>{const text=search.value.toLowerCase();let shown=0;for(const one of cases){
const fits=(!mark||one.dataset.marks.split(' ').includes(mark))&&one.dataset.text.includes(text);
one.hidden=!fits;if(fits)shown++}document.getElementById('count').textContent=shown+' of '+cases.length};
search.addEventListener('input',look);for(const button of buttons)button.addEventListener('click',()=>{
mark=button.dataset.mark;for(const other of buttons)other.classList.toggle('on',other===button);look()})}
"""
