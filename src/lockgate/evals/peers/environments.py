"""Where each peer is installed: its own environment, named by the project or the machine."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

from lockgate.errors import InputError

WORKERS = Path(__file__).parent / "workers"

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TZ", "SSL_CERT_FILE", "LD_LIBRARY_PATH")
"""What a worker sees of this process' environment. No keys: its model is the evaluation's judge."""

QUIET = {
    "RAGAS_DO_NOT_TRACK": "true",
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "DEEPEVAL_DISABLE_DOTENV": "1",
    "ERROR_REPORTING": "0",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "PROMPTFOO_DISABLE_REMOTE_GENERATION": "1",
    "PROMPTFOO_CACHE_ENABLED": "false",
    "ANONYMIZED_TELEMETRY": "False",
    "HF_HUB_OFFLINE": "1",
}
"""What keeps peers from calling home, caching repeats or reading other settings."""


class Command(NamedTuple):
    """How a worker is started, and the folder its peer was found in, for messages."""

    argv: tuple[str, ...]
    where: str


INSTALL = {
    "ragas": "python -m venv .venv-ragas && .venv-ragas/bin/pip install ragas 'langchain-community<0.4'",
    "deepeval": "python -m venv .venv-deepeval && .venv-deepeval/bin/pip install deepeval",
    "inspect": "python -m venv .venv-inspect && .venv-inspect/bin/pip install inspect-ai",
    "promptfoo": "npm install --prefix tools promptfoo",
}
MODULES = {"ragas": "ragas", "deepeval": "deepeval", "inspect": "inspect_ai"}
FOLDERS = {"promptfoo": "tools"}


def setting(peer: str) -> str:
    """The environment variable that names a peer's environment."""
    return f"LOCKGATE_PEER_{peer.upper()}"


def command(peer: str, root: Path, configured: Mapping[str, str], environ: Mapping[str, str] = os.environ) -> Command:
    """How to start the worker of a peer.

    Its environment is what the variable :func:`setting` names, else ``peers`` in ``lockgate.yaml``, else this very
    interpreter (promptfoo: the project's ``node_modules``). Raises :class:`InputError` that says what to install.
    """
    named = environ.get(setting(peer)) or configured.get(peer)
    if peer == "promptfoo":
        return _node(root, named)
    if named is None:
        if find_spec(MODULES[peer]) is None:
            raise absent(peer, f"{MODULES[peer]!r} is not installed beside Lockgate, and no environment of it is named")
        python = Path(sys.executable)
    else:
        python = _python(peer, root / named, named)
    argv = (str(python), "-I", "-X", "utf8", str(WORKERS / "main.py"), peer)
    return Command(argv, named or str(python))


def absent(peer: str, what: str) -> InputError:
    """A peer that is not there, with what installs it and how it is then found."""
    folder = FOLDERS.get(peer, f".venv-{peer}")
    return InputError(
        f"metrics of {peer}: {what}",
        remedy=f"{INSTALL[peer]}; then in lockgate.yaml: `peers: {{{peer}: {folder}}}` (or {setting(peer)}={folder})",
    )


def clean_environment(home: str) -> dict[str, str]:
    """A worker's environment variables. ``home`` is a folder of its own, for what peers write."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    own = {"HOME": home, "TMPDIR": home, "PROMPTFOO_CONFIG_DIR": home, "DEEPEVAL_RESULTS_FOLDER": home}
    return passed | QUIET | own


def own_folder() -> tempfile.TemporaryDirectory[str]:
    """Where one worker may write."""
    return tempfile.TemporaryDirectory(prefix="lockgate-peer-", ignore_cleanup_errors=True)


def _python(peer: str, place: Path, named: str) -> Path:
    for found in (place / "bin" / "python", place):
        if found.is_file() and os.access(found, os.X_OK):
            return found.absolute()  # not resolved: a venv's python is a link, and found by where the link stands
    raise absent(peer, f"{named!r} is neither a virtual environment nor a Python")


def _node(root: Path, named: str | None) -> Command:
    node = shutil.which("node")
    if node is None:
        raise InputError("metrics of promptfoo: there is no `node`", remedy="install Node.js 20 or newer")
    places = [root / named] if named else [root, root / FOLDERS["promptfoo"]]
    for place in places:
        if (place / "node_modules" / "promptfoo" / "package.json").is_file():
            argv = (node, "--no-warnings", str(WORKERS / "promptfoo_worker.mjs"), str(place.resolve()))
            return Command(argv, str(place))
    raise absent("promptfoo", f"there is no node_modules/promptfoo in {named or 'the project'}")
