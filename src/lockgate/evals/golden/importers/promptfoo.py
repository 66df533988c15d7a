"""promptfoo: the tests and assertions of a ``promptfooconfig.yaml``, and its CSV of tests.

Every assertion is kept under ``metadata.assert``; those with a counterpart here become what a case expects: ``equals``
the expected output, ``not-contains`` and ``not-regex`` what must not be said, tool calls the expected tools.
"""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lockgate.errors import InputError
from lockgate.evals.golden.importers.rows import Row, csv_rows, json_rows, jsonl_rows, read_text

_MESSAGE_VARS = ("input", "question", "query", "message", "user_input", "prompt", "text")
_TEMPLATE = re.compile(r"\{\{-?\s*([A-Za-z_][\w.]*)\s*-?\}\}")


def read(path: Path, *, input_var: str | None = None) -> Iterator[Row]:
    """The tests of a configuration, each combination of listed variables one case.

    ``input_var`` names the variable that is the user's message; else the only one, a well-known name, or the only
    prompt filled in.
    """
    from lockgate.project.yamlfile import read_yaml

    if path.suffix == ".csv":
        yield from _cases(path, {}, [(row.line, _from_csv(row.data)) for row in csv_rows(read_text(path))], input_var)
        return
    document = read_yaml(path)
    config = document.data
    if isinstance(config, list):
        config = {"tests": config}
    if not isinstance(config, dict):
        raise InputError("not a promptfoo configuration", path=path, remedy="give the file with `tests:`")
    tests: list[tuple[int, dict[str, Any]]] = []
    given = config.get("tests") or []
    for number, test in enumerate(given if isinstance(given, list) else [given]):
        line = document.line(("tests", number)) if isinstance(given, list) and "tests" in config else 1
        tests += _loaded(path, test, line)
    for number, scenario in enumerate(config.get("scenarios") or ()):
        line = document.line(("scenarios", number))
        for variant, test in itertools.product(scenario.get("config") or [{}], scenario.get("tests") or [{}]):
            tests.append((line, {**test, "vars": {**(variant.get("vars") or {}), **(test.get("vars") or {})}}))
    if not tests:
        raise InputError("no tests in it", path=path, remedy="give the file with `tests:` or `scenarios:`")
    yield from _cases(path, config, tests, input_var)


def _loaded(path: Path, test: Any, line: int) -> list[tuple[int, dict[str, Any]]]:
    """A test, or those of the file it names."""
    if isinstance(test, dict):
        return [(line, test)]
    if not isinstance(test, str):
        raise InputError(f"a test is {test!r:.60}", path=path, line=line, remedy="give objects, or a file of tests")
    name = test.removeprefix("file://")
    found: list[tuple[int, dict[str, Any]]] = []
    files = sorted(path.parent.glob(name)) if any(sign in name for sign in "*?[") else [path.parent / name]
    for file in files:
        if file.suffix == ".csv":
            found += [(row.line, _from_csv(row.data)) for row in csv_rows(read_text(file))]
        elif file.suffix == ".jsonl":
            found += [(row.line, row.data) for row in jsonl_rows(read_text(file))]
        elif file.suffix == ".json":
            found += [(row.line, row.data) for row in json_rows(read_text(file), inside=("tests",))]
        elif file.suffix in (".yaml", ".yml"):
            from lockgate.project.yamlfile import read_yaml

            data = read_yaml(file).data
            found += [(1, one) for one in (data if isinstance(data, list) else [data])]
        else:
            raise InputError(
                f"tests from {test!r} cannot be read here", path=path, line=line, remedy="give CSV, JSON or YAML"
            )
    return found


def _from_csv(row: Mapping[str, Any]) -> dict[str, Any]:
    test: dict[str, Any] = {"vars": {}, "assert": []}
    for name, value in row.items():
        if re.fullmatch(r"__expected\d*", name):
            test["assert"].append(_shorthand(value))
        elif name == "__description":
            test["description"] = value
        elif name.startswith("__metadata:"):
            test.setdefault("metadata", {})[name.partition(":")[2].removesuffix("[]")] = value
        elif not name.startswith("__"):
            test["vars"][name] = value
    return test


def _shorthand(text: str) -> dict[str, Any]:
    """``contains: x``, ``similar(0.8): x``, ``grade: x``; a bare text is what the answer equals."""
    match = re.match(r"^(not-)?([a-z][a-z-]*)(?:\((\d*\.?\d+)\))?:\s*(.*)$", text, re.DOTALL)
    if match is None:
        return {"type": "equals", "value": text}
    kind = {"grade": "llm-rubric", "fn": "javascript", "eval": "javascript"}.get(match[2], match[2])
    found: dict[str, Any] = {"type": f"{match[1] or ''}{kind}", "value": match[4]}
    return found | ({"threshold": float(match[3])} if match[3] else {})


