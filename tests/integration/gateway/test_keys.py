"""API keys in a real store: shown once, hashed, revoked in time, believed on a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from lockgate.errors import InputError, NotFound, Unauthenticated, Unavailable
from lockgate.gateway.keys import FRESH, LEASE, Keys
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.storage.schema import api_keys
from lockgate.testing import FakeClock


class Store:
    """A control database that can go away."""

    def __init__(self, control: Database) -> None:
        self._control = control
        self.away = False
        self.reads = 0

    @contextmanager
    def read(self) -> Iterator[Connection]:
        self.reads += 1
        if self.away:
            raise OperationalError("select", {}, Exception("the server is gone"))
        with self._control.read() as connection:
            yield connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._control, name)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(control: Database) -> Store:
    return Store(control)


@pytest.fixture
def keys(store: Store, clock: FakeClock) -> Keys:
    return Keys(store, clock)  # type: ignore[arg-type]


def create(keys: Keys, **options: Any) -> str:
    return keys.create(**{"tenant": "acme", "environment": "prod", **options})[0]


def test_a_key_is_recognised_with_what_it_may_do(keys: Keys) -> None:
    secret, key = keys.create(tenant="acme", environment="prod", roles=["support"], agents=["triage"], models=[])
    identity = keys.authenticate(secret)
    assert (identity.key_id, identity.tenant, identity.environment) == (key.id, "acme", "prod")
    assert (identity.roles, identity.agents, identity.models) == (("support",), ("triage",), ())


def test_the_secret_is_nowhere_in_the_store(keys: Keys, control: Database) -> None:
    secret = create(keys)
    with control.read() as connection:
        stored = repr(connection.execute(select(api_keys)).all())
    assert secret not in stored
    assert secret.removeprefix("lgk_") not in stored


def test_keys_are_listed_with_the_revoked_ones(keys: Keys, clock: FakeClock) -> None:
    first = keys.create(tenant="acme", environment="prod")[1]
    clock.advance(1)
    second = keys.create(tenant="other", environment="dev")[1]
    keys.revoke(first.id)
    assert [(key.id, key.revoked_at is not None) for key in keys.all()] == [(first.id, True), (second.id, False)]


@pytest.mark.parametrize("secret", ["", "lgk_", "lgk_wrong", "sk-other"])
def test_an_unknown_key_is_refused(keys: Keys, secret: str) -> None:
    with pytest.raises(Unauthenticated, match="unknown"):
        keys.authenticate(secret)


def test_a_key_expires_also_from_memory(keys: Keys, clock: FakeClock) -> None:
    secret = create(keys, expires_at=clock() + 1.5)
    assert keys.recall(secret) is None
    keys.authenticate(secret)
    assert keys.recall(secret) is not None
    clock.advance(1.5)
    assert keys.recall(secret) is None
    with pytest.raises(Unauthenticated, match="expired"):
        keys.authenticate(secret)


def test_a_revoked_key_is_refused_at_once_here_and_within_two_seconds_elsewhere(
    keys: Keys, control: Database, clock: FakeClock
) -> None:
    secret, key = keys.create(tenant="acme", environment="prod")
    elsewhere = Keys(control, clock)
    elsewhere.authenticate(secret)
    keys.revoke(key.id)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.authenticate(secret)
    clock.advance(FRESH + 0.01)
    with pytest.raises(Unauthenticated, match="revoked"):
        elsewhere.authenticate(secret)


def test_a_refresh_notices_a_revocation(keys: Keys, control: Database, clock: FakeClock) -> None:
    secret, key = keys.create(tenant="acme", environment="prod")
    elsewhere = Keys(control, clock)
    elsewhere.authenticate(secret)
    keys.revoke(key.id)
    elsewhere.refresh()
    assert elsewhere.recall(secret) is None


def test_a_key_in_use_is_answered_from_memory(keys: Keys, store: Store, clock: FakeClock) -> None:
    secret = create(keys)
    keys.authenticate(secret)
    before = store.reads
    for _ in range(20):
        clock.advance(0.5)
        keys.refresh()
        before += 1
        assert keys.recall(secret) is not None
    assert store.reads == before


def test_a_key_not_used_for_a_while_is_no_longer_asked_about(keys: Keys, store: Store, clock: FakeClock) -> None:
    keys.authenticate(create(keys))
    clock.advance(61)
    before = store.reads
    keys.refresh()
    assert store.reads == before


def test_while_the_store_is_away_a_key_is_good_until_its_lease_lapses(
    keys: Keys, store: Store, clock: FakeClock
) -> None:
    secret = create(keys)
    keys.authenticate(secret)
    store.away = True
    clock.advance(LEASE - 1)
    with pytest.raises(OperationalError):
        keys.refresh()
    assert keys.authenticate(secret).tenant == "acme"
    clock.advance(1.1)
    with pytest.raises(Unavailable, match="store does not answer"):
        keys.authenticate(secret)


def test_a_key_never_seen_is_refused_while_the_store_is_away(keys: Keys, store: Store) -> None:
    secret = create(keys)
    store.away = True
    with pytest.raises(Unavailable):
        keys.authenticate(secret)


def test_when_the_store_is_back_revocations_count_again(keys: Keys, store: Store, clock: FakeClock) -> None:
    secret, key = keys.create(tenant="acme", environment="prod")
    keys.authenticate(secret)
    store.away = True
    clock.advance(5)
    keys.authenticate(secret)
    store.away = False
    Keys(store, clock).revoke(key.id)  # type: ignore[arg-type]
    keys.refresh()
    with pytest.raises(Unauthenticated):
        keys.authenticate(secret)


def test_revoking_twice_is_no_error_and_an_unknown_id_is(keys: Keys) -> None:
    key = keys.create(tenant="acme", environment="prod")[1]
    keys.revoke(key.id)
    keys.revoke(key.id)
    with pytest.raises(NotFound, match="key_nope"):
        keys.revoke("key_nope")


def test_making_and_revoking_a_key_is_in_the_audit_log_without_the_secret(keys: Keys, control: Database) -> None:
    secret, key = keys.create(tenant="acme", environment="prod")
    keys.revoke(key.id)
    with control.read() as connection:
        assert audit.verify(connection) == 2
        assert secret not in repr(connection.execute(select(audit.audit)).all())


@pytest.mark.parametrize(
    ("options", "named"),
    [({"tenant": " "}, "tenant"), ({"environment": ""}, "environment"), ({"expires_at": 1.0}, "expired already")],
)
def test_a_wrong_key_is_not_made(keys: Keys, options: dict[str, Any], named: str) -> None:
    with pytest.raises(InputError, match=named):
        create(keys, **options)
    assert keys.all() == []


def test_memory_is_bounded(keys: Keys, monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    monkeypatch.setattr("lockgate.gateway.keys._MAX_KNOWN", 10)
    secrets = []
    for _ in range(12):
        secrets.append(create(keys))
        clock.advance(0.01)
        keys.authenticate(secrets[-1])
    assert len(keys._known) <= 10
    assert keys.recall(secrets[-1]) is not None
    assert keys.recall(secrets[0]) is None
