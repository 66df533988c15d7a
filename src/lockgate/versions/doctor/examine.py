"""Reads a project once and runs every check on it."""

from __future__ import annotations

from lockgate.clock import Clock
from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.project.service import WELL_KNOWN
from lockgate.project.yamlfile import read_text
from lockgate.versions import lockfile
from lockgate.versions.doctor import agents, files, machine, owned, providers
from lockgate.versions.doctor.model import Check, Examined, Note
from lockgate.versions.git import clean_commit
from lockgate.versions.locking import Names, pack_file
from lockgate.versions.reproducibility import Facts, Reproducibility, measure
from lockgate.versions.service import Versions
from lockgate.versions.source import agent_files

CHECKS: tuple[Check, ...] = (
    files.layout_broken,
    agents.malformed,
    agents.stale,
    agents.short_of_good_practice,
    agents.retiring,
    agents.bundles_gone,
    owned.nobody_s,
    files.inlined_secrets,
    files.state_in_git,
    files.lock_outside_git,
    files.open_to_others,
    providers.secrets_missing,
    providers.unreachable,
    machine.disk,
    machine.clock_behind_files,
)


def read(project: Project, versions: Versions, clock: Clock, *, online: bool = True) -> Examined:
    """Read every agent file; one that is broken keeps the others from nothing."""
    broken: list[InputError] = []
    try:
        locked = lockfile.read_lock(project.root)
    except InputError as wrong:
        locked = []
        broken.append(wrong)
    names = Names(project, locked, online=False)
    packed = []
    for path in agent_files(project.root):
        try:
            packed.append(pack_file(path, project, names))
        except InputError as wrong:
            broken.append(wrong)
    return Examined(project, versions, clock(), online, packed, broken, locked)


def examine(examined: Examined) -> list[Note]:
    """Everything short of good practice, problems first. Reads only."""
    notes = {(note.kind, note.message, note.where): note for check in CHECKS for note in check(examined)}
    return sorted(notes.values(), key=lambda note: (note.severity != "problem", note.path or "~", note.line or 0))


def repair(notes: list[Note]) -> list[str]:
    """Apply the safe fixes, the layout's first: a lock writes to it. Returns what was done."""
    return [note.fix() for note in sorted(notes, key=lambda note: note.kind != "layout") if note.fix is not None]


def reproducibility(examined: Examined) -> Reproducibility:
    """Which behaviour-defining parts are locked."""
    project, entries = examined.project, {(one.agent, one.version): one for one in examined.locked}
    committed = clean_commit(project.root, lockfile.LOCK_FILE) is not None
    known = {**WELL_KNOWN, **project.config.providers}
    kinds = {name: (one.kind, one.base_url or "") for name, one in known.items()}
    agents_now = []
    for one in examined.packed:
        entry = entries.get((one.entry.agent, one.entry.version))
        lock_names = list(one.source.version.dependencies)
        text = read_text(project.root / lock_names[0], limit=64_000_000) if lock_names else ""
        current = entry is not None and entry.digest == one.entry.digest
        agents_now.append(Facts(one.source, entry, current, kinds, text, committed))
    return measure(agents_now)
