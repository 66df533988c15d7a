"""The blob store as an OCI image layout, so that any OCI tool can list, copy and push what is in it.

Beside ``blobs/`` stand ``oci-layout`` and ``index.json``. What belongs to a version without being part of it
(settings, attestations) is a referrer: a manifest whose ``subject`` is the version's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from lockgate.errors import Corrupt, NotFound
from lockgate.storage.blobs import BlobStore
from lockgate.versions import lockfile
from lockgate.versions.bundle import ARTIFACT, MANIFEST, MAX_MANIFEST, TITLE
from lockgate.versions.digest import canonical, sha256

REF_NAME = "org.opencontainers.image.ref.name"
SCORECARD = "application/vnd.lockgate.scorecard.v1+json"
SETTINGS = "application/vnd.lockgate.settings.v1+json"
ATTESTATION = "application/vnd.dsse.envelope.v1+json"
_INDEX = "application/vnd.oci.image.index.v1+json"
_EMPTY_TYPE = "application/vnd.oci.empty.v1+json"
_EMPTY = b"{}"
_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'


def descriptor(digest: str, size: int, *, kind: str = ARTIFACT, name: str | None = None) -> dict[str, Any]:
    """How an index names one manifest; ``name`` is what people call it."""
    entry: dict[str, Any] = {"mediaType": MANIFEST, "artifactType": kind, "digest": digest, "size": size}
    return entry | ({"annotations": {REF_NAME: name}} if name else {})


def referrer(subject: str, subject_size: int, kind: str, title: str, data: bytes) -> dict[str, bytes]:
    """The blobs that attach ``data`` to a manifest; the manifest is the last of them."""
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": kind,
            "config": {"mediaType": _EMPTY_TYPE, "digest": sha256(_EMPTY), "size": len(_EMPTY)},
            "layers": [{"mediaType": kind, "digest": sha256(data), "size": len(data), "annotations": {TITLE: title}}],
            "subject": {"mediaType": MANIFEST, "digest": subject, "size": subject_size},
        }
    )
    return {sha256(_EMPTY): _EMPTY, sha256(data): data, sha256(manifest): manifest}


def check(blobs: BlobStore) -> list[dict[str, Any]]:
    """What the index lists; :class:`Corrupt` when it cannot be read."""
    return _read_index(blobs.root.parent / "index.json")


def add_to_index(blobs: BlobStore, entries: Iterable[dict[str, Any]]) -> None:
    """Add manifests to ``index.json``; a name moves to the newest entry that bears it. Callers hold the lock guard."""
    folder = blobs.root.parent
    path = folder / "index.json"
    manifests = check(blobs)
    fresh = [entry for entry in entries if entry not in manifests]
    if not fresh and path.exists() and (folder / "oci-layout").exists():
        return
    for entry in fresh:
        name = _name(entry)
        manifests = [old for old in manifests if old["digest"] != entry["digest"] or _name(old) not in (None, name)]
        manifests = [_without_name(old) if name and _name(old) == name else old for old in manifests]
        manifests.append(entry)
    _replace(folder / "oci-layout", _LAYOUT)
    _write_index(folder, manifests)


def attach(
    blobs: BlobStore, home: Path, subject: str, kind: str, title: str, data: bytes, *, keep: int | None = None
) -> str:
    """Make ``data`` a referrer of the manifest ``subject`` in the store; returns the referrer's digest.

    ``keep``: of this kind only the newest so many stay in the index.
    """
    made = referrer(subject, len(blobs.get(subject)), kind, title, data)
    blobs.put_many(made.values())
    digest, manifest = list(made.items())[-1]
    with lockfile.one_at_a_time(home):
        add_to_index(blobs, [descriptor(digest, len(manifest), kind=kind)])
        if keep is not None:
            known = [entry["digest"] for entry, _ in referrers(blobs, subject, kind)]
            _take_out(blobs, set(known[:-keep]))
    return digest


def _take_out(blobs: BlobStore, digests: set[str]) -> None:
    if not digests:
        return
    folder = blobs.root.parent
    _write_index(folder, [one for one in _read_index(folder / "index.json") if one["digest"] not in digests])


def referrers(blobs: BlobStore, subject: str, kind: str | None = None) -> list[tuple[dict[str, Any], bytes]]:
    """``(descriptor, manifest)`` of everything in the layout that refers to ``subject``, in the order it came in."""
    found = []
    for entry in _read_index(blobs.root.parent / "index.json"):
        is_version = entry.get("artifactType") == ARTIFACT
        if is_version or (kind is not None and entry.get("artifactType") != kind) or entry["digest"] not in blobs:
            continue
        manifest = blobs.get(entry["digest"])
        if json.loads(manifest).get("subject", {}).get("digest") == subject:
            found.append((entry, manifest))
    return found


def problems(blobs: BlobStore) -> list[str]:
    """What keeps OCI tools, and a push, from reading the layout; nothing where there is none yet."""
    folder = blobs.root.parent
    try:
        listed = check(blobs)
    except Corrupt as wrong:
        return [wrong.message]
    try:
        whole = json.loads((folder / "oci-layout").read_bytes()) == json.loads(_LAYOUT)
    except (OSError, ValueError):
        whole = False
    return [] if whole or not listed else [f"{str(folder / 'oci-layout')!r} is missing or damaged"]


def rebuild(blobs: BlobStore) -> int:
    """Write the index anew from the blobs that are there; names come back with the next lock. Callers hold the guard.

    Returns how many manifests it lists.
    """
    entries = []
    for digest in blobs:
        with suppress(Corrupt, NotFound, ValueError, AttributeError):
            data = blobs.get(digest) if blobs.path(digest).stat().st_size <= MAX_MANIFEST else b""
            manifest = json.loads(data) if data.startswith(b"{") else {}
            kind = manifest.get("artifactType")
            if manifest.get("mediaType") == MANIFEST and kind in (ARTIFACT, SETTINGS, ATTESTATION, SCORECARD):
                entries.append((blobs.path(digest).stat().st_mtime, descriptor(digest, len(data), kind=kind)))
    folder = blobs.root.parent
    _replace(folder / "oci-layout", _LAYOUT)
    _write_index(folder, [entry for _, entry in sorted(entries, key=lambda one: (one[0], one[1]["digest"]))])
    return len(entries)


def _write_index(folder: Path, manifests: list[dict[str, Any]]) -> None:
    _replace(folder / "index.json", canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}))


def _name(entry: dict[str, Any]) -> str | None:
    name = entry.get("annotations", {}).get(REF_NAME)
    return str(name) if name is not None else None


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "annotations"}


def _read_index(path: Path) -> list[dict[str, Any]]:
    try:
        return [{**entry, "digest": str(entry["digest"])} for entry in json.loads(path.read_bytes())["manifests"]]
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as wrong:
        raise Corrupt(
            f"{str(path)!r} is not an OCI index: {wrong}", remedy="lockgate doctor --fix writes it anew"
        ) from None


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with open(temporary, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
