"""Who we are to a registry: given, from the environment, or from docker's ``config.json``; else nobody.

``LOCKGATE_REGISTRY_USERNAME`` and ``LOCKGATE_REGISTRY_PASSWORD`` hold for ``LOCKGATE_REGISTRY_HOST``.
A password is never an argument of a command, and never in a message.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError, Unavailable

HELPER_SECONDS = 10.0
_DOCKER_HUB = "https://index.docker.io/v1/"


class Credentials(msgspec.Struct, frozen=True, kw_only=True):
    """A name and a password; ``identity_token`` in place of a password when a login gave one."""

    username: str
    password: str = ""
    identity_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r})"

    def basic(self) -> str:
        """The value of an ``authorization`` header."""
        return "Basic " + base64.b64encode(f"{self.username}:{self.password}".encode()).decode()


def find(host: str) -> Credentials | None:
    """What this user has for the registry; None: anonymous."""
    name, password = os.environ.get("LOCKGATE_REGISTRY_USERNAME"), os.environ.get("LOCKGATE_REGISTRY_PASSWORD")
    if name and password and os.environ.get("LOCKGATE_REGISTRY_HOST") == host:
        return Credentials(username=name, password=password)
    folder = os.environ.get("DOCKER_CONFIG")
    return _from_docker((Path(folder) if folder else Path.home() / ".docker") / "config.json", host)


def _from_docker(path: Path, host: str) -> Credentials | None:
    try:
        config = json.loads(path.read_bytes())
        auths = dict(config.get("auths") or {})
        helper = (config.get("credHelpers") or {}).get(host) or config.get("credsStore")
    except FileNotFoundError:
        return None
    except (OSError, ValueError, AttributeError, TypeError):
        raise InputError("not a docker config", path=path, remedy="correct it, or set DOCKER_CONFIG") from None
    names = [host, f"https://{host}", f"http://{host}", f"https://{host}/v1/", f"https://{host}/v2/"]
    if host in ("docker.io", "index.docker.io", "registry-1.docker.io"):
        names.append(_DOCKER_HUB)
    entry: Any = next((auths[name] for name in names if auths.get(name)), None)
    if entry is None:
        return _ask_helper(str(helper), host) if helper else None
    try:
        if entry.get("auth"):
            name, _, password = base64.b64decode(entry["auth"], validate=True).decode().partition(":")
        else:
            name, password = str(entry.get("username", "")), str(entry.get("password", ""))
        token = str(entry.get("identitytoken") or "")
    except (AttributeError, ValueError):
        message = f"its entry for {host!r} cannot be read"
        raise InputError(message, path=path, remedy=f"docker login {host}") from None
    return Credentials(username=name, password=password.rstrip("\0"), identity_token=token)


def _ask_helper(helper: str, host: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise InputError(f"{helper!r} is no credential helper", remedy="correct docker's config.json")
    try:
        done = subprocess.run([program, "get"], input=host.encode(), capture_output=True, timeout=HELPER_SECONDS)
    except FileNotFoundError:
        raise Unavailable(f"{program} is not installed", remedy="install it, or give --username") from None
    except subprocess.TimeoutExpired:
        raise Unavailable(f"{program} gave no answer in {HELPER_SECONDS:g} s", remedy="give --username") from None
    if done.returncode != 0:
        return None  # it has nothing for this registry
    try:
        answer = json.loads(done.stdout)
        name, password = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError):
        raise Unavailable(f"{program} gave an answer that cannot be read", remedy="give --username") from None
    if name == "<token>":
        return Credentials(username="", identity_token=password)
    return Credentials(username=name, password=password)