def _cases(
    path: Path, config: Mapping[str, Any], tests: list[tuple[int, dict[str, Any]]], input_var: str | None
) -> Iterator[Row]:
    default = config.get("defaultTest") if isinstance(config.get("defaultTest"), dict) else {}
    default = default or {}
    templates = config.get("assertionTemplates") or {}
    times: Counter[str] = Counter()
    for line, test in tests:
        wanted = [*(default.get("assert") or ()), *(test.get("assert") or ())]
        listed = {**(default.get("vars") or {}), **(test.get("vars") or {})}
        many = {name: value for name, value in listed.items() if isinstance(value, list)}
        for combination in itertools.product(*many.values()):
            values = {**listed, **dict(zip(many, combination, strict=True))}
            values = {name: _file_value(path, value) for name, value in values.items()}
            checks = [_check(path, line, one, templates, values) for one in wanted]
            metadata = {**(default.get("metadata") or {}), **(test.get("metadata") or {})}
            found: dict[str, Any] = {"input": _input(path, line, config, values, input_var), **_expected(checks)}
            if test.get("description"):  # not unique there
                name = str(test["description"])
                times[name] += 1
                found["id"] = name if times[name] == 1 and not many else f"{name} #{times[name]}"
            if values:
                metadata["vars"] = values
            if checks:
                metadata["assert"] = checks
            threshold = test.get("threshold", default.get("threshold"))
            if threshold is not None:
                metadata["assert_threshold"] = threshold
            yield Row(line, found | {"metadata": metadata})


def _check(path: Path, line: int, check: Any, templates: Mapping[str, Any], values: Mapping[str, Any]) -> Any:
    if isinstance(check, dict) and "$ref" in check:
        name = str(check["$ref"]).rpartition("/")[2]
        if name not in templates:
            raise InputError(
                f"no assertion template {name!r}", path=path, line=line, remedy="add it to assertionTemplates"
            )
        check = {**templates[name], **{key: value for key, value in check.items() if key != "$ref"}}
    if not isinstance(check, dict) or not isinstance(check.get("type"), str):
        raise InputError(f"an assertion is {check!r:.60}", path=path, line=line, remedy="give `type` and `value`")
    if isinstance(check.get("value"), str):
        check = {**check, "value": _filled(check["value"], values)}
    if check["type"] == "assert-set":
        check = {**check, "assert": [_check(path, line, one, templates, values) for one in check.get("assert") or ()]}
    return check


def _expected(checks: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    forbidden: list[str] = []
    for check in checks:
        kind, value = check["type"], check.get("value")
        if kind in ("equals", "similar", "factuality") and "expected_output" not in found:
            found["expected_output"] = value
        elif kind in ("not-contains", "not-icontains"):
            forbidden.append(str(value))
        elif kind in ("not-contains-any", "not-icontains-any") and isinstance(value, list):
            forbidden += [str(one) for one in value]
        elif kind == "not-regex":
            forbidden.append(f"re:{value}")
        elif kind == "tool-call-f1" and value:
            names = value if isinstance(value, list) else str(value).split(",")
            found["expected_tools"] = [str(name).strip() for name in names]
    return found | ({"must_not": forbidden} if forbidden else {})


def _input(path: Path, line: int, config: Mapping[str, Any], values: Mapping[str, Any], input_var: str | None) -> Any:
    if input_var is not None:
        if input_var not in values:
            raise InputError(
                f"no variable {input_var!r} among {', '.join(map(repr, values)) or 'none'}",
                path=path,
                line=line,
                remedy="name one of them with --input-var",
            )
        return _text(values[input_var])
    if len(values) == 1:
        return _text(next(iter(values.values())))
    known = next((name for name in _MESSAGE_VARS if name in values), None)
    if known is not None:
        return _text(values[known])
    prompts = config.get("prompts") or ()
    prompts = [prompts] if isinstance(prompts, str) else list(prompts)
    if len(prompts) == 1 and isinstance(prompts[0], str) and not prompts[0].startswith("file://"):
        return _filled(prompts[0], values)
    raise InputError(
        f"which variable is the user's message? There are {', '.join(map(repr, values)) or 'none'}",
        path=path,
        line=line,
        remedy="name it with --input-var",
    )


def _file_value(path: Path, value: Any) -> Any:
    if not isinstance(value, str) or not value.startswith("file://"):
        return value
    file = path.parent / value.removeprefix("file://")
    text = read_text(file).text
    return json.loads(text) if file.suffix == ".json" else text


def _filled(template: str, values: Mapping[str, Any]) -> str:
    def one(match: re.Match[str]) -> str:
        return _text(values[match[1]]) if match[1] in values else match[0]

    return _TEMPLATE.sub(one, template)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
