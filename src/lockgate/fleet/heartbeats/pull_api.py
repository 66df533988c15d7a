"""The versions that serve, to be pulled: the reading half of the OCI distribution protocol, below ``/v2``.

https://github.com/opencontainers/distribution-spec. A repository is an agent; what can be seen in it are the versions
that the key's environment serves, brings out, or keeps for an undo. The key is the password (any user name), or a
bearer token.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi import Path as InPath
from starlette.responses import JSONResponse, Response, StreamingResponse

from lockgate.errors import LockgateError, NotFound, Refused, Unauthenticated
from lockgate.fleet.heartbeats.service import Fleet
from lockgate.gateway.access import check_agent
from lockgate.gateway.model import Identity
from lockgate.versions.bundle import MANIFEST
from lockgate.versions.registry.client import CHUNK, INDEX
from lockgate.versions.registry.shelf import Shelf

Repository = Annotated[str, InPath(max_length=128)]
Name = Annotated[str, InPath(max_length=160)]
_CODES: dict[type[LockgateError], str] = {Unauthenticated: "UNAUTHORIZED", Refused: "DENIED", NotFound: "NAME_UNKNOWN"}


def pull_routes(fleet: Fleet, shelf: Shelf, member: Any) -> APIRouter:
    """The routes; ``member`` is the dependency that says who asks."""
    # A protocol with a description of its own: the API's description leaves it out.
    router = APIRouter(tags=["registry"], prefix="/v2", include_in_schema=False)

    def visible(repository: str, who: Identity) -> set[str]:
        for agent, digests in fleet.served(who.environment).items():
            if agent.lower() == repository:
                check_agent(who, agent)
                return digests
        raise NotFound(f"no agent {repository!r} serves in {who.environment!r}", remedy="lockgate fleet list")

    @router.api_route("/", methods=["GET", "HEAD"])
    def base(_who: Identity = Depends(member)) -> Response:
        """The protocol is spoken here, and the key is good."""
        return JSONResponse({})

    @router.api_route("/{repository}/manifests/{name}", methods=["GET", "HEAD"])
    def manifest(repository: Repository, name: Name, who: Identity = Depends(member)) -> Response:
        """A version, by ``v3`` or its digest, or what refers to one."""
        digest, data = shelf.manifest(name, visible(repository, who))
        return Response(data, media_type=MANIFEST, headers={"docker-content-digest": digest})

    @router.api_route("/{repository}/referrers/{digest}", methods=["GET"])
    def referrers(repository: Repository, digest: Name, who: Identity = Depends(member)) -> Response:
        """Settings, verdicts and scorecards of a version."""
        return Response(shelf.referrers(digest, visible(repository, who)), media_type=INDEX)

    @router.api_route("/{repository}/blobs/{digest}", methods=["GET", "HEAD"])
    def blob(request: Request, repository: Repository, digest: Name, who: Identity = Depends(member)) -> Response:
        """A part of a version."""
        found = shelf.blob(digest, visible(repository, who))
        headers = {"docker-content-digest": digest}
        kind = "application/octet-stream"
        if isinstance(found, bytes):
            return Response(found, media_type=kind, headers=headers)
        if request.method == "HEAD":
            return Response(media_type=kind, headers=headers | {"content-length": str(found.stat().st_size)})
        return StreamingResponse(_pieces(found), media_type=kind, headers=headers)

    return router


def refusal(error: LockgateError) -> Response:
    """The error in the shape that OCI clients read; a challenge when it is the key that is missing."""
    code = next((code for kind, code in _CODES.items() if isinstance(error, kind)), "UNKNOWN")
    body = {"errors": [{"code": code, "message": error.message}]}
    challenge = {"www-authenticate": 'Basic realm="lockgate"'} if isinstance(error, Unauthenticated) else {}
    return JSONResponse(body, error.status, challenge)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(CHUNK):
            yield piece
