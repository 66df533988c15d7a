"""Versions of a project to and from registries."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TypeVar

from lockgate.errors import LockgateError, NotFound, Refused
from lockgate.versions import layout, lockfile
from lockgate.versions.bundle import titles_of
from lockgate.versions.inlined import secret_lines
from lockgate.versions.registry import exchange
from lockgate.versions.registry.client import open_registry
from lockgate.versions.registry.credentials import Credentials, find
from lockgate.versions.registry.reference import Reference

if TYPE_CHECKING:
    from lockgate.versions.service import Versions
    from lockgate.versions.store import VersionRow

Value = TypeVar("Value")


def push_version(
    versions: Versions,
    ref: str,
    where: Reference,
    *,
    credentials: Credentials | None = None,
    plain_http: bool = False,
    move: bool = False,
    allow_secrets: bool = False,
) -> exchange.Pushed:
    """Push a version with its settings, attestations and scorecards, also tagged by its digest and its git commit.

    Raises :class:`Refused` when a part has something shaped like a credential, unless ``allow_secrets``.
    """
    digest = versions.find(ref)
    if not allow_secrets:
        _no_secrets(versions, digest)
    row = next((one for one in versions.history() if one.behaviour_digest == digest), None)
    if row is None:
        raise NotFound(f"no version {digest!r} was locked here", remedy="lockgate lock")
    tag = where.tag or f"v{row.file_version}"
    short = digest.removeprefix("sha256:")[:12]
    commit = (f"git-{row.git_commit}.v{row.file_version}",) if row.git_commit else ()
    notes = annotations_of(row)
    settings = versions.blobs.get(row.settings_digest)

    async def go() -> exchange.Pushed:
        async with open_registry(where, credentials or find(where.host), plain_http=plain_http) as registry:
            return await exchange.push(
                registry,
                versions.blobs,
                digest,
                tags=(tag, short, *commit),
                settings=settings,
                annotations=notes,
                move=move,
            )

    return _run(go())


def _no_secrets(versions: Versions, digest: str) -> None:
    """What is in a registry cannot be taken back: whoever may read it has it."""
    for title, blob in titles_of(digest, versions.blobs.get).items():
        if lines := secret_lines(versions.blobs.get(blob).decode(errors="replace")):
            raise Refused(
                f"{title}:{lines[0]} of {digest[7:19]} has something that looks like a secret",
                remedy="replace it by a reference and lock again; or push with --allow-secrets when it is none",
            )


def annotations_of(row: VersionRow) -> dict[str, str]:
    """What a registry's copy of the settings says beside them: when, which file version, which commit."""
    made = datetime.fromtimestamp(row.created_at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    notes = {exchange.CREATED: made, exchange.VERSION: str(row.file_version)}
    return notes | ({exchange.REVISION: row.git_commit} if row.git_commit else {})


def pull_version(
    versions: Versions, where: Reference, *, credentials: Credentials | None = None, plain_http: bool = False
) -> exchange.Pulled:
    """Pull a version into the project's store: it can be shown, gated and deployed by its digest from then on."""
    name = where.tag or where.digest or "latest"

    async def go() -> exchange.Pulled:
        async with open_registry(where, credentials or find(where.host), plain_http=plain_http) as registry:
            return await exchange.pull(registry, versions.blobs, name, expected=where.digest)

    pulled = _run(go())
    _keep(versions, pulled, where)
    return pulled


def _keep(versions: Versions, pulled: exchange.Pulled, where: Reference) -> None:
    from lockgate.versions.store import VersionRow, save_versions, version_row

    source = str(where)
    settings = versions.blobs.put(pulled.settings_data)
    row = VersionRow(
        behaviour_digest=pulled.digest,
        agent=pulled.version.agent,
        file_version=pulled.file_version,
        created_at=versions.clock(),
        git_commit=pulled.commit,
        source=source,
        settings_digest=settings,
    )
    versions.attestations.add(pulled.envelopes, behaviour=pulled.digest)
    with versions.control.write() as connection:
        if version_row(connection, pulled.digest) is None:  # what was locked here keeps its own settings
            save_versions(connection, [row])
    entries = [layout.descriptor(pulled.digest, pulled.size)]
    entries += [layout.descriptor(digest, size, kind=kind) for digest, kind, size in pulled.referrers]
    with lockfile.one_at_a_time(versions.project.home):
        layout.add_to_index(versions.blobs, entries)


def _run(work: Coroutine[Any, Any, Value]) -> Value:
    """Wait for it; of errors that came together, the first of ours is the one that is shown."""
    try:
        return asyncio.run(work)
    except* LockgateError as several:
        first: BaseException = several
        while isinstance(first, BaseExceptionGroup):
            first = first.exceptions[0]
        raise first from None
