"""What pyproject.toml lists to be compiled can be: see docs/decisions/compiled-calls.md."""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]
MODULES: list[str] = _HOOK["custom"]["modules"]


def tree_of(module: str) -> ast.Module:
    return ast.parse((ROOT / "src" / module).read_text())


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_holds_no_class_of_msgspec(module: str) -> None:
    classes = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.ClassDef)]
    assert [one.name for one in classes if any("Struct" in ast.unparse(base) for base in one.bases)] == []


@pytest.mark.parametrize("module", MODULES)
def test_a_compiled_module_holds_no_generator_that_waits(module: str) -> None:
    waits = [node for node in ast.walk(tree_of(module)) if isinstance(node, ast.AsyncFunctionDef)]
    yielding = [one.name for one in waits if any(isinstance(node, ast.Yield) for node in ast.walk(one))]
    assert yielding == []


def test_what_subclasses_a_compiled_class_is_compiled() -> None:
    compiled = {
        node.name
        for module in MODULES
        for node in ast.walk(tree_of(module))
        if isinstance(node, ast.ClassDef) and not any(base.id == "Exception" for base in _names(node))
    }
    for path in sorted((ROOT / "src").rglob("*.py")):
        if (module := str(path.relative_to(ROOT / "src"))) in MODULES:
            continue
        nodes = list(ast.walk(tree_of(module)))
        imported = {
            alias.name
            for node in nodes
            if isinstance(node, ast.ImportFrom) and f"{(node.module or '').replace('.', '/')}.py" in MODULES
            for alias in node.names
        }
        bases = {base.id for node in nodes if isinstance(node, ast.ClassDef) for base in _names(node)}
        assert bases & imported & compiled == set(), module


def _names(node: ast.ClassDef) -> list[ast.Name]:
    return [base for base in node.bases if isinstance(base, ast.Name)]
