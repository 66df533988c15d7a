"""The report's case browser: every case with what was asked, answered and scored, then and now."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from html import escape as e

from lockgate.evals.figures import show
from lockgate.evals.model import Scorecard
from lockgate.evals.reports.cases import CaseView, TrialView, failing, text_of

LONGEST = 8000
"""Letters of an answer that are shown."""
MOST_TAGS = 60
"""Tags the filter lists."""


def browser(card: Scorecard, cases: Sequence[CaseView], left_out: int) -> str:
    """All cases with a filter by mark, tag and text. ``left_out`` is how many are not among them."""
    if not cases:
        return ""
    marks = [mark for mark in ("failed", "broken", "fixed", "flaky", "missing") if any(mark in c.marks for c in cases)]
    buttons = "".join(
        f'<button data-mark="{mark}">{mark} <b>{sum(mark in one.marks for one in cases)}</b></button>' for mark in marks
    )
    tags = sorted({tag for one in cases for tag in one.case.tags})[:MOST_TAGS]
    options = "".join(f'<option value="{e(tag, quote=True)}">{e(tag)}</option>' for tag in tags)
    choice = f"<select id=tag aria-label=Tag><option value=''>every tag</option>{options}</select>" if tags else ""
    more = f"<p>{left_out:,} more cases are not shown.</p>" if left_out else ""
    return (
        f"<section><h2>Cases</h2><div class=filter><input id=search type=search aria-label=Search "
        f'placeholder="id or text">{choice}<button data-mark="" class=on>all <b>{len(cases)}</b></button>{buttons}'
        f"<span id=count>{len(cases)} of {len(cases)}</span></div>{more}"
        f"<div class=cases>{''.join(_case(card, one) for one in cases)}</div></section>"
    )


def _case(card: Scorecard, one: CaseView) -> str:
    marks = "".join(f'<span class="mark {mark}">{mark}</span>' for mark in one.marks)
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
    tags = "".join(f"<span class=tag>{e(tag)}</span>" for tag in one.case.tags)
    return (
        f'<details class=case data-marks="{" ".join(one.marks)}" '
        f'data-tags="{e(chr(10).join(one.case.tags), quote=True)}" '
        f'data-text="{e(f"{one.case.id} {asked}"[:400].lower(), quote=True)}">'
        f"<summary><b>{e(one.case.id)}</b><span class=asked>{e(asked[:140])}</span>{marks}{_dots(card, one)}</summary>"
        f"<div class=inside>{tags}<h3>input</h3><pre>{e(asked[:LONGEST])}</pre>{wanted_part}{why}{''.join(pairs)}</div>"
        "</details>"
    )


def _dots(card: Scorecard, one: CaseView) -> str:
    """A square a trial: how the first blocking score came out."""
    name = next((metric.name for metric in card.metrics if metric.blocking and metric.unit == "score"), None)
    parts = []
    for trial in one.trials:
        value = trial.scores[name][0] if name in trial.scores else None
        kind = "none" if value is None else "good" if value >= 1 else "bad" if value <= 0 else "some"
        said = "not scored" if value is None else f"{value:.2f}"
        parts.append(f'<i class="dot {kind}" title="{e(name or "", quote=True)}, trial {trial.trial + 1}: {said}"></i>')
    return f"<span class=dots>{''.join(parts)}</span>"


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
        f"<li>{e(name)} <b>{'–' if value is None else f'{value:.3g}'}</b>"
        f"{f' <i>{e(reason[:300])}</i>' if reason else ''}"
        for name, (value, _, reason) in trial.scores.items()
    )
    tools = ", ".join(use.name for use in trial.result.tools_used)
    called = f"<li>tools: {e(tools)}" if tools else ""
    return (
        f"<ul class=scores>{cells}{called}<li>{show(trial.result.cost_usd, 'usd')}, {trial.result.seconds:.2f} s</ul>"
    )
