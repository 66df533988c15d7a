"""What is wrong with a golden set, beyond lines that cannot be read. Pure: all it looks at is given."""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec

from lockgate.evals.embeddings import Embedder
from lockgate.evals.golden.jsonl import FEW, MANY, unreviewed
from lockgate.evals.golden.near import near_pairs
from lockgate.evals.model import Case
from lockgate.evals.scorers.sample import as_text, input_text, normal

LEAK = 30
"""Letters from which on an input that stands in a prompt is no accident."""
ONE_SIDED = 0.9
"""A label that this share of cases carries says little of the others."""
SHOWN = 5


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One finding. ``error`` must be put right; ``warning`` weakens the verdict."""

    rule: str
    level: Literal["error", "warning"]
    message: str
    remedy: str
    cases: list[str] = msgspec.field(default_factory=list)
    line: int | None = None


class Around(msgspec.Struct, frozen=True, kw_only=True):
    """What the cases are held against. Empty parts are not looked at."""

    prompts: Mapping[str, str] = {}  # name → text
    tools: Sequence[str] | None = None  # the agent's; None when unknown
    schema: Any = None  # of its output
    means: Mapping[str, float] = {}  # case id → mean over stored trials of all versions, 0..1
    versions: int = 0  # behind ``means``
    owner: str | None = None  # of the agent: stands in for a case's own
    refused: Mapping[str, str] = {}  # case id → why the world of its simulation refuses an expected call


def lint(cases: Sequence[Case], around: Around, embedder: Embedder) -> list[Problem]:
    """Every finding, errors first."""
    found = [
        *_size(cases),
        *_unreviewed(cases),
        *_copies(cases, embedder),
        *_leaks(cases, around.prompts),
        *_unreachable(cases, around),
        *_nothing_expected(cases),
        *_saturated(cases, around),
        *_balance(cases),
        *_owners(cases, around.owner),
    ]
    return sorted(found, key=lambda problem: problem.level != "error")


def _size(cases: Sequence[Case]) -> list[Problem]:
    if not cases:
        return [_error("size", "no cases", "lockgate golden import, lockgate golden draft")]
    if len(cases) < FEW:
        remedy = f"add about {FEW - len(cases)} cases: lockgate triage list, lockgate golden draft"
        return [_warning("size", f"{len(cases)} cases; below {FEW} a verdict rests on little", remedy)]
    if len(cases) > MANY:
        remedy = "keep a core of 40 to 200 for every change, the rest under another split"
        return [_warning("size", f"{len(cases)} cases; above {MANY} every change is slow and dear to gate", remedy)]
    return []


def _unreviewed(cases: Sequence[Case]) -> list[Problem]:
    ids = unreviewed(cases)
    if not ids:
        return []
    message = f"{len(ids)} cases were proposed by a model, and nobody has accepted them: {_names(ids)}"
    return [_error("unreviewed", message, "keep them in a file of their own, and lockgate golden accept", ids)]


def _copies(cases: Sequence[Case], embedder: Embedder) -> list[Problem]:
    texts = [input_text(case.input) for case in cases]
    same: dict[str, list[int]] = defaultdict(list)
    for number, case in enumerate(cases):
        same[normal(texts[number]) + "\0" + json.dumps(case.contexts)].append(number)
    found = []
    for group in same.values():
        if len(group) > 1:
            expected = {as_text(cases[n].expected_output) for n in group}
            names = [cases[n].id for n in group]
            if len(expected) > 1:
                message = f"one input, {len(expected)} different expectations: {_names(names)}"
                found.append(_error("contradiction", message, "keep the right one", names))
            else:
                found.append(_warning("duplicate", f"the same input: {_names(names)}", "keep one of them", names))
    copied = {n for group in same.values() if len(group) > 1 for n in group}
    pairs = near_pairs(embedder.embed(texts), embedder.alike) if len(cases) > 1 else []
    near = [(i, j, how) for i, j, how in pairs if not (i in copied and j in copied)]
    near = [
        (i, j, how) for i, j, how in near if cases[i].cluster is None or cases[i].cluster != cases[j].cluster
    ]  # a shared cluster says that they are kin, and the statistics count them so
    if near:
        shown = "; ".join(f"{cases[i].id} ~ {cases[j].id} ({how:.2f})" for i, j, how in near[:SHOWN])
        more = f" and {len(near) - SHOWN} more" if len(near) > SHOWN else ""
        names = list(dict.fromkeys(cases[n].id for i, j, _ in near for n in (i, j)))
        message = f"{len(near)} pairs nearly the same, by {embedder.name}: {shown}{more}"
        found.append(_warning("near-duplicate", message, "drop one, or give both one `cluster`", names))
    return found


def _leaks(cases: Sequence[Case], prompts: Mapping[str, str]) -> list[Problem]:
    found = []
    for name, text in prompts.items():
        plain = normal(text)
        inputs = [case.id for case in cases if len(t := normal(input_text(case.input))) >= LEAK and t in plain]
        answers = [
            case.id
            for case in cases
            if isinstance(case.expected_output, str)
            and len(t := normal(case.expected_output)) >= LEAK
            and t in plain
            and case.id not in inputs
        ]
        for what, ids in (("input", inputs), ("expected answer", answers)):
            if ids:
                message = f"the {what} of {len(ids)} cases stands in {name}: {_names(ids)}"
                remedy = "use other examples in the prompt, or take these cases out: they test memory"
                found.append(_error("leak", message, remedy, ids))
    return found


def _unreachable(cases: Sequence[Case], around: Around) -> list[Problem]:
    found = []
    if around.tools is not None:
        lost: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            for tool in case.expected_tools or ():
                name = tool if isinstance(tool, str) else tool["name"]
                if name not in around.tools:
                    lost[name].append(case.id)
        for name, ids in lost.items():
            message = f"tool {name!r} is expected by {len(ids)} cases, and the agent has no such tool: {_names(ids)}"
            remedy = f"the agent has {', '.join(around.tools) or 'none'}; correct the name, or add the tool"
            found.append(_error("unreachable", message, remedy, ids))
    if around.schema is not None:
        import jsonschema_rs

        check = jsonschema_rs.validator_for(around.schema)
        fields = set((around.schema.get("properties") or {}) if isinstance(around.schema, dict) else ())
        beyond: dict[str, list[str]] = defaultdict(list)
        for case in cases:
            expected = case.expected_output
            if isinstance(expected, dict) and fields and (extra := set(expected) - fields):
                beyond[", ".join(sorted(extra))].append(case.id)
            elif isinstance(expected, dict) and (wrong := _wrong_fields(check, expected)):
                message = f"case {case.id!r} expects what the output schema refuses: {wrong}"
                found.append(_error("unreachable", message, "correct the case, or the schema", [case.id]))
        for names, ids in beyond.items():
            message = f"{len(ids)} cases expect {names}, which the output schema does not have: {_names(ids)}"
            found.append(_error("unreachable", message, "correct the cases, or the schema", ids))
    for case in cases:
        if why := around.refused.get(case.id):
            remedy = "correct the case, or the world"
            found.append(_error("unreachable", f"case {case.id!r}: {why}", remedy, [case.id]))
        answer = as_text(case.expected_output)
        for rule in case.must_not or ():
            if rule.startswith("tool:"):
                name = rule[5:]
                if any((tool if isinstance(tool, str) else tool["name"]) == name for tool in case.expected_tools or ()):
                    message = f"case {case.id!r} both expects and forbids tool {name!r}"
                    found.append(_error("unreachable", message, "keep one", [case.id]))
            elif answer and (_matches(rule, answer)):
                message = f"case {case.id!r} forbids {rule!r}, which stands in its own expected answer"
                found.append(_error("unreachable", message, "correct one of them", [case.id]))
    return found


def _wrong_fields(check: Any, expected: dict[str, Any]) -> str:
    """What is wrong with fields that are there; those that are missing are simply not compared."""
    for problem in check.iter_errors(expected):
        if "required" not in [str(part) for part in problem.schema_path]:
            return str(problem.message)
    return ""


def _matches(rule: str, answer: str) -> bool:
    if rule.startswith("re:"):
        return re.search(rule[3:], answer) is not None
    return normal(rule) in normal(answer)


def _nothing_expected(cases: Sequence[Case]) -> list[Problem]:
    ids = [
        case.id
        for case in cases
        if case.expected_output is None
        and case.expected_tools is None
        and not (case.must_not or case.labels or case.reference_contexts)
        and not (case.metadata.keys() & {"assert", "simulation"})
    ]
    if not ids:
        return []
    message = f"{len(ids)} cases expect nothing: {_names(ids)}"
    return [_warning("no-expectation", message, "only reference-free metrics can score them; say what is right", ids)]


def _saturated(cases: Sequence[Case], around: Around) -> list[Problem]:
    if around.versions < 2:
        return []
    always = [case.id for case in cases if around.means.get(case.id, 0.5) >= 1.0]
    never = [case.id for case in cases if around.means.get(case.id, 0.5) <= 0.0]
    found = []
    if always:
        message = f"{len(always)} of {len(cases)} cases were right in every trial of {around.versions} versions"
        remedy = "they cost and tell nothing: make some harder, or run them under another split"
        found.append(_warning("saturated", f"{message}: {_names(always)}", remedy, always))
    if never:
        message = f"{len(never)} cases were never right in {around.versions} versions: {_names(never)}"
        found.append(_warning("saturated", message, "is the expectation right, and can it be reached?", never))
    return found


def labels_of(case: Case) -> dict[str, str]:
    """What a case is sorted by: its labels, else the short fields of what it expects."""
    given = case.labels or (case.expected_output if isinstance(case.expected_output, dict) else {})
    found = {name: as_text(value) for name, value in given.items() if isinstance(value, str | bool | int)}
    if isinstance(case.expected_output, str) and len(case.expected_output) <= 20:
        found.setdefault("expected_output", case.expected_output)
    return found


def balance(cases: Sequence[Case]) -> dict[str, Counter[str]]:
    """By label, how often each value stands; only labels whose values repeat."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        for name, value in labels_of(case).items():
            found[name][value] += 1
    return {name: values for name, values in found.items() if len(values) <= max(2, len(cases) // 4)}


def _balance(cases: Sequence[Case]) -> list[Problem]:
    found = []
    for name, values in balance(cases).items():
        value, count = values.most_common(1)[0]
        total = values.total()
        if total >= 10 and count / total >= ONE_SIDED:
            message = (
                f"{name} is {value!r} in {count} of {total} cases: always saying so would score {count / total:.2f}"
            )
            found.append(_warning("balance", message, f"add cases with another {name}"))
    return found


def _owners(cases: Sequence[Case], owner: str | None) -> list[Problem]:
    ids = [] if owner else [case.id for case in cases if not case.owner]
    if not ids:
        return []
    message = f"{len(ids)} cases have no owner: {_names(ids)}"
    return [_warning("owner", message, "add `owner` to them, or to the agent: somebody must keep them right", ids)]


def _names(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else "")


def _error(rule: str, message: str, remedy: str, cases: Sequence[str] = ()) -> Problem:
    return Problem(rule=rule, level="error", message=message, remedy=remedy, cases=list(cases))


def _warning(rule: str, message: str, remedy: str, cases: Sequence[str] = ()) -> Problem:
    return Problem(rule=rule, level="warning", message=message, remedy=remedy, cases=list(cases))
