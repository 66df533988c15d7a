"""API keys: shown once, stored as a hash, believed for as long as the store confirms them.

A worker asks the store about a key when it first sees it, and again every half second while the key is in use
(:meth:`Keys.refresh`), so a revoked key is refused within two seconds everywhere. When the store does not answer, a
key stays good for :data:`LEASE` seconds after its last confirmation, and is refused from then on.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from pydantic import ValidationError
from sqlalchemy.exc import SQLAlchemyError

from lockgate import ids
from lockgate.clock import Clock
from lockgate.errors import Conflict, Expired, InputError, NotFound, Unauthenticated, Unavailable
from lockgate.gateway import store
from lockgate.gateway.model import ApiKey, Identity
from lockgate.project.limits import Allowance
from lockgate.storage.audit import record
from lockgate.storage.engine import Database

PREFIX = "lgk_"
FRESH = 2.0
"""Seconds an answer of the store is used without asking again, while the store is there."""
LEASE = 30.0
"""Seconds a key is believed after the store last confirmed it, while the store is away."""

GRACE = 86_400.0
"""Seconds that a key's old secret stays good after a rotation, where nothing else is said."""

_IDLE = 60.0  # seconds after its last use that a key is no longer asked about
_MAX_KNOWN = 10_000
_MAX_QUERY = 500


class _Known(NamedTuple):
    key: ApiKey
    identity: Identity
    confirmed_at: float


