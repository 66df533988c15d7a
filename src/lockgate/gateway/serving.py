"""What ``lockgate up`` and ``lockgate gateway`` start: the listening socket, and the processes that ought to run."""

from __future__ import annotations

import errno
import fcntl
import logging
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from sqlalchemy.exc import SQLAlchemyError

from lockgate.console import console
from lockgate.errors import Conflict, InputError, LockgateError
from lockgate.gateway import local_model, store
from lockgate.gateway.notices import alert_key
from lockgate.gateway.serve import listen, stopped_mark
from lockgate.gateway.siblings import left_open
from lockgate.gateway.supervisor import STOP_SECONDS, WORKERS_VARIABLE, Spec, Supervisor, python
from lockgate.project import lastgood
from lockgate.project.service import resolve_provider
from lockgate.telemetry import logs

if TYPE_CHECKING:
    from lockgate.bootstrap import App
    from lockgate.project.model import ResolvedProvider

log = logging.getLogger(__name__)

GATEWAY_URL = "LOCKGATE_GATEWAY_URL"
"""Where children find the gateway."""
HOST_LINGER = 60.0
"""Seconds a host stays after its version lost its route, so that runs under way end and a retry finds it warm."""


def start(app: App, host: str, port: int, *, workers: int, drain: float, everything: bool) -> None:
    """Run until SIGTERM or Ctrl-C. ``everything``: the control plane, hosts and local models too."""
    app.home.mkdir(parents=True, exist_ok=True)
    logs.configure("lockgate", levels=False)
    app.prices.read()  # a mistake there is told here, not to those who call
    with _only_one(app.home), _listening(host, port) as listener:
        url = _url(listener)
        _prepare(app)
        place = app.home / "run" / "gateway.json"
        place.write_bytes(msgspec.json.encode({"url": url, "pid": os.getpid()}))
        wanted = _wanted(app, listener.fileno(), url, workers=workers, drain=drain, everything=everything)
        supervisor = Supervisor(
            wanted,
            cwd=app.project.root,
            # The children start there: a relative LOCKGATE_HOME would be another place.
            environment={"LOCKGATE_HOME": str(app.home), lastgood.ENVIRONMENT: "1"},
            changed=store.watch(app.control) if everything else lambda: False,
            stop_seconds=max(STOP_SECONDS, drain + 10.0),
            told=lambda: _refuse(listener, take_none, drain),
        )

        def take_none() -> bool:
            alive = supervisor.pids()
            names = [(f"gateway-{index}", stopped_mark(app.home, index)) for index in range(workers)]
            return all(name not in alive or mark.exists() for name, mark in names)

        try:
            supervisor.run(each=_announce(url, supervisor))
        finally:
            place.unlink(missing_ok=True)
            _give_back(app)


def _give_back(app: App) -> None:
    """Lease no more than was spent, now that nobody spends: a machine that stops for good is charged with the rest."""
    if app.leases is None:
        return
    try:
        app.charges.reap()
        app.ledger.persist(app.holds)
        app.leases.tick(leaves=True)
    except (SQLAlchemyError, LockgateError) as failure:
        log.warning("what was leased of shared budgets is not given back: %s", failure)


def tell_children(*, log_format: str, log_requests: bool) -> None:
    """How this process and all that it starts are to log."""
    os.environ[logs.FORMAT_VARIABLE] = log_format
    os.environ[logs.REQUESTS_VARIABLE] = "1" if log_requests else "0"


def _prepare(app: App) -> None:
    """Make what the children share, once, before several of them would."""
    (app.home / "run").mkdir(parents=True, exist_ok=True)
    for leftover in (*(app.home / "run").glob("metrics/*"), *(app.home / "run").glob("stopped-*")):
        leftover.unlink(missing_ok=True)
    _ = app.control, app.traces, app.secret, app.holds
    for what in left_open(app.home / "run" / "breakers"):  # the workers begin with every breaker closed
        try:
            app.alerts.resolve(alert_key(what))
        except (SQLAlchemyError, LockgateError) as failure:
            log.warning("the alert %r stays open: %s", alert_key(what), failure)


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    with open(home / "up.lock", "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(
                f"Lockgate is already up for {str(home)!r}{_at(home)}", remedy="stop that one, or set LOCKGATE_HOME"
            ) from None
        yield


def _at(home: Path) -> str:
    try:
        return f" at {msgspec.json.decode((home / 'run' / 'gateway.json').read_bytes())['url']}"
    except (OSError, msgspec.DecodeError, LookupError, TypeError):
        return ""


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    try:
        listener = listen(host, port)
    except OSError as failure:
        if failure.errno == errno.EADDRINUSE:
            raise InputError(
                f"port {port} on {host} is in use", remedy="stop what listens there, or take another with --port"
            ) from None
        raise InputError(
            f"cannot listen on {host}:{port}: {failure.strerror or failure}", remedy="give another --host or --port"
        ) from None
    with listener:
        yield listener


