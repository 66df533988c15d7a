"""Tokens of an OpenID Connect provider: a real server on this machine, with keys that rotate."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from lockgate.errors import Expired, Unauthenticated, Unavailable
from lockgate.gateway import issued
from lockgate.gateway.issued import ASK_AGAIN, BELIEVED, KEYS_KEPT, Tokens
from lockgate.project.identity import Issuer
from lockgate.testing import FakeClock

NOW = 1_795_000_000.0


class Provider:
    """An OpenID Connect provider with a document of its configuration, and its public keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.asked: list[str] = []
        self.broken = False
        provider = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                provider.asked.append(self.path)
                if provider.broken:
                    self.send_error(500)
                    return
                body = json.dumps(provider.document(self.path)).encode()
                self.send_response(200)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self.says_issuer = self.url
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def document(self, path: str) -> Any:
        if path == "/.well-known/openid-configuration":
            return {"issuer": self.says_issuer, "jwks_uri": self.url + "/keys"}
        published = []
        for kid, key in self.keys.items():
            kind = jwt.algorithms.RSAAlgorithm if isinstance(key, rsa.RSAPrivateKey) else jwt.algorithms.ECAlgorithm
            published.append({**kind.to_jwk(key.public_key(), as_dict=True), "kid": kid, "use": "sig"})
        return {"keys": [*published, {"kty": "oct", "kid": "shared", "k": "c2VjcmV0"}, "nonsense"]}

    def token(self, kid: str = "one", *, algorithm: str = "RS256", key: Any = None, **claims: Any) -> str:
        body = {
            "iss": self.url, "aud": "lockgate", "sub": "ann", "iat": int(NOW), "exp": int(NOW) + 600,
            "org": {"id": "acme"}, "agents": ["triage"], **claims,
        }  # fmt: skip
        body = {name: value for name, value in body.items() if value is not None}
        return jwt.encode(body, key or self.keys[kid], algorithm=algorithm, headers={"kid": kid})


@pytest.fixture(scope="module")
def rsa_keys() -> list[rsa.RSAPrivateKey]:
    return [rsa.generate_private_key(65537, 2048) for _ in range(2)]


@pytest.fixture
def provider(rsa_keys: list[rsa.RSAPrivateKey], monkeypatch: pytest.MonkeyPatch) -> Iterator[Provider]:
    monkeypatch.setattr(issued, "FETCH_SECONDS", 60.0)
    made = Provider()
    made.keys["one"] = rsa_keys[0]
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(NOW)


@pytest.fixture
def tokens(provider: Provider, clock: FakeClock) -> Tokens:
    issuers = [
        Issuer.model_validate(
            {
                "issuer": provider.url,
                "audience": "lockgate",
                "environment": "prod",
                "claims": {"tenant": "org.id", "agents": "agents", "roles": "roles"},
            }
        )
    ]
    return Tokens(lambda: issuers, clock)


def test_a_tokens_claims_say_who_it_is(provider: Provider, tokens: Tokens) -> None:
    token = provider.token(roles="reader writer")
    assert tokens.recall(token) is None
    identity = tokens.authenticate(token)
    assert (identity.tenant, identity.environment, identity.agents, identity.models) == (
        "acme", "prod", ("triage",), None,
    )  # fmt: skip
    assert identity.roles == ("reader", "writer")
    assert identity.key_id.startswith("jwt:")
    assert tokens.recall(token) is identity


def test_a_claim_that_is_asked_for_and_missing_allows_nothing(provider: Provider, tokens: Tokens) -> None:
    assert tokens.authenticate(provider.token(agents=None)).agents == ()


def test_keys_are_fetched_once(provider: Provider, tokens: Tokens) -> None:
    for subject in ("ann", "bob", "eve"):
        tokens.authenticate(provider.token(sub=subject))
    assert provider.asked == ["/.well-known/openid-configuration", "/keys"]


def test_a_rotated_key_is_found_and_the_old_one_is_not_missed(
    provider: Provider, tokens: Tokens, clock: FakeClock, rsa_keys: list[rsa.RSAPrivateKey]
) -> None:
    old = provider.token()
    tokens.authenticate(old)
    provider.keys = {"two": rsa_keys[1]}
    clock.advance(ASK_AGAIN)
    assert tokens.authenticate(provider.token("two")).tenant == "acme"
    clock.advance(BELIEVED)
    assert tokens.recall(old) is None
    with pytest.raises(Unauthenticated, match="the issuer has no key 'one'"):
        tokens.authenticate(old)


def test_made_up_key_ids_ask_the_issuer_for_little(provider: Provider, tokens: Tokens, clock: FakeClock) -> None:
    tokens.authenticate(provider.token())
    before = len(provider.asked)
    for number in range(20):
        with pytest.raises(Unauthenticated, match="has no key"):
            tokens.authenticate(provider.token(f"made-up-{number}", key=provider.keys["one"]))
    assert len(provider.asked) == before
    clock.advance(ASK_AGAIN)
    with pytest.raises(Unauthenticated, match="has no key"):
        tokens.authenticate(provider.token("made-up", key=provider.keys["one"]))
    assert len(provider.asked) == before + 2


def test_an_issuer_that_is_away_leaves_its_keys_good_for_a_day(
    provider: Provider, tokens: Tokens, clock: FakeClock
) -> None:
    tokens.authenticate(provider.token())
    provider.broken = True
    clock.advance(KEYS_KEPT - 60)
    tokens.authenticate(provider.token(iat=int(clock()), exp=int(clock()) + 9))
    clock.advance(120)
    with pytest.raises(Unavailable, match="cannot be had"):
        tokens.authenticate(provider.token(iat=int(clock()), exp=int(clock()) + 9))


