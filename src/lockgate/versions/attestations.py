"""Signed verdicts of one project: made here or brought from elsewhere, kept, and held against a policy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.project.service import environment_policy
from lockgate.storage.blobs import BlobStore
from lockgate.versions import layout
from lockgate.versions.model import Attestation, VersionRef, Yardstick

if TYPE_CHECKING:
    from lockgate.storage.engine import Database
    from lockgate.versions.trust import GateAnswer


class KeptVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """One verdict in the store. ``trusted``: the environments in which its signature counts now."""

    attestation: Attestation  # its signer is what the envelope claims
    signer: str
    trusted: tuple[str, ...]
    envelope: dict[str, Any]


class Attestations:
    """The attestations of one project."""

    def __init__(self, project: Project, control: Database, blobs: BlobStore, clock: Clock) -> None:
        self.project = project
        self.control = control
        self.blobs = blobs
        self.clock = clock

    def sign(self, attestation: Attestation) -> dict[str, Any]:
        """Sign with this machine's key, keep, and attach to the bundle; returns the envelope."""
        from lockgate.versions.attestation import sign
        from lockgate.versions.signing import signing_key

        envelope = sign(attestation, signing_key(self.project.home))
        behaviour = attestation.behaviour_digest
        if behaviour in self.blobs:
            data = msgspec.json.encode(envelope)
            layout.attach(self.blobs, self.project.home, behaviour, layout.ATTESTATION, "attestation.json", data)
        self._save(attestation, envelope)
        return envelope

    def add(self, envelopes: Iterable[Mapping[str, Any]], *, behaviour: str | None = None) -> list[Attestation]:
        """Keep envelopes that were made elsewhere; who signed them is asked when they are used, not now.

        Returns those that were new. Raises :class:`InputError` for what is no gate attestation, or is about another
        behaviour than ``behaviour``. Nothing is kept unless all are good.
        """
        from lockgate.versions.attestation import read

        claims = []
        for envelope in envelopes:
            claim = read(envelope)
            if claim is None:
                raise InputError("this is no gate attestation", remedy="give what `lockgate attest show --json` prints")
            if behaviour is not None and claim.attestation.behaviour_digest != behaviour:
                about = claim.attestation.behaviour_digest
                raise InputError(
                    f"attestation {claim.attestation.id!r} is about {about}, not {behaviour}",
                    remedy="ask who pushed it; it is not used",
                )
            claims.append((claim.attestation, dict(envelope)))
        return [attestation for attestation, envelope in claims if self._save(attestation, envelope)]

    def _save(self, attestation: Attestation, envelope: dict[str, Any]) -> bool:
        from lockgate.versions import store

        with self.control.write() as connection:
            if any(kept == envelope for _, kept in store.envelopes(connection, attestation.effective_digest)):
                return False
            # An id is what its maker says; one that is taken by another verdict must not keep this one out.
            name = attestation.id
            if store.has_attestation(connection, name):
                name += "-" + hashlib.sha256(msgspec.json.encode(envelope)).hexdigest()[:12]
            row = {
                "id": name,
                "effective_digest": attestation.effective_digest,
                "behaviour_digest": attestation.behaviour_digest,
                "agent": attestation.agent,
                "verdict": attestation.verdict,
                "envelope": envelope,
                "created_at": attestation.created_at,
            }
            store.save_attestation(connection, row)
        return True

    def own(self, effective_digest: str) -> Attestation | None:
        """The newest verdict on this digest that this machine signed."""
        from lockgate.versions.attestation import key_id, verify
        from lockgate.versions.signing import own_keys

        found = self._envelopes(effective_digest)
        keys = {key_id(key): key for key in own_keys(self.project.home)} if found else {}
        good = (verify(envelope, keys) for envelope in found)
        return next((one for one in good if one is not None and one.effective_digest == effective_digest), None)

    def gate(self, version: VersionRef, environment: str, *, own: Yardstick | None = None) -> GateAnswer:
        """Whether a verdict opens the environment for this version, by its policy and its trusted keys, now.

        ``own``: what the agent is measured by.
        """
        from lockgate.versions.signing import own_keys
        from lockgate.versions.trust import judge, signers

        effective_digest = version.effective_digest
        found = self._envelopes(effective_digest)
        policy = environment_policy(self.project, environment)
        return judge(
            found,
            effective_digest,
            environment=environment,
            policy=policy,
            trusted=signers(self.project.config, environment, own_keys(self.project.home) if found else []),
            ref=f"{version.agent}@{version.behaviour_digest.removeprefix('sha256:')[:12]}",
            now=self.clock(),
            own=own or Yardstick(),
        )

    def of(self, behaviour_digest: str) -> list[KeptVerdict]:
        """Every verdict on a behaviour, in whatever environment, the newest first."""
        from lockgate.versions import store
        from lockgate.versions.attestation import read
        from lockgate.versions.signing import own_keys
        from lockgate.versions.trust import examine, signers

        with self.control.read() as connection:
            found = store.envelopes_of(connection, behaviour_digest)
        own = own_keys(self.project.home) if found else []
        trusted = {name: signers(self.project.config, name, own) for name in self.project.config.environments}
        kept, now = [], self.clock()
        for envelope in found:
            claim = read(envelope)
            if claim is None:
                continue
            digest = claim.attestation.effective_digest
            where = [
                name
                for name, keys in trusted.items()
                if examine(envelope, digest, environment=name, trusted=keys, now=now)[1] is not None
            ]
            signer = ", ".join(claim.signers)
            kept.append(
                KeptVerdict(attestation=claim.attestation, signer=signer, trusted=tuple(where), envelope=envelope)
            )
        return kept

    def _envelopes(self, effective_digest: str) -> list[dict[str, Any]]:
        from lockgate.versions import store

        with self.control.read() as connection:
            return [envelope for _, envelope in store.envelopes(connection, effective_digest)]
