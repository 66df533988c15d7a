"""People's labels: JSONL, one answer and its grade a line."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.model import Case
from lockgate.evals.scorers.sample import Sample
from lockgate.results import RunResult, ToolUse

_WORDS = {
    "yes": 1.0,
    "good": 1.0,
    "pass": 1.0,
    "true": 1.0,
    "partly": 0.5,
    "no": 0.0,
    "bad": 0.0,
    "fail": 0.0,
    "false": 0.0,
}
"""What people say for a grade."""


class Label(msgspec.Struct, frozen=True, kw_only=True):
    """One graded answer: what the judge is shown, and what a person said of it in 0..1."""

    item: str
    sample: Sample
    human: float
    weight: float = 1.0  # answers that this one stands for, where answers were not drawn evenly
    annotator: str = ""


def read_labels(path: Path, metric: str) -> list[Label]:
    """The labels of a metric in a file. A line: ``input``, ``output``, ``label``; and ``metric``, ``contexts``,
    ``expected_output``, ``metadata``, ``tools_used``, ``annotator`` and ``weight`` where they matter. A label is 0..1,
    true or false, or a word such as yes or no.

    Raises :class:`InputError` naming file and line.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=str(path), remedy="correct the path") from None
    found: list[Label] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            data = msgspec.json.decode(line)
        except msgspec.DecodeError as failure:
            raise InputError(
                f"not valid JSON: {failure}", path=str(path), line=number, remedy="one JSON object a line"
            ) from None
        if not isinstance(data, dict) or "input" not in data or "output" not in data:
            raise InputError("no input and output", path=str(path), line=number, remedy="give both, and a label")
        if data.get("metric", metric) == metric:
            found.append(_label(data, str(path), number))
    if not found:
        raise InputError(f"no labels for {metric!r}", path=str(path), remedy="add some, or name another metric")
    return found


def _label(data: dict[str, Any], path: str, line: int) -> Label:
    value = grade(data.get("label"))
    if value is None:
        raise InputError(
            f"the label is {data.get('label')!r}", path=path, line=line, remedy="give 0..1, true or false, yes or no"
        )
    weight = data.get("weight", 1.0)
    if not isinstance(weight, int | float) or not 0 < weight < math.inf:
        raise InputError(f"the weight is {weight!r}", path=path, line=line, remedy="give a positive number")
    fields = {name: data[name] for name in ("expected_output", "contexts", "metadata") if data.get(name) is not None}
    item = answer_digest(data["input"], data["output"], fields)
    try:
        case = msgspec.convert({"id": item[7:19], "input": data["input"], **fields}, Case)
        used = msgspec.convert(data.get("tools_used") or [], list[ToolUse])
    except msgspec.ValidationError as wrong:
        raise InputError(str(wrong), path=path, line=line, remedy="correct the value") from None
    result = RunResult(status="completed", output=data["output"], tools_used=used)
    annotator = str(data.get("annotator") or "")
    sample = Sample(case, data["input"], result)
    return Label(item=item, sample=sample, human=value, weight=float(weight), annotator=annotator)


def grade(value: object) -> float | None:
    """A person's grade in 0..1: a number, true or false, or a word. None: it is none of these."""
    if isinstance(value, str):
        word = value.strip().lower()
        try:
            value = _WORDS[word] if word in _WORDS else float(word)
        except ValueError:
            return None
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value <= 1:
        return None
    return float(value)


def answer_digest(input: object, output: object, fields: Mapping[str, object]) -> str:
    """``sha256:…`` of an answer and what it is held against."""
    shown = msgspec.json.encode([input, output, fields], order="sorted")
    return "sha256:" + hashlib.sha256(shown).hexdigest()


def one_an_answer(labels: Sequence[Label]) -> list[Label]:
    """Each answer once, with the mean of its grades: a line that stands there twice proves no more than once."""
    grades: dict[str, list[float]] = {}
    for label in labels:
        grades.setdefault(label.item, []).append(label.human)
    first = {label.item: label for label in reversed(labels)}
    return [msgspec.structs.replace(first[item], human=sum(given) / len(given)) for item, given in grades.items()]


def lengths(labels: Sequence[Label]) -> list[int]:
    """The length of each answer, in characters."""
    return [len(label.sample.result.deliverable) for label in labels]


def comparable(labels: Sequence[Label]) -> list[tuple[Label, Label]]:
    """Pairs of different answers to one input; then answers beside the expected one, where these differ."""
    by_input: dict[bytes, list[Label]] = {}
    for label in labels:
        by_input.setdefault(msgspec.json.encode(label.sample.input, order="sorted"), []).append(label)
    found = []
    for given in by_input.values():
        distinct = {label.sample.result.deliverable: label for label in given}
        answers = list(distinct.values())
        found += [(left, right) for left, right in zip(answers[::2], answers[1::2], strict=False)]
    for label in labels:
        expected = None if label.sample.case is None else label.sample.case.expected_output
        if expected is None:
            continue
        result = RunResult(status="completed", output=expected)
        if result.deliverable != label.sample.result.deliverable:
            sample = Sample(label.sample.case, label.sample.input, result)
            found.append((label, msgspec.structs.replace(label, sample=sample)))
    return found
