"""A version as an OCI artifact: one manifest, one layer for each part that can change an answer.

The manifest's digest is the behaviour digest. Layers are the parts themselves, uncompressed, so no archive
carries times, owners or modes, and equal parts are stored once. A layer's title is where it would be written
by an OCI client: ``model.json``, ``prompt.md``, ``tools/read_orders.json``, ``code/tools/orders.py``…

The agent file's version number and path are not in the bundle: they name a behaviour, they do not change it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from lockgate.errors import Corrupt, InputError
from lockgate.versions.digest import canonical, nfc, ordered, sha256, tree_digest
from lockgate.versions.model import (
    ActionLimits,
    AgentVersion,
    Framework,
    Guardrails,
    ModelRef,
    Reference,
    ToolContract,
)

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
ARTIFACT = "application/vnd.lockgate.agent.v1"
CONFIG = "application/vnd.lockgate.agent.config.v1+json"
TITLE = "org.opencontainers.image.title"
FORMAT = 1
MAX_MANIFEST = 4_000_000  # what registries accept

_MEDIA = {
    "model": "application/vnd.lockgate.model.v1+json",
    "prompt": "application/vnd.lockgate.prompt.v1+text",
    "framework": "application/vnd.lockgate.framework.v1+json",
    "tools": "application/vnd.lockgate.tool.v1+json",
    "schema": "application/vnd.lockgate.schema.v1+json",
    "guardrails": "application/vnd.lockgate.guardrails.v1+json",
    "policies": "application/vnd.lockgate.policy.v1+cedar",
    "limits": "application/vnd.lockgate.limits.v1+json",
    "retrieval": "application/vnd.lockgate.retrieval.v1+json",
    "memory": "application/vnd.lockgate.memory.v1+json",
    "cache": "application/vnd.lockgate.cache.v1+json",
    "dependencies": "application/vnd.lockgate.dependencies.v1+json",
    "references": "application/vnd.lockgate.references.v1+json",
    "code": "application/vnd.lockgate.code.v1+text",
}
_KINDS = {media: kind for kind, media in _MEDIA.items()}
_AGENT = r"^[A-Za-z0-9][A-Za-z0-9._-]*\Z"  # as the agent file has it
_FOLDERS = {"code": "code/", "policies": "policies/"}

Struct = TypeVar("Struct")


class Bundle(msgspec.Struct, frozen=True, kw_only=True):
    """A packed version: the manifest's digest, all its blobs (the manifest too), and a digest for each kind of part."""

    digest: str
    size: int
    blobs: dict[str, bytes]
    parts: dict[str, str]


def pack(version: AgentVersion, code: Mapping[str, bytes]) -> Bundle:
    """Make the bundle of ``version``; ``code`` is ``POSIX path → bytes``. Its digests in ``version`` are not read."""
    layers: list[tuple[str, str, bytes]] = [
        ("model", "model.json", canonical(_models(version))),
        ("prompt", "prompt.md", version.system_prompt.encode()),
        ("framework", "framework.json", canonical(_framework(version))),
        ("limits", "limits.json", canonical(_fields(version.limits))),
        ("guardrails", "guardrails.json", canonical(_guardrails(version.guardrails))),
    ]
    if version.guardrails.output_schema is not None:
        layers.append(("schema", "schemas/output.json", ordered(version.guardrails.output_schema)))
    layers += [
        ("tools", f"tools/{number:03}-{tool.name}.json", ordered(_fields(tool)))
        for number, tool in enumerate(version.tools)
    ]
    layers += [("policies", f"policies/{nfc(path)}", text.encode()) for path, text in version.policies.items()]
    if version.retrieval is not None:
        layers.append(("retrieval", "retrieval.json", canonical(version.retrieval)))
    if version.memory is not None:
        layers.append(("memory", "memory.json", canonical(version.memory)))
    if version.cache is not None:
        layers.append(("cache", "cache.json", canonical(version.cache)))
    if version.dependencies:
        layers.append(("dependencies", "dependencies.json", canonical(version.dependencies)))
    if version.references:
        listed = [_fields(one) for one in sorted(version.references, key=lambda one: one.name)]
        layers.append(("references", "references.json", canonical(listed)))
    layers += [("code", f"code/{nfc(path)}", data) for path, data in code.items()]
    return _assemble(version.agent, layers)


