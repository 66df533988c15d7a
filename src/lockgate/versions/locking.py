"""From an agent file to a locked version: names resolved, bundle packed, compared with what was locked before."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from lockgate.project.model import Project
from lockgate.project.service import WELL_KNOWN
from lockgate.versions import layout
from lockgate.versions.bundle import Bundle, pack
from lockgate.versions.digest import nfc, sha256
from lockgate.versions.model import Finding, LockChange, LockedVersion
from lockgate.versions.resolve import digest_for, image_digest, ollama_digests
from lockgate.versions.source import AgentSource, Revisions, read_agent

Key = tuple[str, int]


class Packed(msgspec.Struct, frozen=True, kw_only=True):
    """One agent file, ready to be kept: its bundle, its settings (JSON), its line in the lock file."""

    source: AgentSource
    bundle: Bundle
    settings: bytes
    entry: LockedVersion

    def referrer(self) -> dict[str, bytes]:
        """The blobs that attach the settings to the bundle; the manifest is the last."""
        return layout.referrer(self.bundle.digest, self.bundle.size, layout.SETTINGS, "settings.json", self.settings)

    def index_entries(self, commit: str | None = None) -> list[dict[str, Any]]:
        """What ``index.json`` says of this version; with the commit, also a name that carries digest and commit."""
        digest, manifest = list(self.referrer().items())[-1]
        name = f"{self.entry.agent}.v{self.entry.version}"
        both = f"{self.entry.agent}.{self.bundle.digest[7:19]}.git-{commit[:12]}" if commit else None
        return [
            *([layout.descriptor(self.bundle.digest, self.bundle.size, name=both)] if both else []),
            layout.descriptor(self.bundle.digest, self.bundle.size, name=name),
            layout.descriptor(digest, len(manifest), kind=layout.SETTINGS),
        ]


class Names:
    """What movable model names stand for: asks the server when online, else as locked before.

    What it noticed on the way is in ``findings``.
    """

    def __init__(self, project: Project, locked: Iterable[LockedVersion], *, online: bool) -> None:
        self.project = project
        self.online = online
        self.findings: list[Finding] = []
        self._locked = {entry.file: entry.models for entry in locked}
        self._answers: dict[str, dict[str, str] | None] = {}
        self._movable = False

    @property
    def asked(self) -> bool:
        """Whether a name moves, or may: then the next lock has to ask again."""
        return self._movable

    def of(self, file: str) -> Revisions:
        """The resolver for one agent file."""
        return lambda provider, name: self._revision(file, provider, name)

    def _revision(self, file: str, provider: str, name: str) -> str | None:
        label = f"{provider}/{name}"
        before = self._locked.get(file, {}).get(label)
        known = self.project.config.providers.get(provider) or WELL_KNOWN.get(provider)
        url = "" if known is None else known.base_url or ""
        self._movable |= provider == "image" or url.startswith("http://")
        if provider == "image":
            answer = self._ask_registry(name) if self.online else None
        else:
            answer = self._ask(provider) if self.online else None
        now = None if answer is None else digest_for(name, answer)
        if now is not None and before is not None and now != before:
            self._note(file, f"{label} was {before[:19]}, and is {now[:19]} now", "run the gate on it before it serves")
        elif now is None and before is not None and self.online:
            reason = "its server does not answer" if answer is None else "its server does not have it"
            self._note(file, f"{label} stays {before[:19]} as last locked: {reason}", "lock again when it does")
        return now or before

    def _ask_registry(self, image: str) -> dict[str, str] | None:
        if image not in self._answers:
            digest = image_digest(image)
            self._answers[image] = None if digest is None else {image: digest}
        return self._answers[image]

    def _ask(self, provider: str) -> dict[str, str] | None:
        found = self.project.config.providers.get(provider) or WELL_KNOWN.get(provider)
        if found is None or found.kind != "openai" or found.base_url is None:
            return None
        if found.base_url not in self._answers:
            self._answers[found.base_url] = ollama_digests(found.base_url)
        return self._answers[found.base_url]

    def _note(self, file: str, message: str, remedy: str) -> None:
        self.findings.append(Finding(kind="pin", message=message, path=file, remedy=remedy))


def pack_file(path: Path, project: Project, names: Names) -> Packed:
    """Read and pack one agent file."""
    used: dict[str, str] = {}
    file = (
        nfc(path.resolve().relative_to(project.root).as_posix()) if path.resolve().is_relative_to(project.root) else ""
    )
    resolve = names.of(file)

    def remember(provider: str, name: str) -> str | None:
        revision = resolve(provider, name)
        if revision is not None:
            used[f"{provider}/{name}"] = revision
        return revision

    source = read_agent(path, project, remember)
    bundle = pack(source.version, source.code)
    settings = msgspec.json.encode(source.settings, order="sorted")
    entry = LockedVersion(
        agent=source.version.agent,
        version=source.version.file_version,
        file=source.file,
        digest=bundle.digest,
        settings=sha256(settings),
        parts=bundle.parts,
        models=used,
    )
    return Packed(source=source, bundle=bundle, settings=settings, entry=entry)


def changes_between(before: Mapping[Key, LockedVersion], after: Mapping[Key, LockedVersion]) -> list[LockChange]:
    """What differs between two lock files, in their order."""
    changes = []
    for key in sorted(before.keys() | after.keys()):
        old, new = before.get(key), after.get(key)
        agent, version = key
        if old is None:
            changes.append(LockChange(agent=agent, version=version, what="new"))
        elif new is None:
            changes.append(LockChange(agent=agent, version=version, what="removed"))
        elif old.digest != new.digest:
            names = sorted(old.parts.keys() | new.parts.keys())
            parts = tuple(name for name in names if old.parts.get(name) != new.parts.get(name))
            changes.append(LockChange(agent=agent, version=version, what="changed", parts=parts))
        elif old != new:
            changes.append(LockChange(agent=agent, version=version, what="settings"))
    return changes