def _refuse(listener: socket.socket, take_none: Callable[[], bool], seconds: float) -> None:
    """Let new connections be refused, in every process, as soon as the workers take none: else they would wait for one
    that never does. Not sooner: runs under way make their calls over new connections, and a worker whose socket ends
    while it takes connections does not end by itself."""

    def wait() -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not take_none():
            time.sleep(0.02)
        time.sleep(0.1)
        with suppress(OSError):  # not every system knows this; or all have ended
            listener.shutdown(socket.SHUT_RDWR)

    threading.Thread(target=wait, name="lockgate-refuse", daemon=True).start()


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    shown = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)  # noqa: S104
    return f"http://{shown}:{port}"


def _wanted(
    app: App, descriptor: int, url: str, *, workers: int, drain: float, everything: bool
) -> Callable[[], dict[str, Spec]]:
    """What ought to run now: workers and control plane always, a host for each version that a route names."""
    fixed: dict[str, Spec] = {}
    for index in range(workers):
        command = python("lockgate.gateway.worker", "--fd", str(descriptor), "--index", str(index))
        command += ("--parent", str(os.getpid()), "--drain", str(drain))
        fixed[f"gateway-{index}"] = Spec(
            command=command, descriptors=(descriptor,), environment={WORKERS_VARIABLE: str(workers)}
        )
    if everything:
        fixed["control"] = Spec(command=python("lockgate", "control"), environment={GATEWAY_URL: url})
        # A host is served by a process that has its imports behind it.
        fixed["spare"] = Spec(command=python("lockgate.gateway.spare"), environment={GATEWAY_URL: url}, spare=True)
    served: dict[str, Spec] = {}
    failing = False

    def wanted() -> dict[str, Spec]:
        nonlocal served, failing
        if everything:
            app.project_file.refresh()  # a local model that is new there is started
            try:
                versions = _versions(app)
                served = {**_hosts(versions, url), **_local_models(app, versions)}
                failing = False
            except (SQLAlchemyError, LockgateError) as failure:
                if not failing:  # said once, though it is tried again and again
                    log.warning("what ought to run cannot be read; hosts stay as they are: %s", failure)
                failing = True
        return {**fixed, **served}

    return wanted


class _Served(msgspec.Struct, frozen=True):
    """A version that ought to have a host."""

    environment: str
    agent: str
    behaviour_digest: str
    effective_digest: str


def _versions(app: App) -> list[_Served]:
    """Every version a route names, the previous ones kept warm for an undo, and those that suspended runs wait for."""
    with app.control.read() as connection:
        routes = store.all_routes(connection)
        warm = store.warm_versions(connection, app.clock())
    named = [(route.environment, route.stable) for route in routes]
    named += [(route.environment, route.candidate) for route in routes if route.candidate is not None]
    served = [
        _Served(environment, version.agent, version.behaviour_digest, version.effective_digest)
        for environment, version in (*named, *warm)
    ]
    return served + [_Served(*suspended) for suspended in app.suspended_versions()]


def _hosts(versions: list[_Served], url: str) -> dict[str, Spec]:
    hosts: dict[str, Spec] = {}
    for version in versions:
        digest = version.effective_digest
        arguments: tuple[str, ...] = ("host", "--digest", version.behaviour_digest, "--env", version.environment)
        arguments += ("--effective", digest, "--parent", str(os.getpid()))
        name = f"host {version.agent} {digest.removeprefix('sha256:')[:12]}"
        hosts[name] = Spec(
            command=python("lockgate", *arguments),
            becomes=arguments,
            environment={GATEWAY_URL: url},
            linger=HOST_LINGER,
        )
    return hosts


def _local_models(app: App, versions: list[_Served]) -> dict[str, Spec]:
    """One server for each provider of kind ``local`` that the project file or a served version names.

    A served version's are those it was deployed with: an agent's own there, or a followed branch's.
    """
    config = app.project.config
    found = [resolve_provider(app.project, name, place) for place in config.environments for name in config.providers]
    for version in versions:
        deployed = app.versions.providers_as_deployed(version.effective_digest)
        found += list((deployed or _resolved(app, version)).values())
    return {
        f"model {provider.local_name}": Spec(command=local_model.command(app.project, provider, parent=os.getpid()))
        for provider in found
        if provider.kind == "local"
    }


def _resolved(app: App, version: _Served) -> dict[str, ResolvedProvider]:
    return app.versions.providers(app.versions.load(version.behaviour_digest), version.environment)


def _announce(url: str, supervisor: Supervisor) -> Callable[[], None]:
    """Says once that it is up, and what runs."""
    told = False
    began = time.monotonic()

    def each() -> None:
        nonlocal told
        if told or not _answers(f"{url}/ready"):
            return
        told = True
        out = console()
        out.print(f"Lockgate is up at {url}", style="bold", markup=False)
        for name, pid in sorted(supervisor.pids().items()):
            out.print(f"  {name:<40} pid {pid}", markup=False)
        out.print(f"Ready in {time.monotonic() - began:.1f} s. Ctrl-C stops it.", markup=False)

    return each


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as response:  # noqa: S310
            return bool(response.status == 200)
    except (urllib.error.URLError, OSError):
        return False