def unsigned(claims: dict[str, Any]) -> str:
    def part(value: Any) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'kid': 'one'})}.{part(claims)}."


BAD: dict[str, tuple[Callable[[Provider], str], str]] = {
    "expired": (lambda p: p.token(exp=int(NOW) - 31), "has expired"),
    "not yet": (lambda p: p.token(nbf=int(NOW) + 31), "not good yet"),
    "from the future": (lambda p: p.token(iat=int(NOW) + 31), "not good yet"),
    "no expiry": (lambda p: p.token(exp=None), "exp"),
    "another audience": (lambda p: p.token(aud="other"), "[Aa]udience"),
    "no audience": (lambda p: p.token(aud=None), "aud"),
    "another issuer": (lambda p: p.token(iss="https://evil.example"), "nobody trusts the issuer"),
    "no tenant": (lambda p: p.token(org=None), "names no tenant"),
    "a shared secret": (lambda p: p.token(algorithm="HS256", key="x" * 32), "is signed by 'HS256'"),
    "an algorithm not listed": (lambda p: p.token(algorithm="PS256"), "is signed by 'PS256'"),
    "a symmetric key's id": (lambda p: p.token("shared", key=p.keys["one"]), "has no key 'shared'"),
    "somebody else's key": (
        lambda p: p.token(key=rsa.generate_private_key(65537, 2048)), "[Ss]ignature verification failed"
    ),
    "another kind of key": (
        lambda p: p.token(algorithm="ES256", key=ec.generate_private_key(ec.SECP256R1())), "signs by RS256, not ES256"
    ),
    "unsigned": (lambda p: unsigned({"iss": p.url, "aud": "lockgate", "exp": NOW + 60}), "is signed by 'none'"),
    "no token": (lambda p: "ey.x.y", "no JSON Web Token"),
    "endless": (lambda p: p.token(sub="x" * 20_000), "at most 16384"),
    "deep": (lambda p: base64.urlsafe_b64encode(b"[" * 5_000).decode() + ".e30.x", "no JSON Web Token"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_token_is_refused(provider: Provider, tokens: Tokens, kind: str) -> None:
    make, why = BAD[kind]
    with pytest.raises(Unauthenticated, match=why):
        tokens.authenticate(make(provider))


def test_an_altered_token_is_refused(provider: Provider, tokens: Tokens) -> None:
    head, body, signature = provider.token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    claims["org"] = {"id": "other"}
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    with pytest.raises(Unauthenticated, match=r"[Ss]ignature verification failed"):
        tokens.authenticate(f"{head}.{forged}.{signature}")


def test_a_configuration_of_another_issuer_is_not_taken(provider: Provider, tokens: Tokens) -> None:
    provider.says_issuer = "https://other.example"
    with pytest.raises(Unavailable, match="cannot be had"):
        tokens.authenticate(provider.token())


def test_an_elliptic_key_counts_where_it_is_listed(provider: Provider, tokens: Tokens) -> None:
    provider.keys["curve"] = ec.generate_private_key(ec.SECP256R1())
    assert tokens.authenticate(provider.token("curve", algorithm="ES256")).tenant == "acme"


def test_a_token_is_believed_no_longer_than_it_lasts(provider: Provider, tokens: Tokens, clock: FakeClock) -> None:
    token = provider.token(exp=int(NOW) + 1)
    tokens.authenticate(token)
    clock.advance(31.5)
    assert tokens.recall(token) is None
    with pytest.raises(Unauthenticated, match="has expired"):
        tokens.authenticate(token)


def test_a_token_that_is_older_than_its_issuer_allows_has_expired(provider: Provider, clock: FakeClock) -> None:
    issuer = Issuer(issuer=provider.url, audience="lockgate", environment="prod", max_age=60)
    with pytest.raises(Expired, match="which counts for 60 seconds at most, has expired, at"):
        Tokens(lambda: [issuer], clock).authenticate(provider.token(iat=int(NOW) - 91, tenant="acme"))


def test_an_issuer_taken_out_of_the_file_is_trusted_no_more(provider: Provider, clock: FakeClock) -> None:
    trusted = [Issuer(issuer=provider.url, audience="lockgate", environment="prod")]
    tokens = Tokens(lambda: trusted, clock)
    token = provider.token(tenant="acme")
    tokens.authenticate(token)
    trusted = []
    assert tokens.recall(token) is None
    with pytest.raises(Unauthenticated, match="nobody trusts"):
        tokens.authenticate(token)


@pytest.mark.parametrize("address", ["http://login.example.com", "file:///etc/passwd", "https://"])
def test_an_issuer_is_reached_by_https_only(address: str) -> None:
    with pytest.raises(ValueError, match="is no https address"):
        Issuer(issuer=address, audience="lockgate", environment="prod")


def test_calls_are_served_under_a_token(gateway: Any, model: Any, provider: Provider) -> None:
    issuer = Issuer.model_validate(
        {"issuer": provider.url, "audience": "lockgate", "environment": "dev",
         "claims": {"tenant": "org.id", "models": "models"}}
    )  # fmt: skip
    gateway.app.project.config = gateway.app.project.config.model_copy(update={"issuers": [issuer]})
    times = {"iat": int(time.time()), "exp": int(time.time()) + 60}
    assert gateway.ask(provider.token(models=["fake/fake-model"], **times))[0] == 200
    status, _, body = gateway.ask(provider.token(models=["other/model"], **times))
    assert (status, json.loads(body)["error"]["code"]) == (403, "refused")
    assert gateway.ask(provider.token(exp=int(time.time()) - 60))[0] == 401
    accounts = {balance.account for balance in gateway.balances()}
    assert "tenant:dev:acme" in accounts
