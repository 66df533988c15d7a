"""Compiles what every model call passes through, by mypyc, into the wheel: docs/decisions/compiled-calls.md.

Off unless asked for (``make compiled``, or ``HATCH_BUILD_HOOKS_ENABLE=1``): else the wheel is pure Python. The modules
are listed in pyproject.toml. Nothing is written beside the sources.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Compiled(BuildHookInterface):  # type: ignore[type-arg]
    """The hook: adds the compiled modules beside their sources, which stay in the wheel for tracebacks and readers."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Raises RuntimeError with what the compiler said when it fails."""
        if version == "editable":
            return
        self._folder = TemporaryDirectory()
        sources, built = Path(self._folder.name, "src"), Path(self._folder.name, "built")
        shutil.copytree(Path(self.root, "src"), sources, ignore=shutil.ignore_patterns("__pycache__"))
        command = [sys.executable, str(Path(__file__).resolve()), str(built), *self.config["modules"]]
        done = subprocess.run(command, cwd=sources, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode:
            raise RuntimeError(f"mypyc could not compile the modules that pyproject.toml lists:\n{done.stdout}")
        for module in built.rglob("*.so"):
            build_data["force_include"][str(module)] = str(module.relative_to(built))
        build_data["infer_tag"] = True
        build_data["pure_python"] = False

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """The wheel is written."""
        if version != "editable":
            self._folder.cleanup()


def compile_modules(into: str, modules: list[str]) -> None:
    """Compile modules of the packages in the working directory."""
    from mypyc.build import mypycify
    from setuptools import setup

    extensions = mypycify(
        ["--config-file=", "--ignore-missing-imports", *modules], opt_level="2", debug_level="0", group_name="lockgate"
    )
    setup(name="lockgate", packages=[], ext_modules=extensions, script_args=["build_ext", "--build-lib", into])


if __name__ == "__main__":
    compile_modules(sys.argv[1], sys.argv[2:])
