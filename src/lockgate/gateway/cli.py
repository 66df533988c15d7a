"""``lockgate up`` and ``lockgate gateway``."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

Host = Annotated[str, typer.Option("--host", help="The address to listen on.")]
Port = Annotated[int, typer.Option("--port", min=0, max=65535, help="The port; 0 takes a free one.")]
Workers = Annotated[int, typer.Option("--workers", min=1, max=64, help="Gateway processes.")]
LogFormat = Annotated[
    Literal["text", "json"], typer.Option("--log-format", help="Lines for people, or a JSON object a line.")
]
LogRequests = Annotated[bool, typer.Option("--log-requests", help="A line for each request.")]
Drain = Annotated[float, typer.Option("--drain", min=0, help="Seconds that calls get to end on a stop.")]


def up(
    host: Host = "127.0.0.1",
    port: Port = 8700,
    workers: Workers = 2,
    drain: Drain = 30.0,
    log_format: LogFormat = "text",
    log_requests: LogRequests = False,
) -> None:
    """Start gateway, hosts and control plane on this machine.

    Everything is behind one URL; Ctrl-C stops it after the calls under way.

    Example: lockgate up --port 8700 --workers 2
    """
    from lockgate.bootstrap import open_app
    from lockgate.gateway.serving import start, tell_children

    tell_children(log_format=log_format, log_requests=log_requests)
    start(open_app(), host, port, workers=workers, drain=drain, everything=True)


def gateway(
    host: Host = "127.0.0.1",
    port: Port = 8700,
    workers: Workers = 2,
    drain: Drain = 30.0,
    log_format: LogFormat = "text",
    log_requests: LogRequests = False,
) -> None:
    """Start the gateway workers alone, without control plane and hosts.

    Example: lockgate gateway --host 0.0.0.0 --port 8700
    """
    from lockgate.bootstrap import open_app
    from lockgate.gateway.serving import start, tell_children

    tell_children(log_format=log_format, log_requests=log_requests)
    start(open_app(), host, port, workers=workers, drain=drain, everything=False)
