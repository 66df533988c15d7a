"""Reads what a good answer is: the ``evals`` block of an agent file and the rubric it may name.

``thresholds`` and a rubric's ``dimensions`` map a metric to a number or a rule. A number bounds the metric in its own
direction: quality at least, cost and time at most. A metric is a scorer's name, ``field_match.NAME`` for one field, or
any name with ``metric: SCORER`` or ``python: FILE:FUNCTION`` beside it.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import Case, JudgeSettings, Metric, Rubric
from lockgate.evals.scorers import ALIASES, SCORERS, known_as
from lockgate.evals.scorers.judge import prompt_digest
from lockgate.evals.scorers.making import make_scorer

if TYPE_CHECKING:
    pass

_RULE = ("metric", "threshold", "min", "max", "margin", "blocking", "strict", "never", "aggregate", "passes")

MAX_ERROR_RATE = 0.05
"""Trials that may fail when the rubric does not say: nothing passes because its runs never came to an answer."""
MOST_FIELDS = 12
"""Fields of an expected output that get a metric of their own without being named."""


def parse_rubric(evals: Mapping[str, Any], root: Path, *, where: str = "evals") -> Rubric:
    """The rubric in an ``evals`` block. Paths are from ``root``, the project's folder; ``where`` is for messages.

    Raises :class:`InputError` for metrics, options and values that make no sense.
    """
    sources: dict[str, str] = {}
    rules: dict[str, dict[str, Any]] = {}
    never: list[str] = []
    slices: dict[str, float] = {}
    given = evals.get("rubric")
    if isinstance(given, str):
        given = _rubric_file(given, root, sources)
    for block in (given or {}, {"dimensions": evals.get("thresholds")}):
        for name, rule in (block.get("dimensions") or {}).items():
            rules[name] = _rule(name, rule, where)
        never += block.get("never") or []
        slices.update(block.get("slices") or {})
    for name in never:
        rules[name] = {**rules.get(name, {}), "never": True}
    rules.setdefault("error_rate", {"threshold": MAX_ERROR_RATE})
    metrics: list[Metric] = []
    for name, rule in rules.items():
        metrics += _metrics(name, rule, root, sources, where)
    judge = _judge_settings(evals.get("judge"), root, sources)
    return Rubric(
        metrics=tuple(metrics),
        dataset=evals.get("dataset"),
        trials=evals.get("trials") or 1,
        whole=bool(evals.get("whole")),
        concurrency=evals.get("concurrency") or 4,
        timeout=evals.get("timeout") or 120.0,
        max_usd=evals.get("max_usd"),
        trial_max_usd=evals.get("trial_max_usd"),
        trial_max_tokens=evals.get("trial_max_tokens"),
        max_trials=evals.get("max_trials"),
        baseline=evals.get("baseline"),
        judge=judge,
        slices=slices,
        sources=sources,
    )


def parse_thresholds(text: str) -> dict[str, float]:
    """``faithfulness=0.85,answer_relevance=0.8`` as a mapping."""
    found = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = part.partition("=")
        try:
            number = float(value)
        except ValueError:
            number = math.nan
        if not equals or not math.isfinite(number):
            raise InputError(f"--threshold {part!r} is not NAME=NUMBER", remedy="e.g. --threshold faithfulness=0.85")
        found[name.strip()] = number
    return found


def with_thresholds(rubric: Rubric, thresholds: Mapping[str, float], root: Path) -> Rubric:
    """The rubric with these bounds, over its own; metrics it did not have are added."""
    metrics = list(rubric.metrics)
    for name, value in thresholds.items():
        (added, *more) = _metrics(name, {"threshold": value}, root, {}, "--threshold")
        known = next((n for n, metric in enumerate(metrics) if _canonical(metric.name) == _canonical(name)), None)
        if known is None:
            metrics += [added, *more]
            continue
        bound = {"minimum": value} if metrics[known].direction == "higher" else {"maximum": value}
        metrics[known] = msgspec.structs.replace(metrics[known], blocking=True, **bound)
    return msgspec.structs.replace(rubric, metrics=tuple(metrics))


def check_decides(rubric: Rubric, remedy: str = "add evals.thresholds to the agent file, or --threshold") -> None:
    """Raises :class:`InputError` when nothing but the error rate could fail the gate: green by omission."""
    if not any(m.blocking and m.name != "error_rate" and (_bounded(m) or m.never) for m in rubric.metrics):
        raise InputError("no blocking metric has a threshold or a margin", remedy=remedy)


def with_field_metrics(rubric: Rubric, cases: Sequence[Case]) -> Rubric:
    """The rubric with an advisory metric for each field that a ``field_match`` over all expected fields compares.

    One number over all fields would hide which of them got worse.
    """
    metrics = list(rubric.metrics)
    for metric in rubric.metrics:
        if metric.scorer != "field_match" or metric.options.get("fields"):
            continue
        fields = {
            name: None for case in cases if isinstance(case.expected_output, dict) for name in case.expected_output
        }
        known = {one.name for one in metrics}
        for field in [name for name in fields if f"{metric.name}.{name}" not in known][:MOST_FIELDS]:
            metrics.append(_field_metric(metric, field))
    return msgspec.structs.replace(rubric, metrics=tuple(metrics))


def _field_metric(metric: Metric, field: str) -> Metric:
    options = {**metric.options, "fields": [field]}
    return Metric(
        name=f"{metric.name}.{field}", scorer=metric.scorer, options=options, margin=metric.margin, blocking=False
    )


def needs_judge(rubric: Rubric, cases: Sequence[Case] | None = None) -> list[str]:
    """The names of the metrics that a judge scores; of those that depend on the cases, where these need one."""
    judged = [metric for metric in rubric.metrics if SCORERS[metric.scorer].runs == "judge"]
    if judged and cases is not None:
        from lockgate.evals.peers.catalogue import ASSERTIONS, asks_model

        if not any(asks_model(case.metadata.get("assert")) for case in cases):
            judged = [metric for metric in judged if metric.scorer != ASSERTIONS]
    return [metric.name for metric in judged]


def _canonical(name: str) -> str:
    return known_as(name)


def _bounded(metric: Metric) -> bool:
    return metric.minimum is not None or metric.maximum is not None or metric.margin is not None


def _rule(name: str, rule: Any, where: str) -> dict[str, Any]:
    if isinstance(rule, int | float) and not isinstance(rule, bool):
        return {"threshold": rule}
    if isinstance(rule, Mapping):
        return dict(rule)
    raise InputError(f"{where}: {name} is {rule!r}", remedy=f"write {name}: 0.8, or {name}: {{min: 0.8}}")


def _metrics(name: str, rule: dict[str, Any], root: Path, sources: dict[str, str], where: str) -> list[Metric]:
    """The metric a rule describes and, for field_match over named fields, one advisory metric a field."""
    options = {key: value for key, value in rule.items() if key not in _RULE}
    scorer = _scorer_name(name, rule, options, where)
    base, _, field = scorer.partition(".")
    if field:
        if base != "field_match":
            raise InputError(f"{where}: {name!r}: only field_match takes a .FIELD", remedy=f"write {base!r}")
        options["fields"] = [field]
    kind = SCORERS[base]
    if base == "schema_valid" and isinstance(options.get("schema"), str):
        options["schema"] = _schema_file(options["schema"], root, sources)
    if base == "policy_compliance" and isinstance(options.get("policy"), str) and (root / options["policy"]).is_file():
        _note_source(root / options["policy"], options["policy"], sources)
        options["policy"] = _read(root / options["policy"], options["policy"]).decode("utf-8", "replace")
    if base == "python":
        file = str(options["python"]).rpartition(":")[0]
        _note_source(root / file, file, sources)
    direction, unit = kind.direction, kind.unit
    bounds = {key: rule.get(key) for key in ("threshold", "min", "max", "margin")}
    for key, value in bounds.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not _finite(value)):
            raise InputError(f"{where}: {name}.{key} is {value!r}", remedy="give a finite number")
        if value is not None and unit in ("score", "rate") and not 0 <= value <= 1:
            raise InputError(f"{where}: {name}.{key} is {value!r}, not in 0..1", remedy="scores are fractions")
    minimum, maximum = bounds["min"], bounds["max"]
    if bounds["threshold"] is not None:
        if direction == "higher":
            minimum = bounds["threshold"] if minimum is None else minimum
        else:
            maximum = bounds["threshold"] if maximum is None else maximum
    aggregate, passes = _aggregate(name, rule, unit, where)
    metric = Metric(
        name=name,
        scorer=base,
        options=options,
        aggregate=aggregate,
        passes=passes,
        direction=direction,
        unit=unit,
        minimum=minimum,
        maximum=maximum,
        margin=bounds["margin"],
        blocking=True if rule.get("blocking") is None else bool(rule["blocking"]),
        strict=bool(rule.get("strict")),
        never=bool(rule.get("never")),
        version=prompt_digest(kind.make) if kind.runs == "judge" else "",
    )
    make_scorer(metric, root, ask=_no_ask)  # options that make no sense are an error now, not in the middle of a run
    found = [metric]
    if base == "field_match" and len(options.get("fields") or ()) > 1:
        found += [_field_metric(metric, field) for field in options["fields"]]
    return found


def _aggregate(name: str, rule: dict[str, Any], unit: str, where: str) -> tuple[str, float | None]:
    """How a case's trials become one value, and what a trial needs to pass."""
    given, passes = rule.get("aggregate"), rule.get("passes")
    if given in (None, "mean"):
        if passes is not None:
            raise InputError(f"{where}: {name}.passes is for pass^k and pass@k", remedy="add aggregate: pass^3")
        return "", None
    if not isinstance(given, str) or not re.fullmatch(r"pass[\^@][1-9]\d?", given):
        raise InputError(
            f"{where}: {name}.aggregate is {given!r}",
            remedy="mean, pass^K (all of K trials pass) or pass@K (one of K does), e.g. pass^3",
        )
    if unit not in ("score", "rate"):
        raise InputError(f"{where}: {name}: {given} is for scores", remedy="leave aggregate away")
    if passes is not None and (isinstance(passes, bool) or not isinstance(passes, int | float) or not 0 <= passes <= 1):
        raise InputError(f"{where}: {name}.passes is {passes!r}", remedy="a trial passes with 0..1, e.g. 0.8")
    return given, passes


