"""A command that lets the running control plane do its work: the control plane has long imported what the work needs.

Over the Unix socket ``<home>/run/command.sock``, which only the user who owns the project's state can open: whoever can
hand something over could as well have written into the database. One line of JSON each way: a greeting of the control
plane, an :class:`Order`, an :class:`Outcome`.

The command does the work itself when no control plane greets it, and when the one that does declines: it goes by
another configuration than the command would. Once an order is under way, it is never done a second time.
"""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any, Literal

import msgspec

from lockgate import __version__
from lockgate.errors import LockgateError, Unavailable
from lockgate.project.places import find_root, home_of
from lockgate.runs import command_socket

DATABASE = "LOCKGATE_CONTROL_URL"
"""The environment variable that names a database which machines share."""
GREETING = b'{"lockgate":"control"}\n'
GREETING_SECONDS = 3.0
"""A control plane that takes longer to greet hangs: the command does its work itself."""
OUTCOME_SECONDS = 60.0
LONGEST_LINE = 1 << 20


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be done, and by what configuration the command would have done it."""

    verb: str
    arguments: dict[str, Any]
    version: str  # of Lockgate
    root: str
    database: str | None  # LOCKGATE_CONTROL_URL


class Outcome(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What came of it: ``declined`` before anything was done, ``done`` with a result, or ``failed`` as an error."""

    status: Literal["done", "failed", "declined"]
    result: dict[str, Any] = {}
    message: str = ""
    remedy: str | None = None
    exit_code: int = 4


def hand_over(verb: str, arguments: dict[str, Any]) -> dict[str, Any] | None:
    """The result, when this project's control plane did it; None when the command is to do it itself.

    Raises the error it failed with, and :class:`Unavailable` when it is not known whether it was done.
    """
    root = find_root(Path.cwd())
    if root is None:
        return None
    order = Order(
        verb=verb, arguments=arguments, version=__version__, root=str(root), database=os.environ.get(DATABASE)
    )
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(GREETING_SECONDS)
        try:
            connection.connect(str(command_socket(home_of(root))))
            if connection.recv(len(GREETING), socket.MSG_WAITALL) != GREETING:
                return None
        except OSError:
            return None
        return _result(verb, _exchange(connection, order))


def _exchange(connection: socket.socket, order: Order) -> Outcome:
    connection.settimeout(OUTCOME_SECONDS)
    try:
        connection.sendall(msgspec.json.encode(order) + b"\n")
        with connection.makefile("rb") as answer:
            return msgspec.json.decode(answer.readline(LONGEST_LINE), type=Outcome)
    except (OSError, msgspec.DecodeError) as lost:
        raise Unavailable(
            f"the control plane was told to {order.verb}, and did not say what came of it: {str(lost) or 'no answer'}",
            remedy="look with lockgate rollout list, before you repeat it",
        ) from lost


def _result(verb: str, outcome: Outcome) -> dict[str, Any] | None:
    if outcome.status == "failed":
        error = LockgateError(outcome.message, remedy=outcome.remedy)
        error.exit_code = outcome.exit_code
        raise error
    return outcome.result if outcome.status == "done" else None
