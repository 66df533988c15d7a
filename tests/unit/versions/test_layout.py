"""The blob store as an OCI image layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lockgate.errors import Corrupt
from lockgate.storage.blobs import BlobStore, digest_of
from lockgate.versions.layout import REF_NAME, SETTINGS, add_to_index, descriptor, problems, rebuild, referrer


def names(home: Path) -> dict[str, str | None]:
    index = json.loads((home / "index.json").read_bytes())
    assert index["schemaVersion"] == 2
    return {one["digest"]: one.get("annotations", {}).get(REF_NAME) for one in index["manifests"]}


def test_a_name_moves_to_the_newest_and_the_old_manifest_stays(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    add_to_index(blobs, [descriptor("sha256:a", 1, name="triage.v1"), descriptor("sha256:s", 1, kind=SETTINGS)])
    add_to_index(blobs, [descriptor("sha256:b", 1, name="triage.v1")])
    assert names(tmp_path) == {"sha256:a": None, "sha256:s": None, "sha256:b": "triage.v1"}
    assert json.loads((tmp_path / "oci-layout").read_bytes()) == {"imageLayoutVersion": "1.0.0"}


def test_nothing_new_writes_nothing(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    entry = descriptor("sha256:a", 1, name="triage.v1")
    add_to_index(blobs, [entry])
    before = (tmp_path / "index.json").stat().st_ino
    add_to_index(blobs, [entry])
    assert (tmp_path / "index.json").stat().st_ino == before


def test_a_referrer_names_its_subject(tmp_path: Path) -> None:
    blobs = referrer("sha256:subject", 12, SETTINGS, "settings.json", b"{}")
    manifest = json.loads(list(blobs.values())[-1])
    assert manifest["subject"]["digest"] == "sha256:subject"
    assert all(layer["digest"] in blobs for layer in (manifest["config"], *manifest["layers"]))


def test_a_broken_index_says_so(tmp_path: Path) -> None:
    (tmp_path / "index.json").write_text("{")
    with pytest.raises(Corrupt, match="not an OCI index"):
        add_to_index(BlobStore(tmp_path / "blobs"), [descriptor("sha256:a", 1)])


def test_a_broken_index_is_built_anew_from_the_blobs(tmp_path: Path) -> None:
    blobs = BlobStore(tmp_path / "blobs")
    made = referrer(digest_of(b"subject"), 12, SETTINGS, "settings.json", b'{"owner": "me"}')
    manifest = blobs.put_many([*made.values(), b"not json", b'{"a": 1}', b"[]"])[len(made) - 1]
    (tmp_path / "index.json").write_text('{"manif')
    assert len(problems(blobs)) == 1
    assert rebuild(blobs) == 1
    assert names(tmp_path) == {manifest: None}
    assert problems(blobs) == []
    (tmp_path / "oci-layout").unlink()
    assert "oci-layout' is missing" in problems(blobs)[0]
