"""This project's versions as an OCI repository that can be read: what ``lockgate pull`` or any OCI client asks for.

Only what hangs together with a version that may be seen can be read: its manifest, its parts, and what refers to it.
A blob of anything else (a run's payload, say) is not there, whatever digest is asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lockgate.errors import NotFound
from lockgate.versions import layout
from lockgate.versions.bundle import MANIFEST, blobs_of
from lockgate.versions.registry.client import INDEX
from lockgate.versions.registry.exchange import dated_settings
from lockgate.versions.registry.service import annotations_of

if TYPE_CHECKING:
    from lockgate.versions.service import Versions

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Shelf:
    """Versions for reading. ``visible`` of each call: the behaviour digests that the caller may see."""

    def __init__(self, versions: Versions) -> None:
        self._versions = versions
        self._parts: dict[str, frozenset[str]] = {}

    def manifest(self, name: str, visible: Collection[str]) -> tuple[str, bytes]:
        """``(digest, bytes)`` of a version, by its digest or ``v3``, or of something that refers to one."""
        if name in visible:
            return name, self._versions.blobs.get(name)
        if not _DIGEST.fullmatch(name):
            for row in self._versions.history():
                if row.behaviour_digest in visible and name == f"v{row.file_version}":
                    return row.behaviour_digest, self._versions.blobs.get(row.behaviour_digest)
        for digest in visible:
            for made in self._beside(digest):
                if name in made:
                    last = list(made)[-1]
                    if name == last:
                        return name, made[name]
        raise NotFound(f"no manifest {name!r} here", remedy="ask for a version that is deployed, by its digest")

    def referrers(self, digest: str, visible: Collection[str]) -> bytes:
        """What refers to a version, as an OCI index."""
        found: list[dict[str, Any]] = []
        for made in self._beside(digest) if digest in visible else ():
            name, manifest = list(made.items())[-1]
            described = json.loads(manifest)
            entry = {"mediaType": MANIFEST, "artifactType": described["artifactType"], "digest": name}
            entry |= {"size": len(manifest)}
            if "annotations" in described:
                entry["annotations"] = described["annotations"]
            found.append(entry)
        return json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()

    def blob(self, digest: str, visible: Collection[str]) -> Path | bytes:
        """A part of a version, or of what refers to it: where it is stored, or its bytes."""
        if _DIGEST.fullmatch(digest):
            if any(digest in self._parts_of(one) for one in visible):
                return self._versions.blobs.path(digest)
            for one in visible:
                for made in self._beside(one):
                    if digest in made:
                        return made[digest]
        raise NotFound(f"no blob {digest!r} here", remedy="ask for a part of a version that is deployed")

    def _parts_of(self, digest: str) -> frozenset[str]:
        if digest not in self._parts:
            self._parts[digest] = frozenset(blobs_of(digest, self._versions.blobs.get))
        return self._parts[digest]

    def _beside(self, digest: str) -> list[dict[str, bytes]]:
        """The blobs of everything that refers to a version; the manifest is the last of each."""
        blobs, found = self._versions.blobs, []
        row = next((one for one in self._versions.history() if one.behaviour_digest == digest), None)
        if row is not None:
            size = len(blobs.get(digest))
            found.append(dated_settings(digest, size, blobs.get(row.settings_digest), annotations_of(row)))
        for entry, manifest in layout.referrers(blobs, digest):
            described = json.loads(manifest)
            if described.get("artifactType") != layout.SETTINGS:
                names = [described["config"]["digest"], *(layer["digest"] for layer in described["layers"])]
                found.append({**{name: blobs.get(name) for name in names}, entry["digest"]: manifest})
        return found
