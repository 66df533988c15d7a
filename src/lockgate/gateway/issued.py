"""JSON Web Tokens of the issuers that ``lockgate.yaml`` trusts, turned into identities (OpenID Connect).

An issuer's keys are fetched once and kept; a token under a key that is not among them has them fetched again, at most
every ten seconds, so that a rotated key is found and a flood of made-up key ids asks the issuer for little. When the
issuer does not answer, the keys it had stay good for a day. What was verified is believed for a minute, or until the
token expires when that is sooner: a token cannot be revoked, so let them be short-lived.
"""

from __future__ import annotations

import hashlib
import threading
import urllib.request
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import Expired, LockgateError, MissingExtra, Unauthenticated, Unavailable
from lockgate.gateway.model import Identity
from lockgate.project.identity import Issuer

if TYPE_CHECKING:
    from jwt import PyJWK

BELIEVED = 60.0
"""Seconds a token that was verified is not verified again."""
KEYS_FRESH = 3600.0
"""Seconds after which an issuer's keys are fetched again, used or not."""
KEYS_KEPT = 86_400.0
"""Seconds that keys stay good when their issuer does not answer."""
ASK_AGAIN = 10.0
"""Seconds between two questions to an issuer, at least."""
FETCH_SECONDS = 3.0
MAX_TOKEN = 16_384
_MAX_BYTES = 1 << 20
_MAX_KNOWN = 10_000

Fetch = Callable[[str], bytes]


class Tokens:
    """Recognises tokens. ``issuers`` gives those trusted now. Safe to use from several threads."""

    def __init__(self, issuers: Callable[[], list[Issuer]], clock: Clock, fetch: Fetch | None = None) -> None:
        self._issuers = issuers
        self._clock = clock
        self._fetch = fetch or _fetch
        self._known: dict[bytes, tuple[Identity, float, list[Issuer]]] = {}
        self._keys: dict[str, _IssuerKeys] = {}
        self._lock = threading.Lock()

    def recall(self, token: str) -> Identity | None:
        """Whose token it is, from memory alone; None when it has to be verified (:meth:`authenticate`)."""
        known = self._known.get(hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest())
        if known is None or known[1] <= self._clock() or known[2] is not self._issuers():
            return None
        return known[0]

    def authenticate(self, token: str) -> Identity:
        """Whose token it is; :class:`Unauthenticated` when it is not good, Unavailable when that cannot be told.

        Blocks while an issuer is asked for its keys.
        """
        try:
            import jwt
        except ImportError as missing:
            raise MissingExtra("recognising JSON Web Tokens", "oidc") from missing
        issuers = self._issuers()
        if len(token) > MAX_TOKEN:
            raise Unauthenticated(f"the token has {len(token)} characters; at most {MAX_TOKEN} are read")
        try:
            header = jwt.get_unverified_header(token)
            claimed = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except (jwt.PyJWTError, RecursionError) as wrong:
            raise Unauthenticated(f"this is no JSON Web Token: {wrong}") from wrong
        issuer = next((one for one in issuers if one.issuer == claimed), None)
        if issuer is None:
            raise Unauthenticated(
                f"nobody trusts the issuer {str(claimed)[:200]!r} here", remedy="name it in `issuers` of lockgate.yaml"
            )
        if header.get("alg") not in issuer.algorithms:
            raise Unauthenticated(
                f"the token is signed by {str(header.get('alg'))[:40]!r}",
                remedy=f"{issuer.issuer} signs by {', '.join(issuer.algorithms)}",
            )
        key = self._key(issuer, header.get("kid"), str(header["alg"]))
        now = self._clock()
        try:
            claims = jwt.decode(
                token,
                key.key,
                algorithms=list(issuer.algorithms),
                audience=issuer.audience,
                issuer=issuer.issuer,
                options={"require": ["exp", "iat", "sub"], "verify_exp": False, "verify_nbf": False,
                         "verify_iat": False},
            )  # fmt: skip
        except (jwt.PyJWTError, RecursionError) as wrong:
            raise Unauthenticated(f"the token is not good: {wrong}") from wrong
        until = _in_time(claims, issuer, now)
        identity = _identity(claims, issuer)
        with self._lock:
            if len(self._known) >= _MAX_KNOWN:
                self._known.clear()
            believed = min(now + BELIEVED, until)
            self._known[hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()] = (identity, believed, issuers)
        return identity

    def _key(self, issuer: Issuer, kid: Any, algorithm: str) -> PyJWK:
        with self._lock:
            keys = self._keys.get(issuer.issuer)
            if keys is None or keys.issuer != issuer:
                keys = self._keys[issuer.issuer] = _IssuerKeys(issuer, self._fetch)
        return keys.find(kid, algorithm, self._clock())


