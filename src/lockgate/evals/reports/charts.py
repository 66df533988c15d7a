"""The report's charts as SVG, from a scorecard's figures; what comes from outside is escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape as e

from lockgate.evals.figures import show
from lockgate.evals.model import MetricCard, Quantiles, Unit
from lockgate.evals.reports.words import difference, score

WIDE = 150
"""Width of a chart in a table, in pixels."""
BINS = 10


def interval(metric: MetricCard) -> str:
    """A metric's mean and interval on a line from 0 to 1 (or to the highest figure), with its bounds and baseline."""
    if metric.mean is None or metric.interval is None:
        return ""
    marks = [metric.interval.high, metric.mean, metric.maximum or 0, metric.minimum or 0, metric.baseline_mean or 0]
    top = 1.0 if metric.unit in ("score", "rate") else max(marks) * 1.1 or 1.0
    x = _scale(0.0, top)
    parts = [_axis(), _band(x(metric.interval.low), x(metric.interval.high), metric.verdict or "none")]
    for bound in (metric.minimum, metric.maximum):
        if bound is not None:
            parts.append(f'<line x1="{x(bound):.1f}" x2="{x(bound):.1f}" y1="2" y2="24" class="bound"/>')
    if metric.baseline_mean is not None:
        parts.append(_diamond(x(metric.baseline_mean)))
    parts.append(f'<circle cx="{x(metric.mean):.1f}" cy="13" r="4" class="mean {metric.verdict or "none"}"/>')
    return _svg(parts, f"{metric.name}: {score(metric)}")


def change(metric: MetricCard) -> str:
    """The difference from the baseline and its interval about zero, with the margin where it would be a loss."""
    if metric.difference is None or metric.difference_interval is None:
        return ""
    low, high = metric.difference_interval.low, metric.difference_interval.high
    worse = -1 if metric.direction == "higher" else 1
    margin = None if metric.margin is None else worse * metric.margin
    if margin is not None and metric.unit not in ("score", "rate"):
        margin *= abs(metric.baseline_mean or 0.0)
    reach = 1.15 * max(abs(low), abs(high), abs(margin or 0.0), 1e-9)
    x = _scale(-reach, reach)
    parts = [_axis(), f'<line x1="{x(0):.1f}" x2="{x(0):.1f}" y1="4" y2="22" class="zero"/>']
    if margin is not None:
        parts.append(f'<line x1="{x(margin):.1f}" x2="{x(margin):.1f}" y1="2" y2="24" class="bound"/>')
    parts.append(_band(x(low), x(high), metric.verdict or "none"))
    parts.append(f'<circle cx="{x(metric.difference):.1f}" cy="13" r="4" class="mean {metric.verdict or "none"}"/>')
    return _svg(parts, f"{metric.name} against the baseline: {difference(metric)}")


def bar(value: float, before: float | None, top: float = 1.0) -> str:
    """A figure as a bar, and a tick where the baseline's was."""
    x = _scale(0.0, top or 1.0)
    parts = [f'<rect x="2" y="8" width="{max(1.0, x(value) - 2):.1f}" height="10" rx="2" class="bar"/>']
    if before is not None:
        parts.append(f'<line x1="{x(before):.1f}" x2="{x(before):.1f}" y1="4" y2="22" class="before"/>')
    return _svg([_axis(), *parts], f"{value:.3g}" + ("" if before is None else f", baseline {before:.3g}"))


def histogram(name: str, now: Sequence[float], before: Sequence[float]) -> str:
    """How cases' means are spread over 0..1: this version upwards, the baseline downwards."""
    height, width, gap = 56, 26, 4
    up, down = _bins(now), _bins(before)
    top = max([*up, *down, 1])
    middle = height + 14
    parts = []
    for number, (here, there) in enumerate(zip(up, down, strict=True)):
        x = number * (width + gap)
        tall, deep = height * here / top, height * there / top
        parts.append(f'<rect x="{x}" y="{middle - tall:.1f}" width="{width}" height="{tall:.1f}" class="bar"/>')
        if here:
            at = middle - tall - 3
            parts.append(f'<text x="{x + width / 2}" y="{at:.1f}" text-anchor="middle">{here}</text>')
        if there:
            parts.append(f'<rect x="{x}" y="{middle + 1}" width="{width}" height="{deep:.1f}" class="under"/>')
    total = BINS * (width + gap) - gap
    low = middle + (height if before else 0) + 14
    parts.append(f'<line x1="0" x2="{total}" y1="{middle}" y2="{middle}" class="zero"/>')
    parts.append(f'<text x="0" y="{low}">0</text><text x="{total}" y="{low}" text-anchor="end">1</text>')
    label = f"{name}: {len(now)} cases by their mean score"
    return (
        f'<svg width="{total}" height="{low + 4}" viewBox="0 0 {total} {low + 4}" role="img" '
        f'aria-label="{e(label, quote=True)}" class="histogram">{"".join(parts)}</svg>'
    )


def quantiles(now: Quantiles, before: Quantiles | None) -> str:
    """How long runs took, a row each for the median and the tail, with the baseline's beside."""
    names = ("p50", "p90", "p95", "p99", "highest")
    top = 1.05 * max(now.highest, before.highest if before else 0.0, 1e-9)
    rows = []
    for name in names:
        value = getattr(now, name)
        other = None if before is None else getattr(before, name)
        rows.append(
            f"<tr><th scope=row>{name}</th><td class=chart>{bar(value, other, top)}</td>"
            f"<td class=figure>{show(value, _SECONDS)}</td>"
            f"<td class=figure>{'' if other is None else show(other, _SECONDS)}</td></tr>"
        )
    head = "<tr><th>runs<th><th>time<th>baseline</tr>"
    return f"<table><thead>{head}</thead><tbody>{''.join(rows)}</tbody></table>"


_SECONDS: Unit = "seconds"


def _bins(values: Sequence[float]) -> list[int]:
    found = [0] * BINS
    for value in values:
        found[min(BINS - 1, int(min(1.0, max(0.0, value)) * BINS))] += 1
    return found


def _scale(low: float, high: float) -> Callable[[float], float]:
    def x(value: float) -> float:
        return 5 + (WIDE - 10) * min(1.0, max(0.0, (value - low) / (high - low)))

    return x


def _axis() -> str:
    return f'<line x1="2" x2="{WIDE - 2}" y1="13" y2="13" class="axis"/>'


def _band(low: float, high: float, verdict: str) -> str:
    return f'<rect x="{low:.1f}" y="8" width="{max(2.0, high - low):.1f}" height="10" rx="3" class="range {verdict}"/>'


def _diamond(x: float) -> str:
    return f'<path d="M{x:.1f} 7 l5 6 l-5 6 l-5 -6 z" class="baseline"/>'


def _svg(parts: Sequence[str], label: str) -> str:
    return (
        f'<svg width="{WIDE}" height="26" role="img" aria-label="{e(label, quote=True)}">'
        f"<title>{e(label)}</title>{''.join(parts)}</svg>"
    )
