"""Locks agents into versions, and finds, loads, attests and writes out what was locked."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.clock import Clock
from lockgate.errors import Conflict, Corrupt, InputError, NotFound
from lockgate.ids import new_id
from lockgate.project.model import Project, ResolvedProvider
from lockgate.project.service import WELL_KNOWN, environment_policy, resolve_provider
from lockgate.project.yamlfile import did_you_mean
from lockgate.storage.blobs import BlobStore
from lockgate.versions import checkout, layout, lockfile, renumbered
from lockgate.versions.attestations import Attestations
from lockgate.versions.bundle import blobs_of, unpack
from lockgate.versions.digest import effective_digest
from lockgate.versions.git import clean_commit
from lockgate.versions.locking import Names, Packed, changes_between, pack_file
from lockgate.versions.model import (
    AgentSettings,
    AgentVersion,
    Attestation,
    Finding,
    LockedVersion,
    LockResult,
    ModelRef,
    VersionRef,
    Yardstick,
)
from lockgate.versions.renumbered import Deployed, Renumbered
from lockgate.versions.source import AgentSource, agent_files

if TYPE_CHECKING:
    from lockgate.storage.engine import Database
    from lockgate.versions.diff import Snapshot
    from lockgate.versions.store import VersionRow
    from lockgate.versions.trust import GateAnswer

_HEX = re.compile(r"[0-9a-f]{12,64}")


MeasuredBy = Callable[[AgentSettings, Path], Yardstick]
CheckEvals = Callable[[AgentSettings, Path], None]


class Versions:
    """The versions of one project. Bundles live in the blob store, so a version outlives its files.

    ``control`` may be a function that opens the database: what only reads files never opens it.
    """

    def __init__(
        self,
        project: Project,
        control: Database | Callable[[], Database],
        blobs: BlobStore,
        clock: Clock,
        *,
        yardstick: MeasuredBy | None = None,
        check_evals: CheckEvals | None = None,
    ) -> None:
        """``yardstick`` tells by what an agent is measured, given its settings and the project's root.

        ``check_evals`` is given the same before a lock, and raises :class:`InputError` for what no gate could use.
        """
        self.project = project
        self._yardstick = yardstick
        self._check_evals = check_evals
        self._control = control
        self.blobs = blobs
        self.clock = clock
        self._loaded: dict[str, AgentVersion] = {}

    @property
    def control(self) -> Database:
        """The control database."""
        if callable(self._control):
            self._control = self._control()
        return self._control

    # --- lock -------------------------------------------------------------------------------------------------

    def lock(
        self, paths: Sequence[Path] | None = None, *, check: bool = False, same_number: bool = False
    ) -> LockResult:
        """Lock the given agent files, or all of them. With ``check``: only say what would change, offline.

        Nothing is written unless every file is good. Raises :class:`InputError` for the first that is not, and
        :class:`Conflict` for a version number whose behaviour was deployed and is another now, unless ``same_number``.
        """
        before = lockfile.read_bytes(self.project.root)
        names, packed = self._pack_all(paths, online=not check)
        if check:
            return self._merge(names, packed, {}, whole=paths is None)[0]
        with lockfile.one_at_a_time(self.project.home):
            if lockfile.read_bytes(self.project.root) != before:  # another lock came first, and may have seen more
                names, packed = self._pack_all(paths, online=True)
            result, anew = self._merge(names, packed, self._deployed(), whole=paths is None)
            if not same_number:
                renumbered.refuse(anew)
            layout.check(self.blobs)  # before anything is kept
            commit = clean_commit(self.project.root, lockfile.LOCK_FILE)
            self._keep(packed, commit)
            layout.add_to_index(self.blobs, [entry for one in packed for entry in one.index_entries(commit)])
            if result.stale:
                lockfile.write_lock(self.project.root, result.versions)
        return msgspec.structs.replace(result, written=result.stale)

    def _pack_all(self, paths: Sequence[Path] | None, *, online: bool) -> tuple[Names, list[Packed]]:
        files = list(paths) if paths is not None else agent_files(self.project.root)
        if not files:
            raise InputError(
                f"no agent files below {str(self.project.root / 'agents')!r}",
                remedy="write agents/NAME.v1.yaml (lockgate schema agent)",
            )
        names = Names(self.project, lockfile.read_lock(self.project.root), online=online)
        packed = [pack_file(path, self.project, names) for path in files]
        seen: dict[tuple[str, int], str] = {}
        for one in packed:
            key = (one.entry.agent, one.entry.version)
            if key in seen:
                raise InputError(
                    f"agent {key[0]!r} version {key[1]} is also in {seen[key]!r}",
                    path=one.entry.file,
                    line=1,
                    remedy="count `version` up in one of them",
                )
            seen[key] = one.entry.file
            self._check_settings(one.source)
        return names, sorted(packed, key=lambda one: (one.entry.agent, one.entry.version))

    def _check_settings(self, source: AgentSource) -> None:
        if self._check_evals is None or not source.settings.evals:
            return
        try:
            self._check_evals(source.settings, self.project.root)
        except InputError as wrong:
            if wrong.path is not None:
                raise
            raise InputError(wrong.message, path=source.file, remedy=wrong.remedy) from wrong

    def _deployed(self) -> dict[str, Deployed]:
        """What was brought to an environment that enforces the gate; elsewhere one tries things out."""
        from lockgate.versions.store import deployed

        policies = {name: environment_policy(self.project, name) for name in self.project.config.environments}
        gated = {name for name, policy in policies.items() if policy.require_gate and policy.level == "enforce"}
        with self.control.read() as connection:
            return deployed(connection, gated)

    def _merge(
        self, names: Names, packed: Sequence[Packed], deployed: Mapping[str, Deployed], *, whole: bool
    ) -> tuple[LockResult, list[Renumbered]]:
        locked = lockfile.read_lock(self.project.root)
        before = {(entry.agent, entry.version): entry for entry in locked}
        after = {} if whole else dict(before)
        after |= {(one.entry.agent, one.entry.version): one.entry for one in packed}
        versions = [after[key] for key in sorted(after)]
        anew = renumbered.renumbered(locked, versions, deployed)
        result = LockResult(
            versions=versions,
            changes=changes_between(before, after),
            warnings=[
                *renumbered.warnings(anew),
                *(finding for one in packed for finding in one.source.warnings),
                *names.findings,
                *self.deprecations(one.source.version for one in packed),
            ],
            written=False,
            asked=names.asked or any(one.source.spec.references or one.source.spec.retrieval for one in packed),
        )
        return result, anew

    def _keep(self, packed: Sequence[Packed], commit: str | None) -> None:
        from lockgate.versions.store import VersionRow, save_versions

        self.blobs.put_many(data for one in packed for data in (one.bundle.blobs | one.referrer()).values())
        now = self.clock()
        rows = [
            VersionRow(
                behaviour_digest=one.entry.digest,
                agent=one.entry.agent,
                file_version=one.entry.version,
                created_at=now,
                git_commit=commit,
                source=one.entry.file,
                settings_digest=one.entry.settings,
            )
            for one in packed
        ]
        with self.control.write() as connection:
            save_versions(connection, rows)
            if commit is not None:
                from lockgate.versions.commits import record_commit

                record_commit(connection, [row.behaviour_digest for row in rows], commit, now)

    def deprecations(self, versions: Iterable[AgentVersion]) -> list[Finding]:
        """A warning for each model of these versions whose end is announced."""
        from lockgate.versions.deprecationfile import project_table
        from lockgate.versions.deprecations import day, deprecated_models, findings

        today, table = day(self.clock()), project_table(self.project)
        known = {**WELL_KNOWN, **self.project.config.providers}
        kinds = {name: provider.kind for name, provider in known.items()}
        ends = [end for version in versions for _, end in deprecated_models(version, kinds, today, table=table)]
        return findings(ends, today)

    # --- find and load ----------------------------------------------------------------------------------------

    def find(self, ref: str) -> str:
        """The behaviour digest of a version, in the store and ready to load.

        ``ref``: ``agent`` (its highest locked version), ``agent@3``, ``agent@sha256:…``, a digest or 12 of its hex
        digits, or the path of an agent file, which is read as it stands and need not be in the lock file.
        """
        if ref.endswith((".yaml", ".yml")):
            return self._take(Path(ref))
        if ref.startswith("sha256:") or _HEX.fullmatch(ref):
            return self._by_digest(ref)
        agent, _, wanted = ref.partition("@")
        if wanted.startswith("sha256:") or (_HEX.fullmatch(wanted) and not wanted.isdigit()):
            return self._by_digest(wanted, agent)
        return self._as_locked(self.locked(ref))

    def load(self, digest: str) -> AgentVersion:
        """The version with this behaviour digest (or 12 of its hex digits)."""
        if digest in self._loaded:  # asked for on every request
            return self._loaded[digest]
        digest = self._by_digest(digest)
        if digest not in self._loaded:
            row = self._row(digest)
            self._loaded[digest] = unpack(digest, self.blobs.get, file_version=row.file_version if row else 0)
        return self._loaded[digest]

    def settings(self, behaviour_digest: str) -> AgentSettings:
        """What stands beside the version as it was last locked: owner, thresholds, rollout plan, daily budgets."""
        row = self._row(behaviour_digest)
        if row is None:
            raise NotFound(f"no version {behaviour_digest!r} was locked here", remedy="lockgate lock")
        return msgspec.json.decode(self.blobs.get(row.settings_digest), type=AgentSettings)

    def snapshot(self, ref: str) -> Snapshot:
        """One side of a diff: like :meth:`find`, but a file is only read, and its own settings go with it."""
        from lockgate.versions.diff import Snapshot

        if ref.endswith((".yaml", ".yml")):
            packed = self._pack_path(Path(ref))
            version = unpack(packed.entry.digest, packed.bundle.blobs.__getitem__, file_version=packed.entry.version)
            settings, get = packed.source.settings, packed.bundle.blobs.__getitem__
        elif ref.startswith("sha256:") or _HEX.fullmatch(ref) or "@sha256:" in ref:
            version = self.load(self.find(ref))
            settings, get = self.settings(version.behaviour_digest), self.blobs.get
        else:
            entry = self.locked(ref)
            if entry.digest not in self.blobs or entry.settings not in self.blobs:
                self._as_locked(entry)
            version = unpack(entry.digest, self.blobs.get, file_version=entry.version)
            settings, get = msgspec.json.decode(self.blobs.get(entry.settings), type=AgentSettings), self.blobs.get
        code = {path: get(digest).decode(errors="replace") for path, digest in version.code.items()}
        return Snapshot(label=ref, version=version, settings=settings, code=code)

    def history(self, agent: str | None = None) -> Sequence[VersionRow]:
        """Every version ever locked here, the newest first."""
        from lockgate.versions.store import list_versions

        with self.control.read() as connection:
            return list_versions(connection, agent)

    def at_commit(self, revision: str) -> Sequence[VersionRow]:
        """Every version that was locked from this git commit: a SHA, the start of one, or a name git knows."""
        from lockgate.versions.commits import versions_at
        from lockgate.versions.revisions import commit_of

        commit = commit_of(self.project.root, revision) or revision.lower()
        if not re.fullmatch(r"[0-9a-f]{7,64}", commit):
            raise InputError(f"{revision!r} is no commit here", remedy="give 7 or more hex digits of its SHA")
        with self.control.read() as connection:
            return versions_at(connection, commit)

    def verify(self) -> list[str]:
        """Re-hash every blob of every version, and read the layout; returns what is wrong, one line each."""
        problems = []
        for digest in self.blobs:
            try:
                self.blobs.get(digest)
            except Corrupt as wrong:
                problems.append(wrong.message)
        for row in self.history():
            try:
                unpack(row.behaviour_digest, self.blobs.get)
                missing = [blob for blob in blobs_of(row.behaviour_digest, self.blobs.get) if blob not in self.blobs]
            except (Corrupt, NotFound) as wrong:
                problems.append(f"{row.agent}@{row.behaviour_digest}: {wrong.message}")
                continue
            problems += [f"{row.agent}@{row.behaviour_digest}: no blob {blob}" for blob in missing]
        return problems + layout.problems(self.blobs)

    def locked(self, ref: str) -> LockedVersion:
        """The lock file's entry for ``agent`` (its highest version) or ``agent@3``, whatever its files say now."""
        agent, _, wanted = ref.partition("@")
        entries = lockfile.read_lock(self.project.root)
        known = sorted({entry.agent for entry in entries})
        mine = sorted((entry for entry in entries if entry.agent == agent), key=lambda entry: entry.version)
        if not mine:
            raise NotFound(
                f"no agent {agent!r} in {lockfile.LOCK_FILE}",
                remedy=did_you_mean(agent, known) if known else "lockgate lock",
            )
        if not wanted:
            return mine[-1]
        if not wanted.isdigit():
            raise InputError(f"{ref!r} is not a version", remedy=f"write {agent}@3 or {agent}@sha256:…")
        found = next((one for one in mine if one.version == int(wanted)), None)
        if found is None:
            locked = ", ".join(str(one.version) for one in mine)
            raise NotFound(f"no version {wanted} of {agent!r} in {lockfile.LOCK_FILE}", remedy=f"locked: {locked}")
        return found

    def _as_locked(self, entry: LockedVersion) -> str:
        """The entry's digest, when its files still say so; it is put into the store when it is not there yet."""
        path = self.project.root / entry.file
        stored = entry.digest in self.blobs and self._row(entry.digest) is not None
        if not path.is_file():
            if not stored:
                raise NotFound(
                    f"{entry.agent}@{entry.version} is locked as {entry.digest}, but neither its bundle nor "
                    f"{entry.file!r} is here",
                    remedy="restore the file from git, then `lockgate lock`",
                )
            return entry.digest
        fresh = pack_file(path, self.project, Names(self.project, [entry], online=False))
        if (fresh.entry.digest, fresh.entry.settings) != (entry.digest, entry.settings):
            raise Conflict(
                f"{entry.file} or what it names has changed since {entry.agent}@{entry.version} was locked",
                remedy="lockgate lock, or name the version by its digest",
            )
        row = self._row(entry.digest)
        if not stored or row is None or row.settings_digest != entry.settings:
            self._keep([fresh], None)
        return entry.digest

    def _take(self, path: Path) -> str:
        packed = self._pack_path(path)
        self._keep([packed], None)
        return packed.entry.digest

    def _pack_path(self, path: Path) -> Packed:
        candidates = [path if path.is_absolute() else Path.cwd() / path, self.project.root / path]
        found = next((one for one in candidates if one.is_file()), None)
        if found is None:
            raise InputError(f"no agent file {str(path)!r}", remedy="give its path from here or from the project")
        entries = lockfile.read_lock(self.project.root)
        return pack_file(found, self.project, Names(self.project, entries, online=False))

    def _by_digest(self, digest: str, agent: str | None = None) -> str:
        value = digest.removeprefix("sha256:")
        if not re.fullmatch(r"[0-9a-f]{12,64}", value):
            raise InputError(f"{digest!r} is not a digest", remedy="give sha256: and at least 12 hex digits")
        if len(value) == 64 and agent is None and f"sha256:{value}" in self.blobs:
            return f"sha256:{value}"
        from lockgate.versions.store import versions_by_prefix

        with self.control.read() as connection:
            found = versions_by_prefix(connection, f"sha256:{value}", agent)
        if not found:
            of = f" of {agent!r}" if agent else ""
            raise NotFound(f"no version {digest!r}{of} was locked here", remedy="lockgate versions list")
        if len(found) > 1:
            raise InputError(f"{digest!r} is the start of several digests", remedy="give more of its digits")
        return found[0]

    def _row(self, digest: str) -> VersionRow | None:
        from lockgate.versions.store import version_row

        with self.control.read() as connection:
            return version_row(connection, digest)

    # --- in an environment ------------------------------------------------------------------------------------

    def effective_digest(self, version: AgentVersion, environment: str) -> str:
        """What is gated, served and recorded: the version as this environment resolves its providers."""
        providers = {name: one.identity() for name, one in self.providers(version, environment).items()}
        return effective_digest(version.behaviour_digest, providers, {})

    def providers(self, version: AgentVersion, environment: str) -> dict[str, ResolvedProvider]:
        """The providers of the version's models, by name, as this environment resolves them now."""
        return {
            model.provider: resolve_provider(self.project, model.provider, environment, version.agent)
            for model in _models(version)
        }

    def providers_as_deployed(self, effective: str) -> dict[str, ResolvedProvider]:
        """The providers that a deployed version was resolved with, whatever the project file says by now; empty when
        they are not known."""
        from lockgate.versions.resolved import recorded

        with self.control.read() as connection:
            return recorded(connection, effective)

    def ref(self, ref: str, environment: str) -> VersionRef:
        """``find`` and ``effective_digest`` in one."""
        version = self.load(self.find(ref))
        return VersionRef(
            agent=version.agent,
            behaviour_digest=version.behaviour_digest,
            effective_digest=self.effective_digest(version, environment),
        )

    def materialise(self, version: AgentVersion, folder: Path) -> None:
        """Write the version's code below ``folder``, whole or not at all; a folder that is right already is kept."""
        code = {path: self.blobs.get(digest) for path, digest in version.code.items()}
        checkout.write(code, folder)

    # --- attestations -----------------------------------------------------------------------------------------

    @property
    def attestations(self) -> Attestations:
        """Signed verdicts: made, kept, and held against an environment's policy."""
        return Attestations(self.project, self.control, self.blobs, self.clock)

    def attest(
        self,
        agent: str,
        behaviour: str,
        effective: str,
        golden_digest: str,
        rubric_digest: str,
        verdict: str,
        details: dict[str, Any],
    ) -> str:
        """Sign a verdict of the eval gate and keep it; returns the attestation's id."""
        attestation = Attestation(
            id=new_id("att"),
            agent=agent,
            behaviour_digest=behaviour,
            effective_digest=effective,
            golden_digest=golden_digest,
            rubric_digest=rubric_digest,
            verdict=verdict,
            details=details,
            signer="",
            created_at=self.clock(),
        )
        self.attestations.sign(attestation)
        return attestation.id

    def attach(self, behaviour: str, kind: str, title: str, data: bytes, *, keep: int | None = None) -> None:
        """Make ``data`` (a scorecard, say) a referrer of a version's bundle: it is pushed and pulled with it.

        ``keep``: only so many of this kind stay attached, the newest.
        """
        layout.attach(self.blobs, self.project.home, behaviour, kind, title, data, keep=keep)

    def attestation(self, effective_digest: str) -> Attestation | None:
        """The newest verdict on this effective digest that this machine signed; None when there is none."""
        return self.attestations.own(effective_digest)

    def gate(self, version: VersionRef, environment: str) -> GateAnswer:
        """Whether a signed verdict, whichever trusted machine made it, opens ``environment`` for the version."""
        own = None
        if self._yardstick is not None:
            own = self._yardstick(self.settings(version.behaviour_digest), self.project.root)
        return self.attestations.gate(version, environment, own=own)


def _models(version: AgentVersion) -> list[ModelRef]:
    return [version.model, *version.fallbacks, *([version.triage] if version.triage else [])]
