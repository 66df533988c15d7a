"""Reads the agent file's ``rollout`` block into a plan.

    rollout:
      shadow: {mirror: 100, min_pairs: 20, max: 1h}
      phases: [{weight: 5, min: 1h, min_units: 20}, {weight: 25, min: 2h}, {weight: 50, min: 4h}]
      gates:
        errors: {ratio: 1.0, max: 0.05}       # or false: not watched
        latency: {ratio: 1.0, max: 0.25, percentile: 90}
        cost_usd: {ratio: 1.2}
        faithfulness: {margin: 0.05}          # a live metric of the rubric
      promote: when_safe                      # or when_not_harmful
      alpha: 0.05
      beta: 0.05

Everything has a default; the rubric's live metrics are watched with the rubric's margins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from lockgate.errors import InputError
from lockgate.rollouts.model import MetricSpec, Phase, Plan

DEFAULT_PHASES = (
    Phase(weight=5, min_seconds=3600),
    Phase(weight=25, min_seconds=7200),
    Phase(weight=50, min_seconds=14400),
)

_ERRORS = MetricSpec(name="errors", kind="errors", ratio=1.0, max_rate=0.05)
_LATENCY = MetricSpec(name="latency", kind="latency", ratio=1.0, max_rate=0.25)
_COST = MetricSpec(name="cost_usd", kind="cost", ratio=1.2)

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_KEYS = {
    "shadow", "phases", "gates", "promote", "alpha", "beta", "catastrophe", "fidelity", "min_reference",
    "session_idle", "unit_deadline", "warm", "max",
}  # fmt: skip
_GATE_KEYS = {
    "errors": {"ratio", "max"},
    "latency": {"ratio", "max", "percentile"},
    "cost": {"ratio", "cap"},
    "quality": {"margin"},
}


def seconds(value: object, where: str) -> float:
    """A duration as seconds: a number of seconds, or ``500ms``, ``90s``, ``30m``, ``24h``, ``7d``."""
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < float("inf"):
        return float(value)
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*(ms|s|m|h|d|w)\s*", value) if isinstance(value, str) else None
    if found is None:
        raise InputError(f"{where}: {value!r} is not a duration", remedy="write 90s, 30m, 24h, or a number of seconds")
    return float(found[1]) * _UNITS[found[2]]


def parse(block: Mapping[str, Any], live: Iterable[MetricSpec] = ()) -> Plan:
    """The plan in ``block``, with ``live`` (the rubric's live metrics) watched besides errors, latency and cost.

    Raises :class:`InputError` naming the key and the value that is wrong.
    """
    block = _given(block)
    _only(block, _KEYS, "rollout")
    shadow = block.get("shadow")
    phases = list(DEFAULT_PHASES)
    if block.get("phases") is not None:
        listed = block["phases"]
        if not isinstance(listed, list | tuple):
            raise InputError(f"rollout.phases: {listed!r} is not a list", remedy="write phases: [{weight: 5, min: 1h}]")
        phases = [_phase(entry, f"rollout.phases[{index}]") for index, entry in enumerate(listed)]
    weights = [phase.weight for phase in phases]
    if weights != sorted(set(weights)):
        raise InputError(f"rollout.phases: weights {weights!r} do not rise", remedy="give each phase a higher weight")
    if shadow is not None and shadow is not False:
        phases.insert(0, _shadow({} if shadow is True else shadow))
    promote = block.get("promote", "when_safe")
    if promote not in ("when_safe", "when_not_harmful"):
        raise InputError(f"rollout.promote: {promote!r} is not known", remedy="write when_safe or when_not_harmful")
    catastrophe = block.get("catastrophe", 0.25)
    planned = Plan(
        phases=tuple(phases),
        metrics=_metrics(block.get("gates") or {}, live),
        alpha=_number(block.get("alpha", 0.05), "rollout.alpha", above=0, below=1),
        beta=_number(block.get("beta", 0.05), "rollout.beta", above=0, below=1),
        promote=promote,
        catastrophe=_number(catastrophe, "rollout.catastrophe", above=0, below=1) if catastrophe else None,
        fidelity=_number(block.get("fidelity", 0.8), "rollout.fidelity", least=0, most=1),
        min_reference=_count(block.get("min_reference", 20), "rollout.min_reference"),
        session_idle=seconds(block.get("session_idle", 1800), "rollout.session_idle"),
        unit_deadline=seconds(block.get("unit_deadline", 7200), "rollout.unit_deadline"),
        warm=seconds(block.get("warm", "24h"), "rollout.warm"),
        max_seconds=seconds(block["max"], "rollout.max") if block.get("max") is not None else None,
    )
    return planned if phases else direct(planned)


def direct(plan: Plan) -> Plan:
    """The same plan without phases: the candidate takes over as soon as a host serves it."""
    return Plan(phases=(), metrics=(), catastrophe=None, warm=plan.warm)


def _phase(entry: object, where: str) -> Phase:
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {entry!r} is not a phase", remedy="write {weight: 5, min: 1h}")
    _only(entry, {"weight", "min", "min_units", "mirror"}, where)
    if "weight" not in entry:
        raise InputError(f"{where}: no weight", remedy="write {weight: 5, min: 1h}")
    return Phase(
        weight=_number(entry["weight"], f"{where}.weight", above=0, below=100),
        mirror=_number(entry.get("mirror", 0), f"{where}.mirror", least=0, most=100),
        min_seconds=seconds(entry.get("min", 0), f"{where}.min"),
        min_units=_count(entry.get("min_units", 0), f"{where}.min_units"),
    )


def _shadow(entry: object) -> Phase:
    where = "rollout.shadow"
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {entry!r} is not a block", remedy="write shadow: {mirror: 100, min_pairs: 20}")
    _only(entry, {"mirror", "min", "min_pairs", "max"}, where)
    return Phase(
        mirror=_number(entry.get("mirror", 100), f"{where}.mirror", above=0, most=100),
        min_seconds=seconds(entry.get("min", 0), f"{where}.min"),
        min_pairs=_count(entry.get("min_pairs", 20), f"{where}.min_pairs"),
        max_seconds=seconds(entry.get("max", "24h"), f"{where}.max"),
    )


def _metrics(gates: Mapping[str, Any], live: Iterable[MetricSpec]) -> tuple[MetricSpec, ...]:
    known = {spec.name: spec for spec in (_ERRORS, _LATENCY, _COST, *live)}
    for name in gates:
        if name not in known:
            raise InputError(
                f"rollout.gates: {name!r} is not measured on live traffic",
                remedy=f"use one of {', '.join(known)}, or mark the metric live in the rubric",
            )
    specs = (_gate(spec, gates.get(name), f"rollout.gates.{name}") for name, spec in known.items())
    return tuple(spec for spec in specs if spec is not None)


def _gate(spec: MetricSpec, entry: object, where: str) -> MetricSpec | None:
    if entry is False:
        return None
    if entry is None or entry is True:
        return spec
    if not isinstance(entry, Mapping):
        raise InputError(f"{where}: {entry!r} is not a gate", remedy="write a block such as {margin: 0.05}, or false")
    _only(entry, _GATE_KEYS[spec.kind], where)
    return MetricSpec(
        name=spec.name,
        kind=spec.kind,
        margin=_number(entry.get("margin", spec.margin), f"{where}.margin", least=0, below=1),
        ratio=_number(entry.get("ratio", spec.ratio), f"{where}.ratio", least=1, most=100),
        max_rate=_number(entry.get("max", spec.max_rate), f"{where}.max", above=0, below=1),
        cap=_number(entry.get("cap", spec.cap), f"{where}.cap", above=1, most=100),
        percentile=_number(entry.get("percentile", spec.percentile * 100), f"{where}.percentile", above=0, below=100)
        / 100,
        higher_is_better=spec.higher_is_better,
    )


def _given(value: Any) -> Any:
    """Without the keys that are None: absent, to a reader of files that fills in every key."""
    if isinstance(value, Mapping):
        return {key: _given(item) for key, item in value.items() if item is not None}
    return [_given(item) for item in value] if isinstance(value, list | tuple) else value


def _only(entry: Mapping[str, Any], allowed: set[str], where: str) -> None:
    for key in entry:
        if key not in allowed:
            raise InputError(f"{where}: unknown key {key!r}", remedy=f"use {', '.join(sorted(allowed))}")


def _number(
    value: object,
    where: str,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> float:
    good = isinstance(value, int | float) and not isinstance(value, bool)
    if good:
        assert isinstance(value, int | float)
        number = float(value)
        if (
            (above is None or number > above)
            and (least is None or number >= least)
            and (below is None or number < below)
            and (most is None or number <= most)
        ):
            return number
    low = f"above {above:g}" if above is not None else f"at least {least:g}" if least is not None else ""
    high = f"below {below:g}" if below is not None else f"at most {most:g}" if most is not None else ""
    raise InputError(
        f"{where}: {value!r} is out of range", remedy=f"give a number {' and '.join(filter(None, (low, high)))}"
    )


def _count(value: object, where: str) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    raise InputError(f"{where}: {value!r} is not a count", remedy="give a whole number from 0 up")
