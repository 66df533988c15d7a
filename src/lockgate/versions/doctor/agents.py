"""Checks of agent files, their locks and their models."""

from __future__ import annotations

from collections.abc import Iterator

from lockgate.project.service import WELL_KNOWN
from lockgate.versions.deprecationfile import project_table
from lockgate.versions.deprecations import day, deprecated_models
from lockgate.versions.doctor.model import Examined, Note, Severity
from lockgate.versions.lockfile import LOCK_FILE
from lockgate.versions.locking import changes_between

_SINCE = {"new": "is new", "changed": "has changed", "settings": "has other settings", "removed": "is gone"}
_PROBLEMS = frozenset({"secret"})


def malformed(examined: Examined) -> Iterator[Note]:
    """Files that cannot be read."""
    for wrong in examined.broken:
        start = "" if wrong.path is None else f"{wrong.path}:{wrong.line}: " if wrong.line else f"{wrong.path}: "
        message = wrong.message.removeprefix(start)
        yield Note("project", "problem", message, wrong.remedy or "correct it", wrong.path, wrong.line)
    if not examined.packed and not examined.broken:
        yield Note("project", "problem", "there are no agents", "write agents/NAME.v1.yaml (lockgate schema agent)")


def stale(examined: Examined) -> Iterator[Note]:
    """What the lock file does not say, or says otherwise."""
    if examined.broken:
        return

    def lock() -> str:
        examined.versions.lock()
        return f"wrote {LOCK_FILE}"

    before = {(one.agent, one.version): one for one in examined.locked}
    after = {(one.entry.agent, one.entry.version): one.entry for one in examined.packed}
    fix = lock
    for change in changes_between(before, after):
        parts = f" ({', '.join(change.parts)})" if change.parts else ""
        message = f"{change.agent}@{change.version} {_SINCE[change.what]}{parts} since the last lock"
        # One lock repairs them all, so only the first carries it.
        yield Note("lock", "problem", message, "lockgate lock, and commit it", LOCK_FILE, None, fix)
        fix = None  # type: ignore[assignment]


def short_of_good_practice(examined: Examined) -> Iterator[Note]:
    """What `lockgate lock` warns of: pins, missing evals, unlocked parts, tools without contract or approval."""
    for one in examined.packed:
        for found in one.source.warnings:
            if found.kind == "owner":  # said of everything that can be owned by another check
                continue
            severity: Severity = "problem" if found.kind in _PROBLEMS else "advice"
            yield Note(found.kind, severity, found.message, found.remedy, found.path, found.line)
        if one.source.settings.evals and not one.source.settings.evals.get("dataset"):
            yield Note("evals", "advice", f"{one.entry.agent!r} has evals but no golden set", "add `dataset:`",
                       one.source.file, 1)  # fmt: skip


def retiring(examined: Examined) -> Iterator[Note]:
    """Models whose end is announced."""
    today, own = day(examined.now), project_table(examined.project)
    known = {**WELL_KNOWN, **examined.project.config.providers}
    kinds = {name: provider.kind for name, provider in known.items()}
    for one in examined.packed:
        for _, ends in deprecated_models(one.source.version, kinds, today, table=own):
            severity: Severity = "problem" if ends.urgency(today) == "retired" else "advice"
            yield Note("retirement", severity, ends.message(today), ends.remedy(), one.source.file,
                       _line_of(examined, one.source.file, ends.model))  # fmt: skip


def bundles_gone(examined: Examined) -> Iterator[Note]:
    """Versions that serve somewhere, and whose bundle is not in the store."""
    home = examined.project.home
    if not (home / "control.db").exists():
        return
    from lockgate.storage.schema import deployments

    with examined.versions.control.read() as connection:
        rows = connection.execute(deployments.select()).mappings().all()
    for row in rows:
        if row["stable_behaviour"] not in examined.versions.blobs:
            message = (
                f"{row['agent']} serves {row['stable_behaviour'][:19]} in {row['environment']}, and its bundle is gone"
            )
            yield Note("lock", "problem", message, "check that version out and `lockgate lock`, or pull it")


def _line_of(examined: Examined, file: str, text: str) -> int | None:
    lines = (examined.project.root / file).read_text("utf-8", "replace").splitlines()
    return next((number for number, line in enumerate(lines, 1) if text in line), None)