def _assemble(agent: str, layers: list[tuple[str, str, bytes]]) -> Bundle:
    blobs: dict[str, bytes] = {}
    by_kind: dict[str, dict[str, str]] = {}
    descriptors = []
    order = list(_MEDIA)
    for kind, title, data in sorted(layers, key=lambda layer: (order.index(layer[0]), layer[1])):
        digest = sha256(data)
        if not safe_title(title):
            raise InputError(f"{title!r} cannot be a path on every system", remedy="rename the file")
        if title in by_kind.setdefault(kind, {}):
            raise InputError(f"two parts are called {title!r}", remedy="rename one of the files")
        by_kind[kind][title] = digest
        blobs[digest] = data
        descriptors.append(
            {"mediaType": _MEDIA[kind], "digest": digest, "size": len(data), "annotations": {TITLE: title}}
        )
    config = canonical({"agent": agent, "format": FORMAT})
    blobs[sha256(config)] = config
    manifest = canonical(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": ARTIFACT,
            "config": {"mediaType": CONFIG, "digest": sha256(config), "size": len(config)},
            "layers": descriptors,
        }
    )
    if len(manifest) > MAX_MANIFEST:
        raise InputError(f"{len(layers):,} parts are more than one version can list", remedy="leave code out of it")
    blobs[sha256(manifest)] = manifest
    parts = {
        kind: next(iter(titles.values())) if len(titles) == 1 else tree_digest(titles)
        for kind, titles in by_kind.items()
    }
    return Bundle(digest=sha256(manifest), size=len(manifest), blobs=blobs, parts=parts)


def unpack(digest: str, get: Callable[[str], bytes], *, file_version: int = 0) -> AgentVersion:
    """Load a version from its bundle. ``get`` reads one blob and checks it against its digest.

    Raises :class:`Corrupt` for a manifest that no Lockgate wrote, or whose titles lead out of their folder.
    """
    config, layers = _read_manifest(digest, get)
    one: dict[str, bytes] = {}
    tools: dict[str, ToolContract] = {}
    policies: dict[str, str] = {}
    code: dict[str, str] = {}
    for kind, title, blob in layers:
        if kind == "code":
            code[title.removeprefix("code/")] = blob
        elif kind == "policies":
            policies[title.removeprefix("policies/")] = _text(get(blob), digest)
        elif kind == "tools":
            tools[title] = _decode(get(blob), ToolContract, digest)
        else:
            one[kind] = get(blob)
    models = _decode(one["model"], _Models, digest)
    framework = _decode(one["framework"], _Framework, digest)
    guardrails = _decode(one["guardrails"], Guardrails, digest)
    output_schema = _decode(one["schema"], dict[str, Any], digest) if "schema" in one else None
    return AgentVersion(
        agent=config.agent,
        file_version=file_version,
        behaviour_digest=digest,
        model=models.model,
        fallbacks=models.fallbacks,
        triage=models.triage,
        routing=models.routing,
        cache=_decode(one["cache"], dict[str, Any], digest) if "cache" in one else None,
        system_prompt=_text(one["prompt"], digest),
        framework=Framework(kind=framework.kind, entrypoint=framework.entrypoint, image=framework.image),
        tools=tuple(tools[title] for title in sorted(tools)),
        handler=framework.handler,
        guardrails=msgspec.structs.replace(guardrails, output_schema=output_schema),
        policies=policies,
        policy_digest=policy_digest(policies),
        limits=_decode(one["limits"], ActionLimits, digest),
        retrieval=_decode(one["retrieval"], dict[str, Any], digest) if "retrieval" in one else None,
        memory=_decode(one["memory"], dict[str, Any], digest) if "memory" in one else None,
        dependencies=_decode(one["dependencies"], dict[str, str], digest) if "dependencies" in one else {},
        references=_decode(one["references"], tuple[Reference, ...], digest) if "references" in one else (),
        code=code,
    )


def blobs_of(digest: str, get: Callable[[str], bytes]) -> list[str]:
    """Every blob the bundle is made of, its manifest first."""
    manifest = msgspec.json.decode(get(digest), type=_Manifest)
    return [digest, manifest.config.digest, *(layer.digest for layer in manifest.layers)]


def titles_of(digest: str, get: Callable[[str], bytes]) -> dict[str, str]:
    """Every part by its path: its blob."""
    return {title: blob for _, title, blob in _read_manifest(digest, get)[1]}


