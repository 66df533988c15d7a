"""What the demo stands on: a copy of the example project, running processes, and the installed command."""

from __future__ import annotations

import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import msgspec

from lockgate.demo.screen import Screen
from lockgate.errors import Conflict, InputError, Unavailable

AGENT = "refund-triage"
START_SECONDS = 120.0
LATER = ("v2", "v3", "v4")
"""Agent files that join the project when their chapter comes."""


class Stage:
    """One demo's project folder, with what runs for it. Use as a context manager: leaving stops the processes."""

    def __init__(self, folder: Path, screen: Screen, port: int) -> None:
        self.folder = folder
        self.screen = screen
        self.url = f"http://127.0.0.1:{port or _free_port()}"
        self._up: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    # --- the project ------------------------------------------------------------------------------------------

    def make_project(self, model: str | None) -> None:
        """Copy the example, with its first version only. ``model``: ``provider:name`` or a GGUF file, else as it is."""
        if self.folder.exists():
            raise Conflict(
                f"{str(self.folder)!r} is there already", remedy=f"rm -r {self.folder}, or name another: --folder NAME"
            )
        shutil.copytree(
            example(), self.folder, ignore=shutil.ignore_patterns(".lockgate", "__pycache__", "refunds.jsonl")
        )
        if model is not None:
            self._use_model(model)
        for version in LATER:
            self._agent_file(version).rename(self._later(version))
        (self.folder / ".gitignore").write_text(".lockgate/\n*.later\n/data/refunds.jsonl\n")
        if shutil.which("git"):
            self._git("init", "--quiet")
            self.commit("refund-triage, version 1")

    def bring(self, version: str) -> Path:
        """Put the agent file of a later version into the project."""
        path = self._agent_file(version)
        self._later(version).rename(path)
        return path.relative_to(self.folder)

    def commit(self, message: str) -> bool:
        """Commit the project as it stands, the lock file too; False where there is no git."""
        if not (self.folder / ".git").exists():
            return False
        self._git("add", "--all")
        self._git("commit", "--quiet", "--message", message)
        return True

    def _git(self, *arguments: str) -> None:
        author = ("-c", "user.name=demo", "-c", "user.email=demo@localhost", "-c", "commit.gpgsign=false")
        done = subprocess.run(
            ["git", *author, *arguments], cwd=self.folder, stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode != 0:
            raise Unavailable(f"git {arguments[0]} failed: {done.stderr.decode(errors='replace').strip()}")

    def set_daily_budget(self, version: str, usd: float) -> None:
        """Edit one line of the agent file."""
        path = self._agent_file(version)
        text, changed = re.subn(r"daily_usd: *[0-9.]+", f"daily_usd: {usd:.6f}", path.read_text())
        if changed != 1:
            raise InputError("daily_usd must stand once in the agent file", path=path)
        path.write_text(text)

    def _use_model(self, model: str) -> None:
        config = self.folder / "lockgate.yaml"
        if model.endswith(".gguf"):
            file = Path(model).expanduser().resolve()
            config.write_text(re.sub(r"weights: *\S+?(?=[,}\s])", f"weights: {file}", config.read_text(), count=1))
            return
        provider, _, name = model.partition(":")
        if not provider or not name:
            raise InputError(
                f"--model is {model!r}", remedy="write provider:name, such as ollama:llama3.1:8b, or a .gguf file"
            )
        for path in (self.folder / "agents").glob("*.yaml"):
            text = re.sub(r"provider: *local\b", f"provider: {provider}", path.read_text())
            path.write_text(re.sub(r"(?<=[{ ,])name: *qwen[\w.-]+", f'name: "{name}"', text))
        prices = self.folder / "prices.yaml"
        prices.write_text(
            re.sub(r"^local:", f"{provider}:", prices.read_text(), flags=re.M).replace(_LOCAL_MODEL, f'"{name}"')
        )

    def _agent_file(self, version: str) -> Path:
        return self.folder / "agents" / f"{AGENT}.{version}.yaml"

    def _later(self, version: str) -> Path:
        return self.folder / "agents" / f"{AGENT}.{version}.yaml.later"

    # --- processes --------------------------------------------------------------------------------------------

    def up(self) -> None:
        """Start gateway, control plane, hosts and model, as ``lockgate up`` does, and wait until they answer."""
        home = self.folder / ".lockgate"
        home.mkdir(exist_ok=True)
        port = self.url.rsplit(":", 1)[1]
        self.screen.command(f"lockgate up --port {port}", note="in the background; its output: .lockgate/up.log")
        with (home / "up.log").open("wb") as log:
            self._up = subprocess.Popen(
                [sys.executable, "-m", "lockgate", "up", "--port", port, "--workers", "1"],
                cwd=self.folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
        deadline = time.monotonic() + START_SECONDS
        while not (self._ready() and self._model_ready()):
            if self._up.poll() is not None or time.monotonic() > deadline:
                said = (home / "up.log").read_text(errors="replace")[-800:]
                raise Unavailable(f"lockgate up did not start:\n{said}", remedy=f"see {home / 'up.log'}")
            time.sleep(0.1)

    def stop(self) -> None:
        """End what :meth:`up` started."""
        if self._up is not None and self._up.poll() is None:
            self._up.send_signal(signal.SIGTERM)
            try:
                self._up.wait(30)
            except subprocess.TimeoutExpired:
                self._up.kill()
        self._up = None

    def leave_running(self) -> None:
        """Do not end it when the demo does."""
        self._up = None

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/ready", timeout=2) as answer:  # noqa: S310
                return bool(answer.status == 200)
        except (urllib.error.URLError, OSError):
            return False

    def _model_ready(self) -> bool:
        from lockgate.gateway.local_model import running
        from lockgate.project.service import load_project, resolve_provider

        project = load_project(self.folder)
        wanted = (resolve_provider(project, name, "prod", AGENT) for name in project.config.providers)
        return all(running(project.home, provider) for provider in wanted if provider.kind == "local")

    # --- commands ---------------------------------------------------------------------------------------------

    def run(self, *arguments: str, expect: tuple[int, ...] = (0,)) -> int:
        """Run ``lockgate …`` for the reader to see, output and all; the exit code, if it is one of ``expect``."""
        self.screen.command(_spoken(arguments))
        with self.screen.paused():
            done = subprocess.run(self._command(arguments), cwd=self.folder, stdin=subprocess.DEVNULL, check=False)
        if done.returncode not in expect:
            raise Unavailable(f"lockgate {arguments[0]} ended with exit code {done.returncode}", remedy="see above")
        return done.returncode

    def ask(self, *arguments: str) -> Any:
        """Run ``lockgate … --json`` quietly and return what it says."""
        done = subprocess.run(
            self._command((*arguments, "--json")),
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
        )
        if done.returncode != 0:
            raise Unavailable(f"lockgate {' '.join(arguments)}: {done.stderr.decode().strip()}")
        return msgspec.json.decode(done.stdout)

    def _command(self, arguments: tuple[str, ...]) -> list[str]:
        return [sys.executable, "-m", "lockgate", *arguments]


_LOCAL_MODEL = "qwen2.5-coder-0.5b-instruct"


def example() -> Path:
    """The example project: shipped beside this module, or in the source tree."""
    here = Path(__file__).parent
    for place in (here / "example", here.parents[2] / "examples" / AGENT):
        if (place / "lockgate.yaml").is_file():
            return place
    raise Unavailable(
        "the example project is not installed", remedy="reinstall lockgate, or run from a source checkout"
    )


def _spoken(arguments: tuple[str, ...]) -> str:
    words = [f"'{word}'" if re.search(r"[\s{}\"]", word) else word for word in arguments]
    return " ".join(("lockgate", *words))


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
