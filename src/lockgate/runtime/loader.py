"""Imports the code of one version from its folder, without two versions ever seeing each other's modules.

A tool is ``path/to/file.py:function``, a framework's entrypoint ``package.module:name``; both are below the folder.
Modules are registered as ``lockgate_code_<n>.package.module``. Inside them ``import package.other`` and
``from other import x`` (a file beside it) find the same version's files first.
"""

from __future__ import annotations

import builtins
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import itertools
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from lockgate.errors import RunFailed

_numbers = itertools.count(1)


class Code:
    """One version's code, materialised below ``folder``. Safe to use from several threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._package = f"lockgate_code_{next(_numbers)}"
        self._found: dict[str, Any] = {}
        self._lock = threading.RLock()
        root = ModuleType(self._package)
        root.__path__ = [str(folder)]
        sys.modules[self._package] = root
        self._finder = _Finder(self._package, folder)
        sys.meta_path.insert(0, self._finder)

    def tool(self, reference: str) -> Any:
        """The function that ``tools/orders.py:read_orders`` names. Raises :class:`RunFailed` (``code_error``)."""
        path, _, name = reference.partition(":")
        return self._attribute(path.removesuffix(".py").replace("/", "."), name, reference)

    def entrypoint(self, reference: str) -> Any:
        """What ``support.graph:app`` names. Raises :class:`RunFailed` (``code_error``)."""
        module, _, name = reference.partition(":")
        return self._attribute(module, name, reference)

    def missing_package(self, reference: str) -> str | None:
        """The package that what ``reference`` names imports, is not its own, and is not installed here."""
        try:
            self.tool(reference) if ".py:" in reference else self.entrypoint(reference)
        except RunFailed as failure:
            name = failure.__cause__.name if isinstance(failure.__cause__, ModuleNotFoundError) else None
            package = (name or self._package).partition(".")[0]
            own = (self.folder / package, self.folder / f"{package}.py")
            return None if package == self._package or any(path.exists() for path in own) else package
        return None

    def close(self) -> None:
        """Forget the modules."""
        sys.meta_path.remove(self._finder)
        for name in [name for name in sys.modules if name.split(".")[0] == self._package]:
            del sys.modules[name]

    def _attribute(self, module: str, name: str, reference: str) -> Any:
        found = self._found.get(reference)
        if found is not None:
            return found
        with self._lock:
            try:
                loaded = importlib.import_module(f"{self._package}.{module}")
            except Exception as problem:  # the agent's own code: anything may come out of it
                raise RunFailed(
                    "code_error", f"{reference!r} cannot be imported: {type(problem).__name__}: {problem}"
                ) from problem
            try:
                found = getattr(loaded, name)
            except AttributeError:
                raise RunFailed("code_error", f"{reference!r}: the module has no {name!r}") from None
            self._found[reference] = found
            return found


class _Finder(importlib.abc.MetaPathFinder):
    """Finds ``lockgate_code_<n>.a.b`` as ``a/b.py``, ``a/b/__init__.py`` or the folder ``a/b``."""

    def __init__(self, package: str, folder: Path) -> None:
        self.package = package
        self.folder = folder

    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        package, _, inside = fullname.partition(".")
        if package != self.package or not inside:
            return None
        place = self.folder.joinpath(*inside.split("."))
        for file, locations in ((place.with_name(place.name + ".py"), None), (place / "__init__.py", [str(place)])):
            if file.is_file():
                return importlib.util.spec_from_file_location(
                    fullname, file, loader=_Loader(fullname, str(file), self), submodule_search_locations=locations
                )
        if place.is_dir():
            folder = importlib.machinery.ModuleSpec(fullname, None, is_package=True)
            folder.submodule_search_locations = [str(place)]
            return folder
        return None

    def has(self, name: str, beside: str) -> str | None:
        """The private name of the version's module ``name``, seen from a module of the folder ``beside``."""
        top = name.partition(".")[0]
        for parent in dict.fromkeys(("", beside)):
            place = self.folder.joinpath(*parent.split("."), top) if parent else self.folder / top
            if place.with_name(place.name + ".py").is_file() or place.is_dir():
                return ".".join(part for part in (self.package, parent, name) if part)
        return None


class _Loader(importlib.machinery.SourceFileLoader):
    def __init__(self, fullname: str, path: str, finder: _Finder) -> None:
        super().__init__(fullname, path)
        self._finder = finder

    def exec_module(self, module: ModuleType) -> None:
        # Absolute imports of a module go through the __import__ of its own builtins, also later, inside functions.
        inside = module.__name__.partition(".")[2]
        beside = inside if module.__spec__ and module.__spec__.submodule_search_locations else inside.rpartition(".")[0]
        scope = dict(vars(builtins))
        scope["__import__"] = self._importer(beside)
        module.__dict__["__builtins__"] = scope
        super().exec_module(module)

    def _importer(self, beside: str) -> Any:
        finder = self._finder

        def import_(name: str, globals: Any = None, locals: Any = None, fromlist: Any = (), level: int = 0) -> Any:
            private = finder.has(name, beside) if level == 0 else None
            if private is None:
                return builtins.__import__(name, globals, locals, fromlist, level)
            module = importlib.import_module(private)
            if not fromlist:  # `import a.b` binds a
                depth = name.count(".")
                return sys.modules[private.rsplit(".", depth)[0]] if depth else module
            for item in fromlist:
                if not hasattr(module, item) and hasattr(module, "__path__"):
                    try:
                        importlib.import_module(f"{private}.{item}")
                    except ModuleNotFoundError as missing:
                        if missing.name != f"{private}.{item}":
                            raise
            return module

        return import_
