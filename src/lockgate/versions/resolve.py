"""Asks a local model server what its movable names stand for now. The room's only network call."""

from __future__ import annotations

import http.client
import json
import threading
from urllib.parse import urlsplit

TIMEOUT_SECONDS = 0.5
MAX_ANSWER = 4_000_000


def ollama_digests(base_url: str, timeout: float = TIMEOUT_SECONDS) -> dict[str, str] | None:
    """``model name → digest`` from Ollama's ``/api/tags``; None when no Ollama answers there.

    Only plain http is asked: Ollama has no TLS of its own, and hosted providers have no tags to resolve.
    """
    parts = urlsplit(base_url)
    if parts.scheme != "http" or not parts.hostname:
        return None
    host, port = parts.hostname, parts.port or 80
    found: list[dict[str, str] | None] = []
    # A thread, because looking up the host's name has no timeout of its own.
    asking = threading.Thread(target=lambda: found.append(_ask(host, port, timeout)), daemon=True)
    asking.start()
    asking.join(3 * timeout)
    return found[0] if found else None


def _ask(host: str, port: int, timeout: float) -> dict[str, str] | None:
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", "/api/tags", headers={"accept": "application/json"})
        answer = connection.getresponse()
        body = answer.read(MAX_ANSWER)
        models = json.loads(body)["models"] if answer.status == 200 else None
        if models is None:
            return None
        return {
            str(model["name"]): "sha256:" + str(model["digest"]).removeprefix("sha256:")
            for model in models
            if model.get("digest")
        }
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None  # something else listens there, or nothing: the name stays unresolved
    finally:
        connection.close()


def digest_for(name: str, digests: dict[str, str]) -> str | None:
    """The digest of one name; Ollama reads a name without a tag as ``:latest``."""
    return digests.get(name) or digests.get(f"{name}:latest")
