"""Reads what an agent file names: tool contracts, prompts, schemas, policies, rubrics. Errors say file and line."""

from __future__ import annotations

import ast
import os
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lockgate.errors import InputError
from lockgate.project.yamlfile import Document, read_json, read_text, read_yaml, validate
from lockgate.versions.digest import nfc
from lockgate.versions.model import ToolContract
from lockgate.versions.spec import PromptSpec, RubricFile, RubricSpec, ToolFile

MAX_CODE_BYTES = 4_000_000
_SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages", "venv"})
_ASYNC_OR_NOT = (ast.FunctionDef, ast.AsyncFunctionDef)


def inside(root: Path, name: str) -> Path:
    """The path of a file named in a project file. Raises :class:`InputError` when it leads out of the project."""
    if os.path.isabs(name) or "\\" in name or ".." in name.split("/"):
        raise InputError(
            f"{name!r} is not a path inside the project", remedy="write it from the project's root, with / between"
        )
    path = root / name
    if not path.exists():  # a disk may keep names in another Unicode form
        path = next(
            (root / form for form in (nfc(name), unicodedata.normalize("NFD", name)) if (root / form).exists()), path
        )
    if not path.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{name!r} is a link out of the project", remedy="put the file itself into the project")
    return path


def read_prompt(root: Path, name: str) -> tuple[str, PromptSpec | None]:
    """A prompt's text; with what its file says of it, when it is a prompt YAML."""
    path = inside(root, name)
    if path.suffix not in (".yaml", ".yml"):
        return read_text(path, shown_as=name), None
    prompt = validate(read_yaml(path, shown_as=name), PromptSpec)
    return prompt.template, prompt


_PLACE = re.compile(r"\{\{\s*([A-Za-z_][A-Za-z0-9_]*)\s*\}\}")


def fill(template: str, declared: Mapping[str, str | None], values: Mapping[str, str]) -> str:
    """The template with ``{{name}}`` replaced. Without declared variables it is plain text, braces and all.

    Raises :class:`InputError` for a name that is used, given or needed without the other.
    """
    unknown = sorted(set(values) - set(declared))
    if unknown:
        raise InputError(
            f"the prompt declares no variable {unknown[0]!r}", remedy="declare it under `variables:` of the prompt file"
        )
    if not declared:
        return template
    known = {name: values.get(name, default) for name, default in declared.items()}
    for name in dict.fromkeys(_PLACE.findall(template)):
        if name not in known:
            raise InputError(
                f"the template uses {{{{{name}}}}}, which is not declared",
                remedy=f"declare `{name}` under `variables:`, or correct the name",
            )
    missing = next((name for name, value in known.items() if value is None), None)
    if missing is not None:
        raise InputError(
            f"the prompt's variable {missing!r} has no value", remedy=f"give it under `variables: {{{missing}: …}}`"
        )
    return _PLACE.sub(lambda place: str(known[place[1]]), template)


def read_rubric(root: Path, name: str) -> RubricSpec:
    """A rubric file, with or without a ``rubric:`` key around it all."""
    document = read_yaml(inside(root, name), shown_as=name)
    if isinstance(document.data, dict) and set(document.data) == {"rubric"}:
        return validate(document, RubricFile).rubric
    return validate(document, RubricSpec)


def read_schema(root: Path, name: str) -> dict[str, Any]:
    """A JSON Schema (JSON or YAML), its keys in the file's order."""
    path = inside(root, name)
    document: Document | None = None
    if path.suffix in (".yaml", ".yml"):
        document = read_yaml(path, shown_as=name)
        schema = document.data
    else:
        schema = read_json(path, shown_as=name)
    if not isinstance(schema, dict):
        raise InputError(f"{schema!r} is not a JSON Schema", path=name, line=1, remedy="give an object")
    problem = schema_problem(schema)
    if problem is not None:
        where, message = problem
        raise InputError(
            f"not a JSON Schema at {'/'.join(map(str, where)) or 'its root'}: {message}",
            path=name,
            line=document.line(where) if document else None,
            remedy="correct the schema",
        )
    return schema


def schema_problem(schema: dict[str, Any]) -> tuple[tuple[str | int, ...], str] | None:
    """Where and how this is not a self-contained JSON Schema, or None."""
    import jsonschema_rs

    try:
        jsonschema_rs.meta.validate(schema)
        reference = _outside_reference(schema, ())
        if reference is not None:
            return reference
        jsonschema_rs.validator_for(schema)
    except jsonschema_rs.ValidationError as wrong:
        return tuple(wrong.instance_path), wrong.message
    except (jsonschema_rs.ReferencingError, ValueError) as wrong:
        return (), str(wrong)
    return None


def _outside_reference(value: Any, place: tuple[str | int, ...]) -> tuple[tuple[str | int, ...], str] | None:
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            return (*place, "$ref"), f"$ref {reference!r} leads out of the file: put it under $defs"
        items: list[tuple[str | int, Any]] = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return None
    found = (_outside_reference(item, (*place, key)) for key, item in items)
    return next((one for one in found if one is not None), None)


def read_policy(root: Path, name: str) -> str:
    """Cedar text that parses."""
    import cedarpy

    text = read_text(inside(root, name), shown_as=name)
    try:
        cedarpy.PolicySet.from_str(text)
    except ValueError as wrong:
        raise InputError(f"not a Cedar policy: {wrong}", path=name, remedy="correct the policy") from None
    return text