class Keys:
    """Creates, lists, revokes and recognises API keys. Safe to use from several threads."""

    def __init__(self, control: Database, clock: Clock) -> None:
        self._control = control
        self._clock = clock
        self._known: dict[str, _Known] = {}
        self._used_at: dict[str, float] = {}
        self._away = False

    def create(
        self,
        *,
        tenant: str,
        environment: str,
        name: str = "",
        roles: Sequence[str] = (),
        agents: Sequence[str] | None = None,
        models: Sequence[str] | None = None,
        tools: Sequence[str] | None = None,
        limits: Mapping[str, float] | None = None,
        expires_at: float | None = None,
        actor: str = "cli",
    ) -> tuple[str, ApiKey]:
        """A new key and its record. The key itself can never be read again.

        ``agents``, ``models`` and ``tools`` limit what it may call; None allows any. ``limits``: budgets and rates of
        its own, by the names of :class:`~lockgate.project.limits.Allowance`.
        """
        now = self._clock()
        for label, value in (("tenant", tenant), ("environment", environment)):
            if not value.strip():
                raise InputError(f"a key needs a {label}; this is {value!r}", remedy=f"name one with --{label}")
        if expires_at is not None and expires_at <= now:
            raise InputError("the key would have expired already", remedy="give a time in the future")
        key = ApiKey(
            id=ids.new_id("key"),
            name=name,
            tenant=tenant,
            environment=environment,
            roles=tuple(roles),
            agents=None if agents is None else tuple(agents),
            models=None if models is None else tuple(models),
            tools=None if tools is None else tuple(tools),
            limits=_limits(limits or {}),
            created_at=now,
            expires_at=expires_at,
        )
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._control.write() as connection:
            store.insert_key(connection, key, _hash(secret))
            record(
                connection,
                at=now,
                actor=actor,
                action="key.create",
                subject=key.id,
                details={"name": name, "tenant": tenant, "environment": environment},
            )
        return secret, key

    def all(self) -> list[ApiKey]:
        """Every key there ever was, oldest first."""
        with self._control.read() as connection:
            return store.keys(connection)

    def revoke(self, key_id: str, *, actor: str = "cli") -> None:
        """Refuse a key from now on: here at once, in other processes within two seconds."""
        now = self._clock()
        with self._control.write() as connection:
            if not store.revoke_key(connection, key_id, now):
                if any(key.id == key_id for key in store.keys(connection)):
                    return
                raise NotFound(f"no key {key_id!r}", remedy="lockgate keys list shows their ids")
            record(connection, at=now, actor=actor, action="key.revoke", subject=key_id)
        self._forget([known for known, entry in list(self._known.items()) if entry.key.id == key_id])

    def rotate(self, key_id: str, *, grace: float = GRACE, actor: str = "cli") -> tuple[str, ApiKey]:
        """A new secret for a key, which keeps its id, its limits and what it has spent. The old secret is good for
        ``grace`` seconds more; the one before that is not."""
        now = self._clock()
        if grace < 0:
            raise InputError(f"the grace time is {grace!r} seconds", remedy="give none, or some")
        secret = PREFIX + secrets.token_urlsafe(32)
        with self._control.write() as connection:
            key = next((key for key in store.keys(connection) if key.id == key_id), None)
            if key is None:
                raise NotFound(f"no key {key_id!r}", remedy="lockgate keys list shows their ids")
            if not store.rotate_key(connection, key_id, _hash(secret), now, now + grace):
                raise Conflict(f"the key {key_id!r} was revoked", remedy="lockgate keys create makes a new one")
            record(
                connection, at=now, actor=actor, action="key.rotate", subject=key_id, details={"grace_seconds": grace}
            )
        return secret, key

    def recall(self, secret: str) -> Identity | None:
        """Who this key is, from memory alone; None when the store has to be asked (:meth:`authenticate`)."""
        key_hash = _hash(secret)
        known = self._known.get(key_hash)
        if known is None:
            return None
        now = self._clock()
        if now - known.confirmed_at > (LEASE if self._away else FRESH):
            return None
        if known.key.expires_at is not None and known.key.expires_at <= now:
            return None
        self._used_at[key_hash] = now
        return known.identity

    def authenticate(self, secret: str) -> Identity:
        """Who this key is, asking the store when it has to; :class:`Unauthenticated` when it is not good."""
        identity = self.recall(secret)
        if identity is not None:
            return identity
        key_hash = _hash(secret)
        now = self._clock()
        try:
            with self._control.read() as connection:
                key = store.keys_by_hash(connection, [key_hash]).get(key_hash)
        except (SQLAlchemyError, Unavailable) as failure:
            self._away = True
            identity = self.recall(secret)
            if identity is not None:
                return identity
            raise Unavailable("the key cannot be checked: the store does not answer") from failure
        self._away = False
        if key is None or not _good(key, now):
            self._forget([key_hash])
            remedy = "lockgate keys create makes a new one"
            if key is not None and key.revoked_at is None and key.expires_at is not None:
                raise Expired("the API key", what="key", at=key.expires_at, remedy=remedy)
            raise Unauthenticated(f"the API key {'is unknown' if key is None else 'was revoked'}", remedy=remedy)
        if len(self._known) >= _MAX_KNOWN:
            self._forget(sorted(self._known, key=lambda known: self._used_at.get(known, 0.0))[: _MAX_KNOWN // 10])
        self._used_at[key_hash] = now
        self._known[key_hash] = _Known(key, key.identity(), now)
        return self._known[key_hash].identity

    def refresh(self) -> None:
        """Ask the store again about the keys in use. Call it a few times a second."""
        now = self._clock()
        self._forget([known for known in list(self._known) if now - self._used_at.get(known, 0.0) > _IDLE])
        hashes = list(self._known)
        try:
            for start in range(0, len(hashes), _MAX_QUERY):
                asked = hashes[start : start + _MAX_QUERY]
                with self._control.read() as connection:
                    found = store.keys_by_hash(connection, asked)
                for key_hash in asked:
                    key = found.get(key_hash)
                    if key is not None and _good(key, now):
                        self._known[key_hash] = _Known(key, key.identity(), now)
                    else:
                        self._forget([key_hash])
        except (SQLAlchemyError, Unavailable):
            self._away = True
            raise
        self._away = False

    def _forget(self, hashes: list[str]) -> None:
        for key_hash in hashes:
            self._known.pop(key_hash, None)
            self._used_at.pop(key_hash, None)


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _limits(given: Mapping[str, float]) -> tuple[tuple[str, float], ...]:
    """A key's own limits, in order; :class:`InputError` for one that there is not."""
    try:
        checked = Allowance.model_validate(dict(given))
    except ValidationError as wrong:
        first = wrong.errors()[0]
        raise InputError(
            f"the limit {first['loc'][0]!r} of a key is {given.get(str(first['loc'][0]))!r}: {first['msg']}",
            remedy=first.get("ctx", {}).get("remedy") or f"there are {', '.join(Allowance.model_fields)}",
        ) from None
    return tuple(sorted(checked.model_dump(exclude_none=True).items()))


def _good(key: ApiKey, now: float) -> bool:
    return key.revoked_at is None and (key.expires_at is None or key.expires_at > now)