def _scorer_name(name: str, rule: dict[str, Any], options: dict[str, Any], where: str) -> str:
    if options.get("python") is not None:
        return "python"
    named = rule.get("metric") or options.pop("scorer", None) or name
    options.pop("scorer", None)
    if str(named).startswith("python:"):
        options["python"] = str(named).removeprefix("python:").strip()
        return "python"
    scorer = known_as(str(named))
    if not SCORERS.knows(scorer.partition(".")[0]):
        known = [*SCORERS, *ALIASES]
        close = get_close_matches(str(named), known, n=1)
        raise InputError(
            f"{where}: no metric {named!r}",
            remedy=f"did you mean {close[0]!r}?" if close else f"known: {', '.join(sorted(SCORERS))}",
        )
    return scorer


def _judge_settings(judge: Any, root: Path, sources: dict[str, str]) -> JudgeSettings | None:
    if judge is None:
        return None
    if isinstance(judge, str):
        return judge_named(judge)
    prompt = judge.get("prompt")
    if prompt is not None:
        text = _read(root / prompt, prompt)
        _note_source(root / prompt, prompt, sources)
        prompt = text.decode("utf-8")
    return JudgeSettings(
        model=f"{judge['provider']}:{judge['name']}",
        temperature=judge.get("temperature") or 0.0,
        max_tokens=judge.get("max_tokens") or 512,
        seed=judge.get("seed"),
        prompt=prompt,
        panel=tuple(f"{member['provider']}:{member['name']}" for member in judge.get("panel") or ()),
    )


