"""API keys in a real store: shown once, hashed, revoked in time, believed on a lease."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from sqlalchemy import Connection, select
from sqlalchemy.exc import OperationalError

from lockgate.errors import Conflict, InputError, NotFound, Unauthenticated, Unavailable
from lockgate.gateway.keys import FRESH, LEASE, Keys
from lockgate.storage import audit
from lockgate.storage.engine import Database
from lockgate.storage.schema import api_keys
from lockgate.testing import FakeClock

NOW = 1_795_000_000.0


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


def test_a_rotated_key_has_two_secrets_for_a_while(control: Database) -> None:
    clock = FakeClock(NOW)
    keys = Keys(control, clock)
    old, key = keys.create(tenant="acme", environment="prod", limits={"daily_usd": 5, "concurrent": 2})
    other = Keys(control, clock)  # another worker
    assert other.authenticate(old).key_id == key.id
    new, rotated = keys.rotate(key.id, grace=60.0)
    assert new != old
    assert rotated.id == key.id
    assert {keys.authenticate(secret).key_id for secret in (old, new)} == {key.id}
    assert keys.authenticate(new).limits == (("concurrent", 2), ("daily_usd", 5))
    clock.advance(59.0)
    other.refresh()
    assert other.authenticate(old).key_id == key.id
    clock.advance(2.0)
    other.refresh()
    for worker in (keys, other):
        with pytest.raises(Unauthenticated, match="has expired"):
            worker.authenticate(old)
        assert worker.authenticate(new).key_id == key.id


def test_the_secret_before_the_last_is_refused(control: Database) -> None:
    keys = Keys(control, FakeClock(NOW))
    first, key = keys.create(tenant="acme", environment="prod")
    keys.rotate(key.id)
    keys.rotate(key.id)
    with pytest.raises(Unauthenticated, match="is unknown"):
        Keys(control, FakeClock(NOW)).authenticate(first)


def test_a_revoked_key_is_refused_by_both_its_secrets_and_is_not_rotated(control: Database) -> None:
    keys = Keys(control, FakeClock(NOW))
    old, key = keys.create(tenant="acme", environment="prod")
    new, _ = keys.rotate(key.id)
    keys.revoke(key.id)
    for secret in (old, new):
        with pytest.raises(Unauthenticated, match="was revoked"):
            keys.authenticate(secret)
    with pytest.raises(Conflict, match="was revoked"):
        keys.rotate(key.id)


def test_a_limit_that_there_is_not_is_an_error(control: Database) -> None:
    with pytest.raises(InputError, match="the limit 'hourly_usd' of a key is 3"):
        Keys(control, FakeClock(NOW)).create(tenant="acme", environment="prod", limits={"hourly_usd": 3})
    with pytest.raises(InputError, match="'requests_per_minute' of a key is 0: a rate is above 0") as refused:
        Keys(control, FakeClock(NOW)).create(tenant="acme", environment="prod", limits={"requests_per_minute": 0})
    assert "`calls: 0`" in str(refused.value.remedy)
