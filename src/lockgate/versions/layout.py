"""The blob store as an OCI image layout, so that any OCI tool can list, copy and push what is in it.

Beside ``blobs/`` stand ``oci-layout`` and ``index.json``. What belongs to a version without being part of it
(settings, attestations) is a referrer: a manifest whose ``subject`` is the version's.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lockgate.errors import Corrupt
from lockgate.storage.blobs import BlobStore
from lockgate.versions import lockfile
from lockgate.versions.bundle import ARTIFACT, MANIFEST, TITLE
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


def add_to_index(blobs: BlobStore, entries: Iterable[dict[str, Any]]) -> None:
    """Add manifests to ``index.json``; a name moves to the newest entry that bears it. Callers hold the lock guard."""
    folder = blobs.root.parent
    path = folder / "index.json"
    manifests = _read_index(path)
    fresh = [entry for entry in entries if entry not in manifests]
    if not fresh and path.exists():
        return
    for entry in fresh:
        name = _name(entry)
        manifests = [old for old in manifests if old["digest"] != entry["digest"] or _name(old) not in (None, name)]
        manifests = [_without_name(old) if name and _name(old) == name else old for old in manifests]
        manifests.append(entry)
    _replace(folder / "oci-layout", _LAYOUT)
    _replace(path, canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}))


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
    path = blobs.root.parent / "index.json"
    manifests = [entry for entry in _read_index(path) if entry["digest"] not in digests]
    _replace(path, canonical({"schemaVersion": 2, "mediaType": _INDEX, "manifests": manifests}))


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


def _name(entry: dict[str, Any]) -> str | None:
    name = entry.get("annotations", {}).get(REF_NAME)
    return str(name) if name is not None else None


def _without_name(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != "annotations"}


def _read_index(path: Path) -> list[dict[str, Any]]:
    try:
        return list(json.loads(path.read_bytes())["manifests"])
    except FileNotFoundError:
        return []
    except (ValueError, KeyError, TypeError) as wrong:
        raise Corrupt(f"{str(path)!r} is not an OCI index: {wrong}", remedy="delete it, then `lockgate lock`") from None


def _replace(path: Path, data: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    os.replace(temporary, path)
