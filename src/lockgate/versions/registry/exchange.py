"""Push and pull of whole versions: parts first, then what names them, the tag last.

A push that breaks off leaves parts that nothing names; the next one finds them there and goes on. A pull keeps
nothing but checked parts until all are there, and only then says that the version exists.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import msgspec

from lockgate.errors import Conflict, Corrupt, NotFound, Refused
from lockgate.storage.blobs import BlobStore
from lockgate.versions import layout
from lockgate.versions.bundle import ARTIFACT, MANIFEST, blobs_of, unpack
from lockgate.versions.digest import canonical, sha256
from lockgate.versions.model import AgentSettings, AgentVersion
from lockgate.versions.registry.client import INDEX, Registry, fallback_tag

MAX_PART = 64_000_000
MAX_VERSION = 512_000_000
MAX_REFERRER = 4_000_000
MAX_REFERRERS = 1000
AT_ONCE = 8
REVISION = "org.opencontainers.image.revision"
VERSION = "org.opencontainers.image.version"
CREATED = "org.opencontainers.image.created"
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What a push did. ``uploaded``: how many parts were not there yet."""

    digest: str
    tags: tuple[str, ...]
    uploaded: int
    referrers: int


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """A version that is whole in the blob store, not yet named there."""

    digest: str
    size: int
    version: AgentVersion
    settings: AgentSettings
    settings_data: bytes
    file_version: int
    commit: str | None
    envelopes: tuple[dict[str, Any], ...] = ()
    referrers: tuple[tuple[str, str, int], ...] = ()  # (digest, kind, size)


async def push(
    registry: Registry,
    blobs: BlobStore,
    digest: str,
    *,
    tags: tuple[str, ...],
    settings: bytes,
    annotations: dict[str, str],
    move: bool = False,
) -> Pushed:
    """Bring a version and what refers to it to ``registry``, under ``tags``; the first is the one asked for.

    Raises :class:`Conflict` when that tag names another version and may not move, before anything is sent.
    """
    parts = {part: blobs.get(part) for part in blobs_of(digest, blobs.get)}  # all read before anything is sent
    before = await registry.manifest(tags[0])
    if before is not None and before[0] != digest and not move:
        raise Conflict(
            f"{registry.where.host}/{registry.where.repository}:{tags[0]} is {before[0]}, not {digest}",
            remedy="push under another tag, or move it with --move",
        )
    manifest = parts.pop(digest)
    uploaded = await _upload(registry, parts)
    await registry.put_manifest(digest, manifest)
    count = await _push_referrers(registry, blobs, digest, len(manifest), settings, annotations)
    for tag in tags:
        await registry.put_manifest(tag, manifest)
    after = await registry.manifest(tags[0])
    if after is None or after[0] != digest:
        raise Conflict(
            f"the tag {tags[0]!r} was moved to {after[0] if after else 'nothing'} while it was pushed",
            remedy=f"the version itself is there, as {digest}; agree on who moves the tag",
        )
    return Pushed(digest=digest, tags=tags, uploaded=uploaded, referrers=count)


async def _upload(registry: Registry, parts: dict[str, bytes]) -> int:
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(digest: str, data: bytes) -> int:
        async with gate:
            if await registry.has_blob(digest):
                return 0
            await registry.put_blob(digest, data)
            return 1

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(one(digest, data)) for digest, data in parts.items()]
    return sum(task.result() for task in tasks)


async def _push_referrers(
    registry: Registry, blobs: BlobStore, subject: str, size: int, settings: bytes, annotations: dict[str, str]
) -> int:
    there = {entry["digest"] for entry in await registry.referrers(subject)}
    made = dated_settings(subject, size, settings, annotations)
    wanted = [(list(made.values())[-1], made)]
    for _, manifest in layout.referrers(blobs, subject):
        if json.loads(manifest).get("artifactType") != layout.SETTINGS:
            needed = {part: blobs.get(part) for part in _parts(json.loads(manifest))}
            wanted.append((manifest, needed | {sha256(manifest): manifest}))
    fresh = []
    for manifest, needed in wanted:
        digest = sha256(manifest)
        if digest in there:
            continue
        await _upload(registry, {part: data for part, data in needed.items() if part in _parts(json.loads(manifest))})
        headers = await registry.put_manifest(digest, manifest)
        if not headers.get("oci-subject"):
            described = json.loads(manifest)
            entry = {"mediaType": MANIFEST, "artifactType": described["artifactType"], "digest": digest}
            entry |= {"size": len(manifest)}
            if "annotations" in described:
                entry["annotations"] = described["annotations"]
            fresh.append(entry)
    if fresh:
        await _list_by_tag(registry, subject, fresh)
    return len(wanted)


def dated_settings(subject: str, size: int, settings: bytes, annotations: dict[str, str]) -> dict[str, bytes]:
    """The blobs that attach a version's settings to it in a registry; the manifest is the last of them.

    Which settings are the latest is said by a time, which stands in the registry's copy of the manifest alone.
    """
    made = layout.referrer(subject, size, layout.SETTINGS, "settings.json", settings)
    name, own = list(made.items())[-1]
    dated = canonical(json.loads(own) | {"annotations": annotations})
    del made[name]
    return {**made, sha256(dated): dated}


async def _list_by_tag(registry: Registry, subject: str, fresh: list[dict[str, Any]]) -> None:
    """For registries without the referrers API: the list is an index under a tag, written again when it was lost."""
    for _ in range(3):
        found = await registry.manifest(fallback_tag(subject))
        manifests = [] if found is None else list(json.loads(found[1]).get("manifests", []))
        known = {one["digest"] for one in manifests}
        missing = [one for one in fresh if one["digest"] not in known]
        if not missing:
            return
        index = canonical({"schemaVersion": 2, "mediaType": INDEX, "manifests": [*manifests, *missing]})
        await registry.put_manifest(fallback_tag(subject), index, kind=INDEX)
    raise Conflict("somebody else pushes to the same version all the time", remedy="push again")


