"""Bundles: what goes in comes out, one digest for one behaviour, nothing unsafe gets out."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Corrupt, InputError
from lockgate.versions.bundle import Bundle, blobs_of, pack, safe_title, unpack
from lockgate.versions.digest import canonical, sha256
from lockgate.versions.model import (
    ActionLimits,
    AgentVersion,
    Framework,
    Guardrails,
    ModelRef,
    ToolContract,
)

CODE = {"tools/orders.py": b"def read(): ...\n", "tools/deep/more.py": b"x = 1\n"}
FULL = AgentVersion(
    agent="triage",
    file_version=3,
    behaviour_digest="",
    model=ModelRef(provider="p", name="m", temperature=0.1, stop=("END",), revision="sha256:r"),
    fallbacks=(ModelRef(provider="q", name="n"),),
    triage=ModelRef(provider="p", name="small"),
    system_prompt="Be exact.\n",
    framework=Framework(kind="python", entrypoint="support.graph:app"),
    tools=(
        ToolContract(name="read", effect="read", python="tools/orders.py:read", input={"z": 1, "a": 2}, scopes=("o",)),
        ToolContract(name="act", approval=True),
    ),
    handler="read",
    guardrails=Guardrails(pii_redaction=True, injection="block", output_schema={"z": {}, "a": {}}),
    policies={"policies/a.cedar": "permit(principal, action, resource);"},
    limits=ActionLimits(max_llm_calls=4, max_usd_per_run=0.05),
    retrieval={"knowledge_base": "kb/x", "digest": None},
    memory={"ttl": 60.0},
    dependencies={"uv.lock": "sha256:d"},
)


def change(version: AgentVersion, **fields: Any) -> AgentVersion:
    return msgspec.structs.replace(version, **fields)


def loaded(bundle: Bundle) -> AgentVersion:
    return unpack(bundle.digest, bundle.blobs.__getitem__, file_version=3)


def test_what_is_packed_is_loaded_again() -> None:
    bundle = pack(FULL, CODE)
    version = loaded(bundle)
    assert version.behaviour_digest == bundle.digest == sha256(bundle.blobs[bundle.digest])
    assert {path: bundle.blobs[digest] for path, digest in version.code.items()} == CODE
    assert version.policy_digest.startswith("sha256:")
    assert change(version, behaviour_digest="", code={}, policy_digest="") == FULL
    assert version.guardrails.output_schema is not None
    assert list(version.guardrails.output_schema) == list(version.tools[0].input) == ["z", "a"]
    assert set(blobs_of(bundle.digest, bundle.blobs.__getitem__)) == set(bundle.blobs)


@given(st.text(max_size=30), st.floats(0, 2), st.integers(1, 10_000), st.dictionaries(st.text(max_size=5), st.text()))
def test_any_text_and_number_survives(prompt: str, temperature: float, tokens: int, schema: dict[str, str]) -> None:
    version = change(
        FULL,
        system_prompt=prompt,
        model=ModelRef(provider="p", name="m", temperature=temperature, max_tokens=tokens),
        guardrails=Guardrails(output_schema=schema),
    )
    again = loaded(pack(version, {}))
    assert (again.system_prompt, again.model, again.guardrails) == (prompt, version.model, version.guardrails)


DIFFERENT = [
    change(FULL, agent="other"),
    change(FULL, system_prompt="Be exact."),
    change(FULL, model=msgspec.structs.replace(FULL.model, temperature=0.2)),
    change(FULL, model=msgspec.structs.replace(FULL.model, temperature=None)),
    change(FULL, model=msgspec.structs.replace(FULL.model, revision="sha256:s")),
    change(FULL, fallbacks=()),
    change(FULL, triage=None),
    change(FULL, framework=Framework()),
    change(FULL, handler=None),
    change(FULL, tools=FULL.tools[:1]),
    change(FULL, tools=FULL.tools[::-1]),
    change(FULL, tools=(msgspec.structs.replace(FULL.tools[0], description="now described"), FULL.tools[1])),
    change(FULL, tools=(FULL.tools[0], msgspec.structs.replace(FULL.tools[1], approval=False))),
    change(FULL, tools=(msgspec.structs.replace(FULL.tools[0], input={"a": 2, "z": 1}), FULL.tools[1])),
    change(FULL, guardrails=msgspec.structs.replace(FULL.guardrails, pii_redaction=False)),
    change(FULL, guardrails=msgspec.structs.replace(FULL.guardrails, output_schema={"a": {}, "z": {}})),
    change(FULL, policies={}),
    change(FULL, policies={"policies/a.cedar": "forbid(principal, action, resource);"}),
    change(FULL, limits=ActionLimits()),
    change(FULL, retrieval=None),
    change(FULL, memory={"ttl": 61.0}),
    change(FULL, dependencies={}),
]


@pytest.mark.parametrize("other", DIFFERENT, ids=range(len(DIFFERENT)))
def test_a_change_of_any_part_is_another_digest(other: AgentVersion) -> None:
    assert pack(other, CODE).digest != pack(FULL, CODE).digest


def test_code_is_part_of_the_digest_by_path_and_content() -> None:
    (first, body), rest = next(iter(CODE.items())), dict(list(CODE.items())[1:])
    others = [{first: body + b"\n", **rest}, {"tools/renamed.py": body, **rest}, rest]
    assert len({pack(FULL, code).digest for code in (CODE, *others)}) == 4


def test_the_file_s_version_number_and_the_order_of_files_are_not() -> None:
    reordered = dict(reversed(CODE.items()))
    assert pack(change(FULL, file_version=9), reordered).digest == pack(FULL, CODE).digest


def test_parts_name_what_changed() -> None:
    before, after = pack(FULL, CODE), pack(change(FULL, system_prompt="x"), CODE)
    assert {kind for kind in before.parts if before.parts[kind] != after.parts[kind]} == {"prompt"}


@pytest.mark.parametrize(
    "path", ["/etc/x.py", "a/../b.py", "..", "a//b.py", "a\\b.py", "c:x.py", "a/\n.py", "", "a" * 300]
)
def test_unsafe_paths_are_neither_packed_nor_read(path: str) -> None:
    assert not safe_title(path) or path == ""
    with pytest.raises(InputError):
        pack(FULL, {path: b"x"})


def forged(edit: Any) -> tuple[str, dict[str, bytes]]:
    bundle = pack(FULL, CODE)
    manifest = json.loads(bundle.blobs[bundle.digest])
    edit(manifest)
    data = canonical(manifest)
    return sha256(data), {**bundle.blobs, sha256(data): data}


def _retitle(manifest: Any) -> None:
    manifest["layers"][-1]["annotations"]["org.opencontainers.image.title"] = "code/../../evil.py"


def _repeat(manifest: Any) -> None:
    manifest["layers"].append(manifest["layers"][-1])


def _foreign(manifest: Any) -> None:
    manifest["artifactType"] = "application/vnd.someone.else"


def _unknown_layer(manifest: Any) -> None:
    manifest["layers"][0]["mediaType"] = "application/vnd.lockgate.later.v9"


def _without_limits(manifest: Any) -> None:
    manifest["layers"] = [layer for layer in manifest["layers"] if ".limits." not in layer["mediaType"]]


def _truncated(manifest: Any) -> None:
    del manifest["layers"]


def _swapped(manifest: Any) -> None:
    manifest["layers"][0]["digest"] = manifest["config"]["digest"]


def _astray(manifest: Any) -> None:
    manifest["layers"][-1]["annotations"]["org.opencontainers.image.title"] = "sitecustomize.py"


def _file_and_folder(manifest: Any) -> None:
    layer = manifest["layers"][-1]
    folder = layer["annotations"]["org.opencontainers.image.title"].rpartition("/")[0]
    manifest["layers"].append({**layer, "annotations": {"org.opencontainers.image.title": folder}})


FORGED = [
    _retitle, _repeat, _foreign, _unknown_layer, _without_limits, _truncated, _swapped, _astray, _file_and_folder,
]  # fmt: skip


@pytest.mark.parametrize("edit", FORGED)
def test_a_manifest_that_no_lockgate_wrote_is_corrupt(edit: Any) -> None:
    digest, blobs = forged(edit)
    with pytest.raises(Corrupt):
        unpack(digest, blobs.__getitem__)


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("prompt", b"\xff\xfe"),
        ("policy", b"\xff"),
        ("model", b"[]"),
        ("framework", b'{"kind":"native"}'),
        ("framework", b'{"kind":5,"handler":null}'),
        ("guardrails", b'{"pii_redaction":"perhaps"}'),
        ("agent.config", b'{"agent":"../../x","format":1}'),
    ],
)
def test_a_part_that_no_lockgate_wrote_is_corrupt(kind: str, data: bytes) -> None:
    def swap(manifest: Any) -> None:
        for one in (manifest["config"], *manifest["layers"]):
            if f"lockgate.{kind}.v1" in one["mediaType"]:
                one["digest"] = sha256(data)

    digest, blobs = forged(swap)
    with pytest.raises(Corrupt):
        unpack(digest, (blobs | {sha256(data): data}).__getitem__)