def contract_path(root: Path, tool: str) -> Path | None:
    """``tools/<name>.yaml`` (or ``.yml``), when there is one."""
    paths = (root / "tools" / f"{tool}{suffix}" for suffix in (".yaml", ".yml"))
    return next((path for path in paths if path.is_file()), None)


def contract_names(root: Path) -> list[str]:
    """The tools that have a contract."""
    return sorted(path.stem for suffix in ("*.yaml", "*.yml") for path in (root / "tools").glob(suffix))


def read_contract(root: Path, path: Path, *, approval: str | None) -> ToolContract:
    """A tool's contract, checked against the Python function it names. ``approval``: what the agent file asks."""
    shown = path.relative_to(root).as_posix()
    document = read_yaml(path, shown_as=shown)
    spec = validate(document, ToolFile).tool
    if spec.name != path.stem:
        raise document.error(
            ("tool", "name"),
            f"the tool is called {spec.name!r}, its file {path.name!r}",
            remedy=f"call the file {spec.name}{path.suffix}",
        )
    for key, schema in (("input", spec.input), ("output", spec.output)):
        problem = None if schema is None else schema_problem(schema)
        if problem is None and key == "input" and spec.input.get("type", "object") != "object":
            problem = ("type",), f"arguments are an object, not {spec.input['type']!r}"
        if problem is not None:
            where, message = problem
            raise document.error(
                ("tool", key, *where), f"tool.{key} is not a JSON Schema: {message}", remedy="correct the schema"
            )
    if spec.python is not None:
        try:
            check_function(root, spec.python)
        except InputError as wrong:
            if wrong.path is not None:
                raise
            raise document.error(("tool", "python"), wrong.message, remedy=wrong.remedy) from None
    return ToolContract(
        name=spec.name,
        description=spec.description,
        effect=spec.effect,
        python=None if spec.python is None else nfc(spec.python),
        input=spec.input,
        output=spec.output,
        scopes=tuple(spec.scopes),
        approval=(approval or spec.approval) == "required",
        timeout=spec.timeout,
    )


def check_function(root: Path, reference: str) -> None:
    """``path/to/file.py:function`` exists. The file is parsed, never run."""
    name, _, function = reference.rpartition(":")
    path = inside(root, name)
    if not path.is_file():
        raise InputError(f"no file {name!r} (from {reference!r})", remedy="create it, or correct the path")
    tree = parse_python(read_text(path, shown_as=name), name)
    defined = [node.name for node in tree.body if isinstance(node, _ASYNC_OR_NOT)]
    if function not in defined:
        raise InputError(
            f"{name!r} defines no function {function!r}",
            remedy=f"it has {', '.join(defined)}" if defined else f"define `def {function}(…)` in it",
        )


def parse_python(text: str, shown: str) -> ast.Module:
    """The syntax tree; raises :class:`InputError` with the line of a syntax error."""
    try:
        return ast.parse(text)
    except (SyntaxError, ValueError) as wrong:
        line = wrong.lineno if isinstance(wrong, SyntaxError) else None
        written = (wrong.text or "").strip() if isinstance(wrong, SyntaxError) else ""
        raise InputError(f"not valid Python: {wrong}, in {written!r}", path=shown, line=line) from None


def collect_code(root: Path, folder: Path) -> dict[str, bytes]:
    """Every ``.py`` file below ``folder``, by POSIX path from the root, with LF line ends.

    The project's root itself is not searched below, so that environments and tests stay out.
    """
    found: dict[str, bytes] = {}
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name
            for name in folders
            if folder != root and name not in _SKIPPED and not name.startswith(".") and not _is_environment(place, name)
        )
        for name in folders:
            _no_linked_code(root, Path(place, name))
        for name in sorted(files):
            if name.endswith(".py") and not name.startswith("."):
                path = Path(place, name)
                shown = path.relative_to(root).as_posix()
                inside(root, shown)
                if nfc(shown) in found:
                    raise InputError(f"two files are called {nfc(shown)!r}", remedy="rename one of them")
                found[nfc(shown)] = read_text(path, shown_as=shown, limit=MAX_CODE_BYTES).encode()
    return found


def _no_linked_code(root: Path, folder: Path) -> None:
    """What is imported through a link to a folder would run here, and be missing from the bundle."""
    if folder.is_symlink() and folder.is_dir() and any(name.endswith(".py") for name in os.listdir(folder)):
        raise InputError(
            f"{folder.relative_to(root).as_posix()!r} is a link to a folder with code",
            remedy="put the files themselves into the project",
        )


def _is_environment(place: str, name: str) -> bool:
    return os.path.exists(os.path.join(place, name, "pyvenv.cfg"))


def entrypoint_code(root: Path, entrypoint: str) -> dict[str, bytes]:
    """The code of ``package.module:object``: the whole top package, or the one module."""
    module, _, _ = entrypoint.partition(":")
    steps = module.split(".")
    candidates = [root.joinpath(*steps).with_suffix(".py"), root.joinpath(*steps, "__init__.py")]
    path = next((path for path in candidates if path.is_file()), None)
    if path is None:
        tried = " or ".join(repr(path.relative_to(root).as_posix()) for path in candidates)
        raise InputError(f"{entrypoint!r} names a module that is not here", remedy=f"create {tried}")
    if path.parent == root:
        return {nfc(path.name): read_text(path, shown_as=path.name, limit=MAX_CODE_BYTES).encode()}
    return collect_code(root, root / steps[0])