def policy_digest(policies: Mapping[str, str]) -> str:
    """The digest approvals are bound to; empty without policies."""
    return sha256(canonical(dict(policies))) if policies else ""


def safe_title(title: str) -> bool:
    """Whether a path from a manifest stays below the folder it is written to, on any system."""
    steps = title.split("/")
    return (
        0 < len(title) <= 1024
        and all(0 < len(step.encode()) <= 255 and step not in (".", "..") for step in steps)
        and not any(mark in title for mark in ("\\", ":", "\0"))
        and title.isprintable()
    )


class _Descriptor(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    digest: str
    size: int
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, frozen=True, rename="camel"):
    media_type: str
    artifact_type: str
    config: _Descriptor
    layers: list[_Descriptor]


class _Config(msgspec.Struct, frozen=True):
    agent: Annotated[str, msgspec.Meta(pattern=_AGENT, max_length=128)]
    format: int


class _Framework(Framework, frozen=True, kw_only=True):
    handler: str | None


class _Models(msgspec.Struct, frozen=True):
    model: ModelRef
    fallbacks: tuple[ModelRef, ...]
    triage: ModelRef | None
    routing: dict[str, Any] | None = None


def _read_manifest(digest: str, get: Callable[[str], bytes]) -> tuple[_Config, list[tuple[str, str, str]]]:
    manifest = _decode(get(digest), _Manifest, digest)
    if manifest.media_type != MANIFEST or manifest.artifact_type != ARTIFACT:
        raise Corrupt(f"{digest} is {manifest.artifact_type!r}, not an agent version")
    config = _decode(get(manifest.config.digest), _Config, digest)
    if config.format != FORMAT:
        raise Corrupt(f"{digest} has bundle format {config.format}, not {FORMAT}", remedy="upgrade lockgate")
    layers, seen = [], {""}
    for layer in manifest.layers:
        kind, title = _KINDS.get(layer.media_type), layer.annotations.get(TITLE, "")
        if kind is None:
            raise Corrupt(f"{digest} has a layer of unknown type {layer.media_type!r}", remedy="upgrade lockgate")
        if not safe_title(title) or nfc(title) in seen or not title.startswith(_FOLDERS.get(kind, "")):
            raise Corrupt(f"{digest} has a layer with the unsafe or repeated path {title!r}", remedy="do not use it")
        seen.add(nfc(title))
        layers.append((kind, title, layer.digest))
    for _, title, _ in layers:
        if not seen.isdisjoint(folders := [title[:at] for at, mark in enumerate(title) if mark == "/"]):
            both = next(one for one in folders if one in seen)
            raise Corrupt(f"{digest} has a layer {both!r} that is file and folder", remedy="do not use it")
    missing = {"model", "prompt", "framework", "limits", "guardrails"} - {kind for kind, _, _ in layers}
    if missing:
        raise Corrupt(f"{digest} lacks {', '.join(sorted(missing))}", remedy="lock or pull the version again")
    return config, layers


def _decode(data: bytes, kind: type[Struct], digest: str) -> Struct:
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.MsgspecError as wrong:
        raise Corrupt(f"a part of {digest} cannot be read: {wrong}", remedy="lock or pull it again") from None


def _text(data: bytes, digest: str) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as wrong:
        raise Corrupt(f"a part of {digest} is not text: {wrong}", remedy="lock or pull it again") from None


def _fields(value: Any) -> dict[str, Any]:
    """Every field, defaults too: a default that changes later must not change a version that exists."""
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _models(version: AgentVersion) -> dict[str, Any]:
    models = {
        "model": _fields(version.model),
        "fallbacks": [_fields(model) for model in version.fallbacks],
        "triage": None if version.triage is None else _fields(version.triage),
    }
    return models if version.routing is None else {**models, "routing": version.routing}


def _framework(version: AgentVersion) -> dict[str, Any]:
    fields = {**_fields(version.framework), "handler": version.handler}
    return fields if version.framework.image is not None else {k: v for k, v in fields.items() if k != "image"}


def _guardrails(guardrails: Guardrails) -> dict[str, Any]:
    """Without the output schema, which is a part of its own."""
    fields = _fields(guardrails)
    return {name: value for name, value in fields.items() if name != "output_schema" and value != ()}
