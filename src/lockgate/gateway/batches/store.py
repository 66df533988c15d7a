"""Whose files and batches these are. A tenant's are all of its keys' in one environment, and nobody else's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, and_, delete, or_, select, update

from lockgate.errors import InputError
from lockgate.gateway.model import Identity
from lockgate.storage.schema import provider_batches as batches
from lockgate.storage.schema import provider_files as files
from lockgate.storage.schema import provider_uploads as uploads
from lockgate.storage.upsert import insert_into

UPLOAD_SECONDS = 86_400.0
"""How long an upload may take; providers give it up after an hour."""
OPEN, SETTLED, UNKNOWN = "open", "settled", "unknown"
"""What is known of a batch's cost: not yet; its answers told; nobody can tell, it stays charged in full."""


class Owned(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider has for a tenant, by the provider's own id."""

    environment: str
    provider: str
    id: str
    tenant: str
    key_id: str
    created_at: float


class File(Owned, frozen=True, kw_only=True):
    """One file. ``counted``: see :class:`~lockgate.gateway.batches.lines.Counted`."""

    purpose: str
    object: dict[str, Any]
    counted: dict[str, Any] | None = None
    batch_id: str | None = None


class PartedUpload(Owned, frozen=True, kw_only=True):
    """A file that comes in parts, and is not whole yet."""

    purpose: str


class Batch(Owned, frozen=True, kw_only=True):
    """One batch, and what is charged for it."""

    machine: str
    agent: str | None
    run_id: str | None
    model: str
    endpoint: str
    charge_id: str
    trace_id: str
    attributes: dict[str, Any]
    requests: int
    held_nano: int
    object: dict[str, Any]
    status: str = OPEN
    cost_nano: int | None = None
    due_at: float = 0.0
    terms: dict[str, Any] | None = None
    """What the checks of its answers go by: see :class:`~lockgate.gateway.batches.guarding.Terms`."""


def touch(connection: Connection) -> None:
    """A write that changes nothing: it shows whether the store takes writes."""
    connection.execute(update(files).where(files.c.id == "").values(purpose=files.c.purpose))


def find_file(connection: Connection, who: Identity, id: str) -> File | None:
    found = _find(connection, files, who, id)
    return None if found is None else _file(found)


def find_batch(connection: Connection, who: Identity, id: str) -> Batch | None:
    found = _find(connection, batches, who, id)
    return None if found is None else _batch(found)


def batch_of(connection: Connection, file: File) -> Batch | None:
    """The batch that made the file."""
    wanted = (_whose(batches, file), batches.c.provider == file.provider, batches.c.id == file.batch_id)
    found = connection.execute(select(batches).where(*wanted)).first()
    return None if found is None else _batch(found)


def find_upload(connection: Connection, who: Identity, id: str) -> PartedUpload | None:
    found = _find(connection, uploads, who, id)
    return None if found is None else PartedUpload(**found._mapping)


def list_files(
    connection: Connection, who: Identity, *, purpose: str | None, after: str | None, limit: int, ascending: bool
) -> list[File]:
    """A page of them, and one more when there is one. Raises InputError when ``after`` is not there."""
    wanted = [] if purpose is None else [files.c.purpose == purpose]
    return [_file(row) for row in _page(connection, files, who, wanted, after, limit, ascending)]


def list_batches(connection: Connection, who: Identity, *, after: str | None, limit: int) -> list[Batch]:
    """As :func:`list_files`, newest first."""
    return [_batch(row) for row in _page(connection, batches, who, [], after, limit, False)]


def keep_file(connection: Connection, file: File) -> None:
    _keep(connection, files, file)


def keep_batch(connection: Connection, batch: Batch) -> None:
    _keep(connection, batches, batch)


def keep_upload(connection: Connection, upload: PartedUpload) -> None:
    """Write it down, and forget those that nobody ended."""
    connection.execute(delete(uploads).where(uploads.c.created_at < upload.created_at - UPLOAD_SECONDS))
    _keep(connection, uploads, upload)


def forget_upload(connection: Connection, upload: PartedUpload) -> None:
    connection.execute(delete(uploads).where(_this(uploads, upload)))


def forget_file(connection: Connection, file: File) -> None:
    connection.execute(delete(files).where(_this(files, file)))


def see_file(connection: Connection, file: File, object: dict[str, Any]) -> None:
    connection.execute(update(files).where(_this(files, file)).values(object=object))


def see_batch(connection: Connection, batch: Batch, object: dict[str, Any], due_at: float) -> None:
    """What the provider told of it, and when it is to be asked again."""
    connection.execute(update(batches).where(_this(batches, batch)).values(object=object, due_at=due_at))


def end_batch(connection: Connection, batch: Batch, status: str, cost_nano: int) -> bool:
    """Whether it was open until now."""
    ended = update(batches).where(_this(batches, batch), batches.c.status == OPEN)
    return bool(connection.execute(ended.values(status=status, cost_nano=cost_nano)).rowcount)


def due(connection: Connection, machine: str, living: Sequence[str], now: float) -> list[Batch]:
    """The open batches whose provider is to be asked: this machine's, and those of machines that are not ``living``."""
    mine = or_(batches.c.machine == machine, batches.c.machine.not_in(living))
    wanted = (batches.c.status == OPEN, mine, batches.c.due_at <= now)
    return [_batch(row) for row in connection.execute(select(batches).where(*wanted).order_by(batches.c.due_at))]


def open_batch_of(connection: Connection, file: File) -> str | None:
    """The batch that made the file, while its cost is not known."""
    if file.batch_id is None:
        return None
    wanted = (_whose(batches, file), batches.c.id == file.batch_id, batches.c.status == OPEN)
    return connection.execute(select(batches.c.id).where(*wanted)).scalar()


def _find(connection: Connection, table: Any, who: Identity, id: str) -> Row[Any] | None:
    """The newest: two providers may have given the same id."""
    wanted = select(table).where(_whose(table, who), table.c.id == id)
    return connection.execute(wanted.order_by(table.c.created_at.desc())).first()


def _keep(connection: Connection, table: Any, one: Owned) -> None:
    """Write it down; one that is known stays whose it is."""
    connection.execute(insert_into(connection, table).values(msgspec.structs.asdict(one)).on_conflict_do_nothing())


def _whose(table: Any, who: Identity | File) -> Any:
    return and_(table.c.environment == who.environment, table.c.tenant == who.tenant)


def _this(table: Any, one: Owned) -> Any:
    return and_(
        table.c.environment == one.environment, table.c.provider == one.provider, table.c.id == one.id
    )  # fmt: skip


def _page(
    connection: Connection, table: Any, who: Identity, wanted: Sequence[Any], after: str | None, limit: int, up: bool
) -> Sequence[Row[Any]]:
    conditions = [_whose(table, who), *wanted]
    at, id = table.c.created_at, table.c.id
    if after is not None:
        found = connection.execute(select(at).where(_whose(table, who), id == after)).scalar()
        if found is None:  # no empty page: whoever reads all pages would take it for the end
            raise InputError(f"'after' is {after[:128]!r}, which is not there", remedy="was it deleted? begin anew")
        later = or_(at > found, and_(at == found, id > after))
        earlier = or_(at < found, and_(at == found, id < after))
        conditions.append(later if up else earlier)
    order = (at, id) if up else (at.desc(), id.desc())
    return connection.execute(select(table).where(*conditions).order_by(*order).limit(limit + 1)).all()


def _file(row: Row[Any]) -> File:
    return File(**row._mapping)


def _batch(row: Row[Any]) -> Batch:
    return Batch(**row._mapping)
