"""What a scorecard says, in words and figures: shared by every form it is written in. Pure."""

from __future__ import annotations

from collections.abc import Iterator

from lockgate.evals.figures import show, signed
from lockgate.evals.model import Change, MetricCard, Scorecard, Slice, Verdict
from lockgate.money import show_usd

WORDS: dict[Verdict | None, str] = {"pass": "pass", "fail": "FAIL", "inconclusive": "inconclusive", None: "–"}

SHOWN_SLICES = 6
SHOWN_CASES = 8


def facts(card: Scorecard) -> Iterator[str]:
    per_case = f" × {card.trials} trials" if card.trials > 1 else ""
    yield f"{card.cases}{f' of {card.dataset_cases}' if card.dataset_cases > card.cases else ''} cases{per_case}"
    if card.cached_trials:
        yield f"{card.cached_trials} trials from earlier"
    if card.failures:
        yield "failed: " + ", ".join(f"{count} × {kind}" for kind, count in sorted(card.failures.items()))
    yield f"{show(card.mean_cost_usd, 'usd')} a run"
    yield f"{show_usd(card.spent_nano)} spent in {card.seconds:.1f} s"
    if card.baseline_label:
        yield f"baseline {card.baseline_label}"
    yield "intervals 95 %"
    if card.judge:
        yield f"judge {card.judge}{'' if card.judge_calibrated else ' (uncalibrated)'}"
    if card.model_override:
        yield f"on {card.model_override} instead of its own model"
    yield f"version {card.effective_digest.removeprefix('sha256:')[:12]}"
    yield f"golden set {card.dataset_digest.removeprefix('sha256:')[:12]}"
    yield card.id


def design(card: Scorecard) -> Iterator[tuple[str, str]]:
    """How far the verdict can be trusted, in short: looks and level, what would be seen, the self-check."""
    if card.settled_early:
        yield "settled early", f"by {card.looks[-1].what}; the rest can hardly change it (--whole runs it)"
    if len(card.looks) > 1:
        bought = f", {card.bought_trials} trials bought" if card.bought_trials else ""
        yield "looks", f"{len(card.looks)}, last at {card.looks[-1].what}; bounds err at {card.level:.2%}{bought}"
    seen = [metric for metric in card.metrics if metric.blocking and metric.detectable is not None]
    if seen:
        losses = ", ".join(f"{metric.name} {show(metric.detectable or 0.0, metric.unit)}" for metric in seen)
        yield "smallest loss seen 8 times in 10", losses
    if card.self_check is not None:
        check = card.self_check
        text = f"an equal version blocked in {check.false_blocks} of {check.gates} gates ({check.false_block_rate:.1%})"
        if check.mutants:
            text += f", {sum(one.caught for one in check.mutants)} of {len(check.mutants)} worse versions caught"
            missed = [one.name for one in check.mutants if not one.caught]
            text += f" (missed: {', '.join(missed)})" if missed else ""
        yield "self-check", text


def flaky(card: Scorecard, quote: str) -> str:
    """Cases that are right in one trial and wrong in another, with how far their trials vary."""
    spread = {one.case_id: one.sd for one in reversed(card.flaky_cases)}
    shown = ", ".join(
        f"{quote}{plain(id) if quote else id}{quote}" + (f" (sd {spread[id]:.2f})" if id in spread else "")
        for id in card.flaky[:SHOWN_CASES]
    )
    return f"{len(card.flaky)} cases: {shown}{', …' if len(card.flaky) > SHOWN_CASES else ''}"


def ordered(card: Scorecard) -> list[MetricCard]:
    """Quality first, then cost and time; what a metric is made of stands below it."""
    names = [metric.name for metric in card.metrics]

    def place(metric: MetricCard) -> tuple[bool, int, int]:
        parent = metric.name.rpartition(".")[0]
        own = names.index(metric.name)
        return metric.unit != "score", names.index(parent) if parent in names else own, own

    return sorted(card.metrics, key=place)


def word(metric: MetricCard) -> str:
    if metric.blocking:
        return WORDS[metric.verdict]
    return "advisory" if metric.verdict is None else f"advisory: {WORDS[metric.verdict].lower()}"


def score(metric: MetricCard, *, around: bool = True) -> str:
    if metric.mean is None or metric.interval is None:
        return "not scored"
    text = show(metric.mean, metric.unit)
    low, high = show(metric.interval.low, metric.unit), show(metric.interval.high, metric.unit)
    if around and low != high:
        text += f" ({low}..{high})"
    if metric.traffic_mean is not None and abs(metric.traffic_mean - metric.mean) > 0.005 * max(1e-9, abs(metric.mean)):
        text += f", by traffic {show(metric.traffic_mean, metric.unit)}"
    if metric.judge_mean is not None:
        text += f", by the judge {show(metric.judge_mean, metric.unit)}, corrected by {metric.labels} labels"
    if metric.unscored:
        text += f", {metric.unscored} unscored"
    if metric.calibrated is not None:
        agreed = "" if metric.kappa is None else f" κ {metric.kappa:.2f} ({metric.judge_labels} labels)"
        text += f", judge {'calibrated' if metric.calibrated else 'uncalibrated'}{agreed}"
    return text


def wanted(metric: MetricCard) -> str:
    parts = [metric.aggregate] if metric.aggregate else []
    if metric.minimum is not None:
        parts.append(f"≥ {show(metric.minimum, metric.unit)}")
    if metric.maximum is not None:
        parts.append(f"≤ {show(metric.maximum, metric.unit)}")
    if metric.margin is not None:
        bounded = metric.unit in ("score", "rate")
        parts.append(f"margin {show(metric.margin, metric.unit) if bounded else f'{metric.margin:.0%}'}")
    return ", ".join(parts) + (" strict" if metric.strict else "")


def baseline(metric: MetricCard) -> str:
    return "" if metric.baseline_mean is None else show(metric.baseline_mean, metric.unit)


def difference(metric: MetricCard) -> str:
    if metric.difference is None or metric.difference_interval is None:
        return ""
    low = signed(metric.difference_interval.low, metric.unit)
    high = signed(metric.difference_interval.high, metric.unit)
    moved = signed(metric.difference, metric.unit)
    return moved if low == high else f"{moved} ({low}..{high})"


def worst_slices(card: Scorecard) -> list[Slice]:
    """The worst slices, each kind of case once, on the metrics that decide where those have any. Of a safety suite:
    every kind of attack."""
    if card.kind == "safety":
        return [part for part in card.slices if part.kind == "tag" and part.metric == "attack_resisted"]
    deciding = {metric.name for metric in card.metrics if metric.blocking}
    parts = [part for part in card.slices if part.metric in deciding] or card.slices
    found: dict[tuple[str, str], Slice] = {}
    for part in parts:
        found.setdefault((part.kind, part.name), part)
    return list(found.values())[:SHOWN_SLICES]


def slices_title(card: Scorecard) -> str:
    """What stands over :func:`worst_slices`."""
    return "kinds of attack" if card.kind == "safety" else "worst kinds of case"


def listed(changes: list[Change], quote: str) -> str:
    by_case = {change.case_id: change for change in changes}
    return ids(list(by_case), quote)


def ids(ids: list[str], quote: str) -> str:
    shown = ", ".join(f"{quote}{plain(id) if quote else id}{quote}" for id in ids[:SHOWN_CASES])
    return f"{len(ids)} cases: {shown}{', …' if len(ids) > SHOWN_CASES else ''}"


def plain(text: str) -> str:
    """Without what Markdown or HTML would make something of: case ids and outputs come from outside."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").replace("`", "'").replace("\n", " ")
