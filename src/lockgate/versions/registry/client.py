"""The OCI distribution protocol, as much of it as versions need. One client speaks to one repository.

Everything received is held against its digest and its announced size while it arrives: memory stays bounded, and a
wrong byte is an error before anything is kept. https://github.com/opencontainers/distribution-spec
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import aiohttp
from yarl import URL

from lockgate.errors import Corrupt, InputError, LockgateError, NotFound, Refused, Unauthenticated, Unavailable
from lockgate.versions.bundle import MANIFEST, MAX_MANIFEST
from lockgate.versions.registry.credentials import Credentials
from lockgate.versions.registry.reference import Reference

INDEX = "application/vnd.oci.image.index.v1+json"
CHUNK = 1 << 16
TRIES = 4
PAUSE = 0.3  # seconds before the second try; it doubles
TIMEOUT = aiohttp.ClientTimeout(total=600, sock_connect=10, sock_read=30)
_RETRY = frozenset({408, 425, 429, 500, 502, 503, 504})
_PARAMETER = re.compile(r'([a-z_]+)="([^"]*)"', re.IGNORECASE)


class Answer:
    """A response whose body has been read."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes, url: URL) -> None:
        self.status, self.headers, self.body, self.url = status, headers, body, url


class Registry:
    """One repository. Use :func:`open_registry`."""

    def __init__(
        self, session: aiohttp.ClientSession, where: Reference, credentials: Credentials | None, *, plain: bool
    ) -> None:
        self.where = where
        self._session = session
        self._credentials = credentials
        self._base = f"{'http' if plain else 'https'}://{where.host}/v2/{where.repository}"
        self._plain = plain
        self._authorization: str | None = None

    # --- reading ----------------------------------------------------------------------------------------------

    async def manifest(self, name: str, *, limit: int = MAX_MANIFEST) -> tuple[str, bytes] | None:
        """``(digest, bytes)`` of a tag or a digest, in one request, so that a moving tag cannot split it."""
        accept = {"accept": f"{MANIFEST}, {INDEX}"}
        answer = await self._send("GET", f"{self._base}/manifests/{name}", headers=accept, limit=limit)
        if answer.status == 404:
            return None
        self._check(answer, 200)
        digest = "sha256:" + hashlib.sha256(answer.body).hexdigest()
        said = answer.headers.get("docker-content-digest")
        if (name.startswith("sha256:") and digest != name) or (said and said.startswith("sha256:") and said != digest):
            raise Corrupt(
                f"{self.where.host} sent {digest} for the manifest {said or name}",
                remedy="the registry, or something in between, is broken: nothing was kept",
            )
        return digest, answer.body

    async def referrers(self, digest: str) -> list[dict[str, Any]]:
        """Descriptors of what refers to a manifest, by the API, or by the tag that stands in for it."""
        answer = await self._send("GET", f"{self._base}/referrers/{digest}", headers={"accept": INDEX})
        body: bytes | None = answer.body if answer.status == 200 else None
        if answer.status not in (200, 404, 400, 405):
            self._check(answer, 200)
        if body is None or INDEX not in answer.headers.get("content-type", ""):
            found = await self.manifest(fallback_tag(digest))
            body = None if found is None else found[1]
        if body is None:
            return []
        try:
            entries = json.loads(body)["manifests"]
            return [{**one, "digest": str(one["digest"]), "size": int(one["size"])} for one in entries]
        except (ValueError, KeyError, TypeError):
            message = f"{self.where.host} sent a list of referrers that cannot be read"
            raise Corrupt(message, remedy="ask who runs it") from None

    async def blob(self, digest: str, size: int) -> AsyncIterator[bytes]:
        """The bytes of a blob in pieces; :class:`Corrupt` when they are more, fewer or others than announced."""
        received, seen = 0, hashlib.sha256()
        async with self._open("GET", f"{self._base}/blobs/{digest}") as response:
            if response.status == 404:
                raise NotFound(f"{self.where} has no blob {digest}", remedy="push the version again")
            if response.status != 200:
                body = await _read(response, 10_000)
                self._check(Answer(response.status, response.headers, body, response.url), 200)
            async for piece in response.content.iter_chunked(CHUNK):
                received += len(piece)
                if received > size:
                    break
                seen.update(piece)
                yield piece
        if received != size or "sha256:" + seen.hexdigest() != digest:
            what = "more than" if received > size else f"{received:,} of" if received != size else "other bytes in the"
            raise Corrupt(
                f"{self.where.host} sent {what} {size:,} bytes for the blob {digest}",
                remedy="nothing was kept: pull again, or push the version again",
            )

    # --- writing ----------------------------------------------------------------------------------------------

    async def has_blob(self, digest: str) -> bool:
        answer = await self._send("HEAD", f"{self._base}/blobs/{digest}")
        if answer.status not in (200, 404):
            self._check(answer, 200)
        return answer.status == 200

    async def put_blob(self, digest: str, data: bytes) -> None:
        """Upload a blob; each try starts a new upload, so a broken one leaves nothing that counts."""
        for attempt in range(TRIES):
            started = await self._send("POST", f"{self._base}/blobs/uploads/", data=b"")
            self._check(started, 202)
            location = started.url.join(URL(started.headers.get("location", ""), encoded=True))
            if location.host != URL(self._base).host and location.scheme != "https" and not self._plain:
                raise Refused(f"{self.where.host} wants the upload at {location.host!r} without TLS", remedy="ask it")
            target = location.update_query({"digest": digest})
            headers = {"content-type": "application/octet-stream"}
            answer = await self._send("PUT", str(target), headers=headers, data=data, tries=1, soft=True)
            if answer.status == 201:
                return
            if attempt == TRIES - 1 or (answer.status not in _RETRY and answer.status not in (0, 404, 416)):
                self._check(answer, 201)
            await asyncio.sleep(PAUSE * 2**attempt)

    async def put_manifest(self, name: str, data: bytes, *, kind: str = MANIFEST) -> Mapping[str, str]:
        """Put a manifest under a digest or a tag; returns the answer's headers."""
        headers = {"content-type": kind}
        answer = await self._send("PUT", f"{self._base}/manifests/{name}", headers=headers, data=data)
        self._check(answer, 201)
        return answer.headers

    # --- the wire ---------------------------------------------------------------------------------------------

    async def _send(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: bytes | None = None,
        limit: int = MAX_MANIFEST,
        tries: int = TRIES,
        soft: bool = False,
    ) -> Answer:
        """One request, repeated while the registry is unwell. ``soft``: no answer is status 0, not an error."""
        for attempt in range(tries):
            last = attempt == tries - 1
            try:
                async with self._open(method, url, headers=headers, data=data) as response:
                    body = await _read(response, limit)
                    answer = Answer(response.status, response.headers, body, response.url)
            except Unavailable as failure:
                if not last:
                    await asyncio.sleep(PAUSE * 2**attempt)
                    continue
                if soft:
                    return Answer(0, {}, failure.message.encode(), URL(url, encoded=True))
                raise
            if answer.status in _RETRY and not last:
                await asyncio.sleep(PAUSE * 2**attempt)
                continue
            return answer
        raise AssertionError("a request has at least one try")

    @asynccontextmanager
    async def _open(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, data: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        target = URL(url, encoded=True)
        try:
            for second in (False, True):
                sent = dict(headers or {})
                if self._authorization is not None and target.host == URL(self._base).host:
                    sent["authorization"] = self._authorization
                response = await self._session.request(method, target, headers=sent, data=data)
                try:
                    if response.status == 401 and not second and await self._authorize(response, method):
                        continue
                    yield response
                    return
                finally:
                    response.release()
        except LockgateError:
            raise
        except (aiohttp.ClientError, TimeoutError, OSError) as failure:
            reason = str(failure) or type(failure).__name__
            raise Unavailable(
                f"the registry {self.where.host} does not answer: {reason}",
                remedy="check its address; for plain HTTP on another machine add --plain-http",
            ) from None

    async def _authorize(self, response: aiohttp.ClientResponse, method: str) -> bool:
        """Answer a challenge; False when there is nothing to answer it with."""
        for challenge in response.headers.getall("www-authenticate", []):
            scheme, _, rest = challenge.partition(" ")
            given = {name.lower(): value for name, value in _PARAMETER.findall(rest)}
            if scheme.lower() == "basic" and self._credentials is not None and self._credentials.password:
                authorization = self._credentials.basic()
            elif scheme.lower() == "bearer" and given.get("realm"):
                authorization = f"Bearer {await self._token(given, method)}"
            else:
                continue
            if authorization != self._authorization:
                self._authorization = authorization
                return True
        return False

    async def _token(self, challenge: dict[str, str], method: str) -> str:
        realm = URL(challenge["realm"])
        if realm.scheme != "https" and not (self._plain and realm.scheme == "http"):
            raise Refused(f"{self.where.host} asks for credentials at {str(realm)!r}, without TLS", remedy="ask it why")
        action = "pull" if method in ("GET", "HEAD") else "pull,push"
        scope = challenge.get("scope") or f"repository:{self.where.repository}:{action}"
        form = {"scope": scope, **({"service": challenge["service"]} if "service" in challenge else {})}
        who = self._credentials
        if who is not None and who.identity_token:
            form |= {"grant_type": "refresh_token", "refresh_token": who.identity_token, "client_id": "lockgate"}
            asking = self._session.post(realm, data=form, allow_redirects=False)
        else:
            headers = {"authorization": who.basic()} if who is not None and who.password else {}
            asking = self._session.get(realm.update_query(form), headers=headers, allow_redirects=False)
        async with asking as response:
            body = await _read(response, 100_000)
        if response.status != 200:
            raise Unauthenticated(
                f"{realm.host} gave no token for {scope!r} ({response.status})",
                remedy=f"docker login {self.where.host}, or give --username",
            )
        try:
            answer = json.loads(body)
            return str(answer.get("token") or answer["access_token"])
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Unavailable(f"{realm.host} gave no token that can be read", remedy="ask who runs it") from None

    def _check(self, answer: Answer, wanted: int) -> None:
        if answer.status == wanted:
            return
        said = _reason(answer.body)
        where = f"{self.where.host}/{self.where.repository}"
        if answer.status == 401:
            who = "nobody" if self._credentials is None else repr(self._credentials.username)
            raise Unauthenticated(
                f"{where} does not let {who} in{said}", remedy=f"docker login {self.where.host}, or give --username"
            )
        if answer.status == 403:
            raise Refused(f"{where} refuses{said}", remedy="ask for the right to push or pull there")
        if answer.status == 404:
            raise NotFound(f"{where} is not there{said}", remedy="check the address")
        if answer.status == 0 or answer.status >= 500 or answer.status in _RETRY:
            status = "gave no answer" if answer.status == 0 else f"answered {answer.status}"
            raise Unavailable(
                f"{where} {status} {TRIES} times{said}", remedy="do it again: what is there already is kept"
            )
        raise InputError(f"{where} answered {answer.status}{said}", remedy="check that it is an OCI registry")


def fallback_tag(digest: str) -> str:
    """The tag that lists referrers where the registry has no API for them."""
    return digest.replace(":", "-")


async def _read(response: aiohttp.ClientResponse, limit: int) -> bytes:
    body = bytearray()
    async for piece in response.content.iter_chunked(CHUNK):
        body += piece
        if len(body) > limit:
            raise Corrupt(f"{response.url.host} sent more than {limit:,} bytes", remedy="it is no version of Lockgate")
    return bytes(body)


def _reason(body: bytes) -> str:
    try:
        error = json.loads(body)["errors"][0]
        return f": {str(error.get('message') or error['code'])[:200]}"
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return ""


@asynccontextmanager
async def open_registry(
    where: Reference, credentials: Credentials | None, *, plain_http: bool = False
) -> AsyncIterator[Registry]:
    """A client for the repository; https unless the host is this machine or ``plain_http`` says so."""
    plain = plain_http or where.plain
    async with aiohttp.ClientSession(
        timeout=TIMEOUT, trust_env=urlsplit(f"//{where.host}").hostname is not None
    ) as http:
        yield Registry(http, where, credentials, plain=plain)
