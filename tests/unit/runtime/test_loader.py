from __future__ import annotations

import sys
from pathlib import Path

import pytest

from lockgate.errors import RunFailed
from lockgate.runtime.loader import Code


def write(folder: Path, files: dict[str, str]) -> Code:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return Code(folder)


def test_a_file_finds_its_neighbours_however_it_imports_them(tmp_path: Path) -> None:
    code = write(
        tmp_path,
        {
            "tools/prices.py": "KETTLE = 40",
            "tools/orders.py": "import tools.prices, prices\nfrom prices import KETTLE\nfrom tools import prices as p\n"
            "def total(): return (tools.prices.KETTLE, prices.KETTLE, KETTLE, p.KETTLE)\n",
        },
    )
    assert code.tool("tools/orders.py:total")() == (40, 40, 40, 40)


def test_two_versions_in_one_process_keep_apart(tmp_path: Path) -> None:
    both = [
        write(
            tmp_path / name,
            {"tools/price.py": f"P = {number}", "tools/t.py": "from tools.price import P\ndef f(): return P"},
        )
        for name, number in (("a", 1), ("b", 2))
    ]
    assert [code.tool("tools/t.py:f")() for code in both] == [1, 2]


def test_an_import_inside_a_function_finds_its_own_version_too(tmp_path: Path) -> None:
    both = [
        write(tmp_path / name, {"late.py": f"P = {number}", "t.py": "def f():\n    import late\n    return late.P"})
        for name, number in (("a", 1), ("b", 2))
    ]
    assert [code.tool("t.py:f")() for code in both] == [1, 2]


def test_relative_imports_and_packages_work(tmp_path: Path) -> None:
    code = write(
        tmp_path,
        {
            "support/__init__.py": "from .graph import app",
            "support/graph.py": "from . import nodes\napp = nodes.first",
            "support/nodes.py": "first = 'node'",
        },
    )
    assert code.entrypoint("support.graph:app") == "node"
    assert code.entrypoint("support:app") == "node"


def test_the_standard_library_is_found_and_a_file_of_the_version_goes_before_it(tmp_path: Path) -> None:
    code = write(
        tmp_path,
        {
            "t.py": "import json, statistics\ndef f(): return json.loads('1'), statistics.OWN",
            "statistics.py": "OWN = 2",
        },
    )
    assert code.tool("t.py:f")() == (1, 2)
    assert not hasattr(sys.modules.get("statistics"), "OWN")


def test_dataclasses_and_models_with_postponed_annotations_work(tmp_path: Path) -> None:
    text = (
        "from __future__ import annotations\nimport dataclasses, pydantic\n"
        "@dataclasses.dataclass\nclass A:\n    x: int = 1\n"
        "class B(pydantic.BaseModel):\n    a: Other\n"
        "class Other(pydantic.BaseModel):\n    y: int\n"
        "def f(): return A().x + B(a={'y': 2}).a.y\n"
    )
    assert write(tmp_path, {"t.py": text}).tool("t.py:f")() == 3


@pytest.mark.parametrize(
    ("text", "reference", "said"),
    [
        ("def f(:", "t.py:f", "SyntaxError"),
        ("import no_such_module", "t.py:f", "no_such_module"),
        ("raise ValueError('at import')", "t.py:f", "at import"),
        ("x = 1", "t.py:f", "no 'f'"),
        ("", "other.py:f", "cannot be imported"),
    ],
)
def test_code_that_cannot_be_loaded_is_named(tmp_path: Path, text: str, reference: str, said: str) -> None:
    with pytest.raises(RunFailed, match=said) as failure:
        write(tmp_path, {"t.py": text}).tool(reference)
    assert failure.value.error_type == "code_error"


def test_closing_forgets_the_modules(tmp_path: Path) -> None:
    code = write(tmp_path, {"t.py": "def f(): return 1"})
    name = code.tool("t.py:f").__module__
    assert name in sys.modules
    code.close()
    assert name not in sys.modules


def test_a_package_that_is_not_installed_is_told_from_other_trouble(tmp_path: Path) -> None:
    code = write(
        tmp_path,
        {
            "app/graph.py": "import no_such_framework.graph\n",
            "app/typo.py": "import app.grahp\n",
            "app/broken.py": "1 / 0\n",
            "tools/t.py": "from json import loads as f\n",
        },
    )
    assert code.missing_package("app.graph:app") == "no_such_framework"
    for well in ("app.typo:app", "app.broken:app", "app.absent:app", "tools/t.py:f", "tools/t.py:g"):
        assert code.missing_package(well) is None
