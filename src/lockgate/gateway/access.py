"""Who is calling: an API key or a run token, turned into an identity."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from lockgate.clock import Clock
from lockgate.errors import Refused, Unauthenticated, Unavailable
from lockgate.gateway import keys, tokens
from lockgate.gateway.issued import Tokens
from lockgate.gateway.keys import Keys
from lockgate.gateway.model import Identity
from lockgate.limits.actions import UNSEEN

_STORE_SECONDS = 5.0  # to answer about a key that is not in memory


class Access:
    """Recognises callers. ``secret`` is this machine's, under which run tokens are signed."""

    def __init__(self, keys: Keys, secret: bytes, clock: Clock, issued: Tokens | None = None) -> None:
        self._keys = keys
        self._issued = issued
        self._secret = secret
        self._clock = clock

    def recall(self, credential: str) -> Identity | None:
        """The identity, without waiting for anything; None when the store has to be asked (:meth:`ask`)."""
        if credential.startswith(tokens.PREFIX):
            claims = tokens.verify(credential, self._secret, now=self._clock())
            return Identity(
                key_id=claims.origin.key or claims.run_id,
                tenant=claims.tenant,
                environment=claims.environment,
                limits=claims.origin.key_limits,
                run=claims,
            )
        if not credential.startswith(keys.PREFIX):
            if self._is_issued(credential):
                assert self._issued is not None
                return self._issued.recall(credential)
            raise Unauthenticated("this is no Lockgate key", remedy="lockgate keys create makes one")
        return self._keys.recall(credential)

    async def ask(self, credential: str) -> Identity:
        """The identity of a key that is not in memory. The store is asked in a thread."""
        try:
            async with asyncio.timeout(_STORE_SECONDS):
                if self._is_issued(credential):
                    assert self._issued is not None
                    return await asyncio.to_thread(self._issued.authenticate, credential)
                return await asyncio.to_thread(self._keys.authenticate, credential)
        except TimeoutError as late:
            raise Unavailable("the key cannot be checked: the store does not answer") from late

    def _is_issued(self, credential: str) -> bool:
        """Whether it looks like a JSON Web Token, and there are issuers of such."""
        return self._issued is not None and credential.startswith("ey") and credential.count(".") == 2


def check_model(identity: Identity, model: str) -> None:
    """:class:`Refused` when the key may not call this model."""
    if identity.models is not None and model not in identity.models:
        raise Refused(f"this key may not call the model {model!r}", remedy=f"it may call {_list(identity.models)}")


def check_agent(identity: Identity, agent: str) -> None:
    """:class:`Refused` when the key may not run this agent."""
    if identity.agents is not None and agent not in identity.agents:
        raise Refused(f"this key may not run the agent {agent!r}", remedy=f"it may run {_list(identity.agents)}")


def check_tools(identity: Identity, names: Iterable[str]) -> None:
    """:class:`Refused` when a call offers the model a tool that the key, or the run's caller, may not have called."""
    allowed = identity.tools if identity.run is None else identity.run.tools
    if allowed is None:
        return
    for name in names:
        if name in allowed:
            continue
        if name.startswith(UNSEEN):
            what = name.removeprefix(UNSEEN)
            raise Refused(
                f"{what!r} can bring tools that cannot be seen here, and this key may use those of its list only",
                remedy=f"leave {what!r} out, or use a key with {name!r} in its list",
            )
        raise Refused(f"this key may not use the tool {name!r}", remedy=f"it may use {_list(allowed)}")


def _list(names: tuple[str, ...]) -> str:
    return ", ".join(names) or "none"
