"""Golden sets: JSONL files of cases, read strictly and appended to without touching what is there.

The names of other tools are read as they are: ``question``/``answer``, and the columns of RAGAS
(``user_input``, ``reference``, ``retrieved_contexts``, ``reference_tool_calls``…).
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NoReturn

import msgspec

from lockgate.errors import Conflict, InputError
from lockgate.evals.model import Case

ALIASES = {
    "question": "input",
    "user_input": "input",
    "answer": "expected_output",
    "reference": "expected_output",
    "ground_truth": "expected_output",
    "expected": "expected_output",
    "retrieved_contexts": "contexts",
    "reference_tool_calls": "expected_tools",
}
"""What other tools call our fields."""

RECORDED = (
    "response",
    "reference_topics",
    "rubrics",
    "persona_name",
    "query_style",
    "query_length",
    "synthesizer_name",
)
"""Columns of other tools that say nothing of what is expected: kept in ``metadata``."""

FEW = 40
"""Below this many cases a verdict rests on little: it is warned of."""

MANY = 200
"""Above this many cases a gate on every change gets slow and dear, and nobody knows them all any more."""

MAX_LINE = 4_000_000

FIELDS = tuple(field.name for field in msgspec.structs.fields(Case))


def read_cases(path: Path, *, shown_as: str | None = None) -> list[Case]:
    """The cases of a golden set, in the file's order.

    Raises :class:`InputError` naming file and line for the first thing wrong: nothing is skipped.
    """
    shown = shown_as or str(path)
    cases = [case for _, _, case in checked_lines(io.BytesIO(_bytes(path, shown)), shown)]
    if not cases:
        raise InputError("no cases in the golden set", path=shown, remedy='add lines such as {"id": …, "input": …}')
    return cases


def check_lines(path: Path, *, shown_as: str | None = None) -> tuple[list[tuple[int, Case]], list[InputError]]:
    """Every line that is a case, with its number, and an error for every one that is not."""
    shown = shown_as or str(path)
    found = list(_lines(_bytes(path, shown).split(b"\n"), shown))
    return (
        [(number, case) for number, _, case, _ in found if case is not None],
        [failure for _, _, _, failure in found if failure is not None],
    )


def checked_lines(lines: Iterable[bytes], shown: str) -> Iterator[tuple[int, int, Case]]:
    """Of each line that is not empty its number, the byte it begins at, and its case. Raises at the first that is
    wrong."""
    for number, start, case, failure in _lines(lines, shown):
        if failure is not None:
            raise failure
        assert case is not None, number
        yield number, start, case


def _lines(lines: Iterable[bytes], shown: str) -> Iterator[tuple[int, int, Case | None, InputError | None]]:
    first: dict[str, int] = {}
    after = 0
    for number, line in enumerate(lines, start=1):
        start, after = after, after + len(line)
        if number == 1:
            line = line.removeprefix(b"\xef\xbb\xbf")
        if not line.strip():
            continue
        try:
            case = parse_case(line, path=shown, line=number)
            if case.id in first:
                raise InputError(
                    f"the id {case.id!r} stands twice, first on line {first[case.id]}",
                    path=shown,
                    line=number,
                    remedy="give each case an id of its own (a case without one gets it from its input)",
                )
        except InputError as failure:
            yield number, start, None, failure
            continue
        first[case.id] = number
        yield number, start, case, None


def _bytes(path: Path, shown: str) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise InputError("no such golden set", path=shown, remedy="create it, or correct the path") from None
    except OSError as failure:
        raise InputError(f"cannot be read: {failure.strerror}", path=shown, remedy="give a readable file") from None


def parse_case(raw: bytes, *, path: str, line: int) -> Case:
    """One line of JSON as a case; ``path`` and ``line`` are for messages."""

    def wrong(message: str, remedy: str) -> NoReturn:
        raise InputError(message, path=path, line=line, remedy=remedy)

    if len(raw) > MAX_LINE:
        wrong(f"a line of {len(raw):,} bytes", f"keep a case below {MAX_LINE:,} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as failure:
        wrong(f"byte {raw[failure.start]:#04x} is not UTF-8", "save the file as UTF-8")
    try:
        data = _JSON.decode(text)
    except json.JSONDecodeError as failure:
        near = text[max(0, failure.pos - 10) : failure.pos + 20].strip()
        wrong(f"not valid JSON at column {failure.colno}, near {near!r}: {failure.msg}", "one JSON object a line")
    except _NotPortable as failure:
        wrong(str(failure), "correct the line")
    except RecursionError:
        wrong("nested too deep", "flatten the case")
    if not isinstance(data, dict):
        wrong(f"a {_kind(data)} instead of an object: {_short(data)}", 'write {"id": …, "input": …}')
    return _case(data, wrong)


def case_of(data: dict[str, Any], *, path: str, line: int | None = None) -> Case:
    """A case from the fields of one, by our names or the aliases; ``path`` and ``line`` are for messages."""

    def wrong(message: str, remedy: str) -> NoReturn:
        raise InputError(message, path=path, line=line, remedy=remedy)

    return _case(data, wrong)


def _case(data: dict[str, Any], wrong: Any) -> Case:
    fields: dict[str, Any] = {}
    recorded: dict[str, Any] = {}
    for key, value in data.items():
        name = ALIASES.get(key, key)
        if name in RECORDED:
            recorded[name] = value
        elif name not in FIELDS:
            close = get_close_matches(key, [*FIELDS, *ALIASES], n=1, cutoff=0.75)
            meant = f"did you mean {close[0]!r}? Else " if close else ""
            wrong(f"unknown key {key!r}", f"{meant}put it under `metadata`")
        elif name in fields:
            wrong(f"{key!r} means {name!r}, which is given too", "keep one of them")
        else:
            fields[name] = value
    return _build(fields, recorded, wrong)


def _build(fields: dict[str, Any], recorded: dict[str, Any], wrong: Any) -> Case:
    if "input" not in fields:
        wrong(f"no 'input' (there is {', '.join(map(repr, fields)) or 'nothing'})", "add `input` (or `question`)")
    given = fields["input"]
    if not (isinstance(given, str | dict | list) and given):
        wrong(f"'input' is {_short(given)}", 'give text, or {"messages": […]}')
    if isinstance(given, list):  # a conversation, as RAGAS and chat logs have it
        fields["input"] = {"messages": given}
    if "id" not in fields:
        encoded = msgspec.json.encode(fields["input"], order="sorted")
        fields["id"] = "case-" + hashlib.sha256(encoded).hexdigest()[:12]
    elif isinstance(fields["id"], int) and not isinstance(fields["id"], bool):
        fields["id"] = str(fields["id"])
    if isinstance(fields.get("tags"), str):
        fields["tags"] = [fields["tags"]]
    for name in [name for name, value in fields.items() if value is None]:
        del fields[name]  # a column left empty
    if recorded:
        fields["metadata"] = {**recorded, **fields.get("metadata", {})}
    try:
        case = msgspec.convert(fields, Case)
    except msgspec.ValidationError as failure:
        text = str(failure)
        place = text.partition(" - at `$.")[2].strip("`") or "the case"
        value = fields.get(place.split(".")[0].split("[")[0])
        wrong(f"{place} is {_short(value)}: {text.partition(' - at ')[0]}", "correct the value")
    if not case.id.strip():
        wrong(f"'id' is {case.id!r}", "give it a name")
    if not (math.isfinite(case.weight) and case.weight > 0):
        wrong(f"'weight' is {case.weight!r}", "give a positive number; 1 is usual")
    _check_run(case, wrong)
    for rule in case.must_not or []:
        if rule.startswith("re:"):
            try:
                re.compile(rule[3:])
            except re.error as failure:
                wrong(f"'must_not' has {_short(rule)}, which is no regular expression: {failure}", "correct it")
    for tool in case.expected_tools or []:
        if not (isinstance(tool, str) or (isinstance(tool, dict) and isinstance(tool.get("name"), str))):
            wrong(f"'expected_tools' has {_short(tool)}", 'give names, or {"name": …, "arguments": {…}}')
    return case


def _check_run(case: Case, wrong: Any) -> None:
    """What a case says of how it is run is read before the first one is paid for."""
    try:
        if "fixtures" in case.metadata:
            from lockgate.evals.fixtures import fixtures_of

            fixtures_of(case.metadata["fixtures"])
        if "simulation" in case.metadata:
            from lockgate.evals.simulation.model import simulation_of

            simulation_of(case)
    except InputError as failure:
        wrong(failure.message, failure.remedy)


def warnings(cases: Sequence[Case]) -> list[str]:
    """What falls short of good practice in a golden set that can be used."""
    found = []
    if len(cases) < FEW:
        found.append(f"the golden set has {len(cases)} cases; below {FEW} a verdict rests on little")
    if waiting := unreviewed(cases):
        found.append(f"{len(waiting)} cases were proposed by a model, and nobody has accepted them: {waiting[0]}…")
    return found


def unreviewed(cases: Iterable[Case]) -> list[str]:
    """The ids of candidates: cases that a model proposed (``lockgate golden draft``) and nobody has accepted."""
    return [case.id for case in cases if "drafted_from" in case.metadata and "accepted_by" not in case.metadata]


def dataset_digest(cases: Iterable[Case]) -> str:
    """``sha256:…`` of what the cases say, whatever their order and however their lines are written."""
    return digest_of_all([line_digest(case) for case in cases])


def line_digest(case: Case) -> bytes:
    """SHA-256 of what one case says."""
    return hashlib.sha256(msgspec.json.encode(msgspec.to_builtins(case), order="sorted")).digest()


def digest_of_all(lines: Iterable[bytes]) -> str:
    """``sha256:…`` of cases by their :func:`line_digest`, in whatever order."""
    return "sha256:" + hashlib.sha256(b"".join(sorted(lines))).hexdigest()


def append_case(path: Path, case: Case) -> None:
    """Add a case as the last line. What is there stays byte for byte, and a crash leaves the file as it was or done.

    Raises :class:`Conflict` when the id is there already, :class:`InputError` when the file cannot be read.
    """
    append_cases(path, [case])


def append_cases(path: Path, cases: Sequence[Case]) -> None:
    """Add cases as the last lines, all or none; see :func:`append_case`."""
    old = b""
    if path.exists() and path.stat().st_size:
        known = {case.id for case in read_cases(path)}
        for case in cases:
            if case.id in known:
                raise Conflict(f"{path} has a case {case.id!r} already", remedy="give the new case another id")
        old = path.read_bytes()
    lines = b"".join(msgspec.json.encode(case) + b"\n" for case in cases)
    _replace(path, old + (b"" if not old or old.endswith(b"\n") else b"\n") + lines)


def write_cases(path: Path, cases: Sequence[Case]) -> None:
    """The file anew, a case a line; a crash leaves the old file or the new one."""
    _replace(path, b"".join(msgspec.json.encode(case) + b"\n" for case in cases))


def _replace(path: Path, new: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with open(temporary, "wb") as file:
            file.write(new)
            file.flush()
            os.fsync(file.fileno())
        if path.exists():
            os.chmod(temporary, path.stat().st_mode & 0o777)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


class _NotPortable(ValueError):
    """JSON that readers disagree about."""


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, _ in pairs if sum(key == other for other, _ in pairs) > 1)
        raise _NotPortable(f"the key {twice!r} stands twice")
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise _NotPortable(f"{name} is not JSON")


_JSON = json.JSONDecoder(object_pairs_hook=_once, parse_constant=_refuse_constant)


def _kind(value: Any) -> str:
    return {list: "list", str: "text", bool: "true/false", type(None): "null"}.get(type(value), "number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "…"