async def pull(registry: Registry, blobs: BlobStore, name: str, *, expected: str | None = None) -> Pulled:
    """Bring a version and what refers to it into ``blobs``. ``expected``: the digest that ``name`` must have.

    Raises :class:`Refused` when a tag has moved, :class:`Corrupt` for anything that is not what it says it is.
    """
    found = await registry.manifest(name)
    if found is None:
        raise NotFound(f"{registry.where} is not there", remedy="check the repository and the tag")
    digest, manifest = found
    if expected is not None and digest != expected:
        raise Refused(
            f"the tag {name!r} was moved: it is {digest}, and {expected} was asked for",
            remedy="ask who moved it; or pull by the digest alone",
        )
    described = _describe(manifest, digest)
    if described.get("artifactType") != ARTIFACT:
        raise Corrupt(f"{registry.where} is {described.get('artifactType')!r}, not an agent version")
    await _download(registry, blobs, described, digest, MAX_PART, MAX_VERSION)
    blobs.put(manifest)
    version = unpack(digest, blobs.get)  # whole and well-formed, or Corrupt
    return await _pull_referrers(registry, blobs, digest, len(manifest), version)


async def _pull_referrers(
    registry: Registry, blobs: BlobStore, digest: str, size: int, version: AgentVersion
) -> Pulled:
    entries = (await registry.referrers(digest))[:MAX_REFERRERS]
    settings: list[tuple[str, bytes, dict[str, str]]] = []
    envelopes: list[dict[str, Any]] = []
    kept: list[tuple[str, str, int]] = []
    for entry in entries:
        if entry.get("artifactType") not in (layout.SETTINGS, layout.ATTESTATION, layout.SCORECARD):
            continue
        got = await registry.manifest(entry["digest"])
        if got is None:
            continue
        described = _describe(got[1], got[0])
        if described.get("subject", {}).get("digest") != digest:
            raise Corrupt(f"{got[0]} is listed for {digest}, but refers to something else", remedy="ask who pushed it")
        await _download(registry, blobs, described, got[0], MAX_REFERRER, MAX_REFERRER)
        blobs.put(got[1])
        kind, data = str(entry["artifactType"]), blobs.get(described["layers"][0]["digest"])
        kept.append((got[0], kind, len(got[1])))
        if kind == layout.SETTINGS:
            notes = {str(key): str(value) for key, value in described.get("annotations", {}).items()}
            settings.append((notes.get(CREATED, ""), data, notes))
        elif kind == layout.ATTESTATION:
            envelopes.append(_json(data, got[0]))
    _, latest, notes = max(settings, key=lambda one: one[0], default=("", b"{}", {}))
    try:
        read = msgspec.json.decode(latest, type=AgentSettings)
    except msgspec.MsgspecError as wrong:
        raise Corrupt(f"the settings beside {digest} cannot be read: {wrong}", remedy="push it again") from None
    number = notes.get(VERSION, "")
    return Pulled(
        digest=digest,
        size=size,
        version=version,
        settings=read,
        settings_data=latest,
        file_version=int(number) if number.isascii() and number.isdigit() and len(number) < 9 else 0,
        commit=notes[REVISION] if re.fullmatch(r"[0-9a-f]{40,64}", notes.get(REVISION, "")) else None,
        envelopes=tuple(envelopes),
        referrers=tuple(kept),
    )


async def _download(
    registry: Registry, blobs: BlobStore, described: dict[str, Any], name: str, part: int, whole: int
) -> None:
    """Bring what a manifest names; sizes are looked at before the first byte is asked for."""
    sizes = _sizes(described, name)
    for digest, size in sizes.items():
        if size > part:
            raise Corrupt(
                f"{name} has a part of {size:,} bytes ({digest}); {part:,} are the most", remedy="do not use it"
            )
    if sum(sizes.values()) > whole:
        raise Corrupt(f"{name} is {sum(sizes.values()):,} bytes; {whole:,} are the most", remedy="do not use it")
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(digest: str, size: int) -> None:
        async with gate:
            with blobs.receive(digest) as write:
                async for piece in registry.blob(digest, size):
                    write(piece)

    async with asyncio.TaskGroup() as group:
        for digest, size in sizes.items():
            if digest not in blobs:
                group.create_task(one(digest, size))


def _sizes(described: dict[str, Any], name: str) -> dict[str, int]:
    try:
        found = {one["digest"]: one["size"] for one in (described["config"], *described["layers"])}
    except (KeyError, TypeError):
        raise Corrupt(f"{name} is no manifest of an artifact", remedy="check the address") from None
    if not all(isinstance(key, str) and _DIGEST.fullmatch(key) for key in found) or not all(
        type(size) is int and size >= 0 for size in found.values()
    ):
        raise Corrupt(f"{name} names its parts wrongly", remedy="do not use it")
    return found


def _parts(described: dict[str, Any]) -> list[str]:
    return [described["config"]["digest"], *(layer["digest"] for layer in described["layers"])]


def _describe(manifest: bytes, name: str) -> dict[str, Any]:
    found = _json(manifest, name)
    if not isinstance(found.get("subject") or {}, dict) or not isinstance(found.get("annotations") or {}, dict):
        raise Corrupt(f"{name} is no manifest of an artifact", remedy="check the address")
    return found


def _json(data: bytes, name: str) -> dict[str, Any]:
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError as wrong:
        raise Corrupt(f"{name} cannot be read: {wrong}", remedy="push it again") from None
