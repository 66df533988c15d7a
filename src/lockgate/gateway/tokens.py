"""Run tokens: short-lived, signed, carrying ids and limits. Pure.

``lgr_<claims>.<signature>``: the claims as JSON in base64url, and their BLAKE2b (RFC 7693) under the machine's secret,
which takes a tenth of an HMAC's time here: that one lets other threads run meanwhile, and then waits for its turn.
What is left of a limit is never in a token; it is looked up.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as BadBase64

import msgspec

from lockgate.errors import Expired, Unauthenticated
from lockgate.gateway.model import RunClaims

PREFIX = "lgr_"

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(RunClaims).decode


def sign(claims: RunClaims, secret: bytes) -> str:
    """The token that says ``claims``."""
    body = urlsafe_b64encode(_encode(claims)).rstrip(b"=")
    return f"{PREFIX}{body.decode()}.{_signature(body, secret)}"


def verify(token: str, secret: bytes, *, now: float) -> RunClaims:
    """The claims of a token signed with ``secret`` that has not expired, else :class:`Unauthenticated`
    (:class:`Expired` when that is why)."""
    body, _, signature = token.removeprefix(PREFIX).partition(".")
    if not token.startswith(PREFIX) or not signature or not body.isascii():
        raise Unauthenticated("the run token is malformed", remedy="send it as the host handed it out")
    expected = _signature(body.encode(), secret)
    if not hmac.compare_digest(signature.encode("utf-8", "replace"), expected.encode()):
        raise Unauthenticated("the run token's signature is wrong", remedy="tokens are valid on one machine only")
    try:
        claims = _decode(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (msgspec.DecodeError, BadBase64) as wrong:
        raise Unauthenticated("the run token was signed by another version of Lockgate") from wrong
    if claims.expires_at <= now:
        raise Expired(
            f"the token of run {claims.run_id!r}",
            what="run_token",
            at=claims.expires_at,
            remedy="it ends with the run's max_seconds: start another run; one that is resumed gets a new token",
        )
    return claims


def _signature(body: bytes, secret: bytes) -> str:
    digest = hashlib.blake2b(body, key=secret, digest_size=32, person=b"lockgate run").digest()
    return urlsafe_b64encode(digest).rstrip(b"=").decode()