def judge_named(model: str, option: str = "--judge") -> JudgeSettings:
    """``ollama:llama3.1:70b`` → the judge of that provider and name. ``option`` is what a message calls it."""
    provider, colon, name = model.partition(":")
    if not (colon and provider and name):
        raise InputError(f"{option} {model!r} is not PROVIDER:NAME", remedy=f"e.g. {option} ollama:llama3.1:70b")
    return JudgeSettings(model=model)


def _rubric_file(given: str, root: Path, sources: dict[str, str]) -> dict[str, Any]:
    from lockgate.project.yamlfile import read_yaml

    document = read_yaml(root / given, shown_as=given)
    _note_source(root / given, given, sources)
    data = document.data
    if isinstance(data, dict) and set(data) == {"rubric"}:
        data = data["rubric"]
    if not isinstance(data, dict) or not isinstance(data.get("dimensions", {}), dict):
        raise document.error((), "not a rubric", remedy="write dimensions: {METRIC: NUMBER, …}")
    for key in data:
        if key not in ("name", "description", "dimensions", "never", "slices"):
            raise document.error((key,), f"unknown key {key!r}", remedy="known: dimensions, never, slices")
    return data


def _schema_file(given: str, root: Path, sources: dict[str, str]) -> Any:
    from lockgate.project.yamlfile import read_json

    _note_source(root / given, given, sources)
    return read_json(root / given, shown_as=given)


def _note_source(path: Path, shown: str, sources: dict[str, str]) -> None:
    sources[shown] = "sha256:" + hashlib.sha256(_read(path, shown)).hexdigest()


def _read(path: Path, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=shown, remedy="correct the path") from None


def _finite(value: float) -> bool:
    return math.isfinite(value)


async def _no_ask(messages: Any, schema: Any) -> Any:
    raise AssertionError("only for checking options")
