"""Asks a local model server, or a container registry, what a movable name stands for now.

Every command that reads versions imports this; the clients of HTTP are imported by those that ask.
"""

from __future__ import annotations

import json
import re
import threading
from urllib.parse import urlencode, urlsplit

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
    import http.client

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


def image_digest(image: str, timeout: float = 5.0) -> str | None:
    """What a container image's tag stands for at its registry (``docker.io`` without one); None when it does not say.

    Loopback registries are asked by plain http. Anonymous only: a private image is pinned by hand.
    """
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_ask_registry(image, timeout)), daemon=True)
    asking.start()
    asking.join(3 * timeout)
    return found[0] if found else None


_MANIFESTS = ", ".join(
    f"application/vnd.{kind}+json"
    for kind in (
        "oci.image.index.v1",
        "oci.image.manifest.v1",
        "docker.distribution.manifest.list.v2",
        "docker.distribution.manifest.v2",
    )
)


def image_place(image: str) -> tuple[str, str, str]:
    """``(registry, repository, tag)`` as container tools read a name.

    >>> image_place("ghcr.io/acme/agent:v3"), image_place("python")
    (('ghcr.io', 'acme/agent', 'v3'), ('registry-1.docker.io', 'library/python', 'latest'))
    """
    first, _, rest = image.partition("/")
    if rest and ("." in first or ":" in first or first == "localhost"):
        registry, name = first, rest
    else:
        registry, name = "registry-1.docker.io", image if "/" in image else f"library/{image}"
    repository, _, tag = name.partition(":")
    return registry, repository, tag or "latest"


def _ask_registry(image: str, timeout: float) -> str | None:
    import http.client
    import urllib.request

    registry, repository, tag = image_place(image)
    plain = registry.partition(":")[0] in ("localhost", "127.0.0.1")
    scheme = "http" if plain else "https"
    url = f"{scheme}://{registry}/v2/{repository}/manifests/{tag}"
    headers = {"accept": _MANIFESTS}
    try:
        status, answer = _head(url, headers, timeout)
        challenge = answer.get("www-authenticate", "")
        if status == 401 and challenge.lower().startswith("bearer "):
            parts = dict(re.findall(r'(\w+)="([^"]*)"', challenge))
            realm = parts.pop("realm", "")
            if urlsplit(realm).scheme != "https":
                return None
            address = f"{realm}?{urlencode(parts)}"
            with urllib.request.urlopen(address, timeout=timeout) as reply:  # noqa: S310  https, by the line above
                token = json.loads(reply.read(MAX_ANSWER))
            headers["authorization"] = f"Bearer {token.get('token') or token['access_token']}"
            status, answer = _head(url, headers, timeout)
        digest = answer.get("docker-content-digest", "")
        return digest if status == 200 and re.fullmatch(r"sha256:[0-9a-f]{64}", digest) else None
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError, AttributeError):
        return None  # no registry, or not for us: the tag stays a tag


def _head(url: str, headers: dict[str, str], timeout: float) -> tuple[int, dict[str, str]]:
    import http.client

    parts = urlsplit(url)
    kind = http.client.HTTPConnection if parts.scheme == "http" else http.client.HTTPSConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    try:
        connection.request("HEAD", parts.path, headers=headers)
        answer = connection.getresponse()
        return answer.status, {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()
