"""What a command hands over to the running control plane, and what it then does itself."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from sqlalchemy import select

from lockgate import handover
from lockgate.bootstrap import App
from lockgate.errors import LockgateError, Unavailable
from lockgate.handover import GREETING, hand_over
from lockgate.handover_server import HandoverServer
from lockgate.project.service import load_project
from lockgate.runs import command_socket
from lockgate.storage import schema

AGENT = """
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: gpt-4o-mini-2024-07-18}}
  system_prompt: prompts/{version}.md
"""


@pytest.fixture
def app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    for folder in ("agents", "prompts"):
        (tmp_path / folder).mkdir()
    (tmp_path / "lockgate.yaml").write_text("project: shop\n")
    for version in (1, 2):
        (tmp_path / f"agents/triage.v{version}.yaml").write_text(AGENT.format(version=version))
        (tmp_path / f"prompts/{version}.md").write_text(f"You sort mail, {version}.\n")
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    monkeypatch.delenv(handover.DATABASE, raising=False)
    monkeypatch.chdir(tmp_path)
    opened = App(load_project(tmp_path))
    opened.versions.lock()
    command_socket(opened.home).parent.mkdir(mode=0o700, exist_ok=True)
    yield opened
    opened.control.close()


@pytest.fixture
async def server(app: App) -> AsyncIterator[HandoverServer]:
    taking = HandoverServer(app)
    await taking.open()
    yield taking
    await taking.close(30)
    assert not command_socket(app.home).exists()


def deploy(version: int) -> dict[str, Any]:
    return {"ref": f"triage@{version}", "environment": "dev", "direct": True, "override": None, "by": "cli:eve"}


async def handed(verb: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    return await asyncio.to_thread(hand_over, verb, arguments)


async def command(root: Path, *arguments: str) -> tuple[int, str, str, set[str]]:
    """Run it as a process: (exit code, stdout, stderr, the modules it imported)."""
    started = [sys.executable, "-X", "importtime", "-m", "lockgate", *arguments]
    done = await asyncio.to_thread(
        subprocess.run, started, cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    lines = done.stderr.splitlines()
    imported = {line.rpartition("|")[2].strip() for line in lines if line.startswith("import time:")}
    said = "\n".join(line for line in lines if not line.startswith("import time:"))
    return done.returncode, done.stdout, said, imported


async def test_a_deploy_is_done_by_the_control_plane_and_the_command_imports_no_database(
    app: App, server: HandoverServer
) -> None:
    code, out, said, imported = await command(app.project.root, "deploy", "triage@1", "--env", "dev", "--json")
    assert (code, said) == (0, "")
    assert msgspec.json.decode(out)["outcome"] == "stable"
    assert "lockgate.handover" in imported
    heavy = {"sqlalchemy", "numpy", "ruamel.yaml", "aiohttp", "lockgate.bootstrap", "lockgate.versions.service"}
    assert not heavy & imported
    with app.control.read() as connection:
        (line,) = connection.execute(select(schema.audit).where(schema.audit.c.action == "deploy")).all()
    assert line.actor.startswith("cli")
    assert line.subject == "dev/triage"


async def test_a_refusal_is_told_with_its_remedy_and_its_exit_code(app: App, server: HandoverServer) -> None:
    code, _, said, _ = await command(app.project.root, "rollout", "undo", "triage", "--env", "dev", "--reason", "x")
    assert code == 2
    assert said == "error: 'triage' is not deployed in 'dev'\n  → lockgate deploy"


async def test_undo_takes_the_previous_version_back(app: App, server: HandoverServer) -> None:
    await handed("deploy", deploy(1))
    done = await handed("deploy", deploy(2))
    assert done is not None
    assert done["outcome"] == "stable"
    undone = await handed("undo", {"agent": "triage", "environment": "dev", "reason": "wrong", "by": "cli:eve"})
    assert undone is not None
    assert undone["stable"]["behaviour_digest"] == app.versions.find("triage@1")
    assert undone["updated_by"] == "cli:eve"


async def test_only_the_owner_of_the_state_can_hand_something_over(app: App, server: HandoverServer) -> None:
    assert stat.S_IMODE(command_socket(app.home).stat().st_mode) == 0o600


async def test_it_declines_what_the_command_would_do_by_another_configuration(
    app: App, server: HandoverServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setattr(handover, "__version__", "0.0.0")
        assert await handed("deploy", deploy(1)) is None
    with monkeypatch.context() as other:
        other.setattr(handover, "DATABASE", "ANOTHER_DATABASE")
        other.setenv("ANOTHER_DATABASE", "postgresql://elsewhere/control")
        assert await handed("deploy", deploy(1)) is None
    (app.project.root / "lockgate.yaml").write_text("project: [\n")
    assert await handed("deploy", deploy(1)) is None
    with app.control.read() as connection:
        assert connection.execute(select(schema.deployments)).first() is None


async def test_the_project_file_is_read_as_it_stands(app: App, server: HandoverServer) -> None:
    with pytest.raises(LockgateError, match="no environment 'qa'"):
        await handed("deploy", {**deploy(1), "environment": "qa"})
    (app.project.root / "lockgate.yaml").write_text("project: shop\nenvironments: {dev: {}, qa: {}}\n")
    done = await handed("deploy", {**deploy(1), "environment": "qa"})
    assert done is not None
    assert done["environment"] == "qa"


async def test_nonsense_does_not_stop_it(app: App, server: HandoverServer) -> None:
    for sent in (b"", b"GET / HTTP/1.1\r\n\r\n", b'{"verb": 7}\n', b"\xff" * 100):
        _, writer = await asyncio.open_unix_connection(str(command_socket(app.home)))
        writer.write(sent)
        await writer.drain()
        writer.close()
    assert await handed("deploy", deploy(1)) is not None


def test_without_a_control_plane_the_command_does_it_itself(app: App) -> None:
    assert hand_over("deploy", deploy(1)) is None


@contextmanager
def answering(path: Path, answer: Callable[[socket.socket], object]) -> Iterator[None]:
    """Something that listens where the control plane would, for one connection."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.fspath(path))
        listener.listen()
        listener.settimeout(30)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                answer(connection)

        serving = threading.Thread(target=serve)
        serving.start()
        yield
        serving.join(60)


def test_a_control_plane_that_hangs_is_not_waited_for(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "GREETING_SECONDS", 0.05)
    with answering(command_socket(app.home), lambda connection: connection.recv(1)):  # until the command has left
        assert hand_over("deploy", deploy(1)) is None


def test_an_order_that_was_sent_is_never_done_a_second_time(app: App) -> None:
    def dies(connection: socket.socket) -> None:
        connection.sendall(GREETING)
        connection.recv(1 << 16)

    with answering(command_socket(app.home), dies), pytest.raises(Unavailable, match="did not say what came of it"):
        hand_over("deploy", deploy(1))