class _IssuerKeys:
    """One issuer's keys, as it last published them."""

    def __init__(self, issuer: Issuer, fetch: Fetch) -> None:
        self.issuer = issuer
        self._fetch = fetch
        self._keys: dict[str | None, PyJWK] = {}
        self._fetched_at = self._asked_at = float("-inf")
        self._lock = threading.Lock()

    def find(self, kid: Any, algorithm: str, now: float) -> PyJWK:
        with self._lock:
            key = self._keys.get(kid)
            stale = now - self._fetched_at > KEYS_FRESH
            if (key is None or stale) and now - self._asked_at >= ASK_AGAIN:
                self._asked_at = now
                try:
                    self._keys = self._published()
                    self._fetched_at = now
                except (OSError, ValueError, LockgateError) as away:
                    if now - self._fetched_at > KEYS_KEPT:
                        self._keys = {}
                        raise Unavailable(
                            f"the keys of {self.issuer.issuer} cannot be had: {away}",
                            remedy="see that the issuer answers, and that its address is right",
                        ) from away
                key = self._keys.get(kid)
        if key is None:
            if self._fetched_at == float("-inf"):
                raise Unavailable(f"the keys of {self.issuer.issuer} cannot be had")
            raise Unauthenticated(f"the issuer has no key {str(kid)[:80]!r}", remedy="get a new token")
        if key.algorithm_name not in (None, algorithm):
            raise Unauthenticated(f"the key {str(kid)[:80]!r} signs by {key.algorithm_name}, not {algorithm}")
        return key

    def _published(self) -> dict[str | None, PyJWK]:
        import jwt

        place = self.issuer.jwks
        if place is None:
            found = _object(self._fetch(self.issuer.issuer.rstrip("/") + "/.well-known/openid-configuration"))
            if found.get("issuer") != self.issuer.issuer:
                raise ValueError(f"its configuration is of {found.get('issuer')!r}")
            place = str(found.get("jwks_uri"))
            Issuer.model_validate({**self.issuer.model_dump(), "jwks": place})  # https, or this machine
        keys: dict[str | None, PyJWK] = {}
        for one in _object(self._fetch(place)).get("keys") or ():
            if not isinstance(one, Mapping) or one.get("use") not in (None, "sig") or one.get("kty") == "oct":
                continue
            try:
                keys[one.get("kid")] = jwt.PyJWK(dict(one))
            except jwt.PyJWTError:
                continue  # of a kind that is not known here
        return keys


def _in_time(claims: Mapping[str, Any], issuer: Issuer, now: float) -> float:
    """When the token expires; Unauthenticated when it is not yet, or no longer, good."""
    times: dict[str, float] = {}
    for name in ("exp", "iat", "nbf"):
        value = claims.get(name, 0 if name == "nbf" else None)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise Unauthenticated(f"the token's {name!r} is {str(value)[:40]!r}, which is no time")
        times[name] = float(value)
    if times["exp"] + issuer.leeway <= now:
        raise Expired("the token", what="token", at=times["exp"], remedy="get a new one")
    if max(times["nbf"], times["iat"]) - issuer.leeway > now:
        raise Unauthenticated("the token is not good yet", remedy="see that the clocks agree")
    until = times["exp"] + issuer.leeway
    if issuer.max_age is not None:
        until = min(until, times["iat"] + issuer.max_age + issuer.leeway)
        if until <= now:
            shown = f"the token, which counts for {issuer.max_age:g} seconds at most,"
            raise Expired(shown, what="token", at=times["iat"] + issuer.max_age, remedy="get a new one")
    return until


def _identity(claims: Mapping[str, Any], issuer: Issuer) -> Identity:
    names = issuer.claims
    tenant = _claim(claims, names.tenant)
    if not isinstance(tenant, str) or not tenant.strip():
        raise Unauthenticated(f"the token's claim {names.tenant!r} names no tenant")
    subject = claims["sub"]
    return Identity(
        key_id=f"jwt:{hashlib.sha256(f'{issuer.issuer} {subject}'.encode()).hexdigest()[:16]}",
        tenant=tenant,
        environment=issuer.environment,
        roles=_names(claims, names.roles) or (),
        agents=_names(claims, names.agents),
        models=_names(claims, names.models),
        tools=_names(claims, names.tools),
    )


def _names(claims: Mapping[str, Any], name: str | None) -> tuple[str, ...] | None:
    """A list of names; None where no claim is asked for. A claim that is asked for and missing allows nothing."""
    if name is None:
        return None
    value = _claim(claims, name)
    if isinstance(value, str):
        value = value.split()
    return tuple(str(one) for one in value) if isinstance(value, list) else ()


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if name in claims:  # such as https://example.com/tenant
        return claims[name]
    value: Any = claims
    for step in name.split("."):
        value = value.get(step) if isinstance(value, Mapping) else None
    return value


def _object(data: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as wrong:
        raise ValueError(f"it answered with no JSON: {wrong}") from wrong
    if not isinstance(value, dict):
        raise ValueError("it answered with no JSON object")
    return value


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def _fetch(url: str) -> bytes:
    request = urllib.request.Request(url, headers={"accept": "application/json"})  # noqa: S310 (https, see Issuer)
    with urllib.request.build_opener(_NoRedirect).open(request, timeout=FETCH_SECONDS) as answer:
        data: bytes = answer.read(_MAX_BYTES + 1)
    if len(data) > _MAX_BYTES:
        raise ValueError(f"it answered with more than {_MAX_BYTES} bytes")
    return data
