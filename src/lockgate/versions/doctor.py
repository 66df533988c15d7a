"""Checks a project and the machine it is on; each finding says what to do about it."""

from __future__ import annotations

import os
import shutil

from lockgate.clock import Clock
from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.project.secrets import REFERENCE
from lockgate.project.service import PROJECT_FILE
from lockgate.project.yamlfile import read_text
from lockgate.versions.inlined import secret_lines
from lockgate.versions.lockfile import LOCK_FILE
from lockgate.versions.model import Finding
from lockgate.versions.service import Versions

PROBLEMS = frozenset({"lock", "machine", "project", "secret"})
"""Kinds of finding that make ``lockgate doctor`` fail; the rest are advice."""

ENOUGH_DISK = 1_000_000_000
CLOCK_SLACK = 120.0


def examine(project: Project, versions: Versions, clock: Clock) -> list[Finding]:
    """Everything short of good practice, problems first. Reads only."""
    findings = [*_project(project), *_agents(versions), *_machine(project, clock())]
    return sorted(findings, key=lambda finding: finding.kind not in PROBLEMS)


def _project(project: Project) -> list[Finding]:
    found = []
    for line in secret_lines(read_text(project.root / PROJECT_FILE, shown_as=PROJECT_FILE)):
        found.append(
            Finding(
                kind="secret",
                message="something that looks like a secret stands here",
                path=PROJECT_FILE,
                line=line,
                remedy="replace it by a reference such as ${env:NAME}, and revoke it",
            )
        )
    for name, provider in project.config.providers.items():
        match = REFERENCE.fullmatch(provider.api_key or "")
        if match and match["kind"] == "env" and not os.environ.get(match["name"]):
            message = f"provider {name!r} needs the environment variable {match['name']!r}, which is not set here"
            found.append(Finding(kind="provider", message=message, remedy=f"export {match['name']}=…"))
        if match and match["kind"] == "file" and not (project.root / match["name"]).is_file():
            message = f"provider {name!r} needs the file {match['name']!r}, which is not here"
            found.append(Finding(kind="provider", message=message, remedy="create it, readable by this user alone"))
    if (project.root / ".git").exists() and project.home.is_relative_to(project.root):
        ignored = project.root / ".gitignore"
        lines = read_text(ignored, shown_as=".gitignore").split("\n") if ignored.is_file() else []
        name = project.home.relative_to(project.root).as_posix()
        if not any(line.strip().strip("/") == name for line in lines):
            message = f"git does not ignore {name}/, where databases and the signing key are"
            found.append(Finding(kind="project", message=message, path=".gitignore", remedy=f"add the line {name}/"))
    return found


def _agents(versions: Versions) -> list[Finding]:
    try:
        result = versions.lock(check=True)
    except InputError as wrong:
        return [Finding(kind="project", message=wrong.message, remedy=wrong.remedy or "")]
    stale = [
        Finding(
            kind="lock",
            message=f"{change.agent}@{change.version} is {change.what}"
            + (f" ({', '.join(change.parts)})" if change.parts else "")
            + " since the last lock",
            path=LOCK_FILE,
            remedy="lockgate lock",
        )
        for change in result.changes
    ]
    return [*stale, *result.warnings]


def _machine(project: Project, now: float) -> list[Finding]:
    found = []
    folder = project.home if project.home.exists() else project.root
    free = shutil.disk_usage(folder).free
    if free < ENOUGH_DISK:
        message = f"{free / 1e6:,.0f} MB are free where {folder.name!r} is"
        found.append(Finding(kind="machine", message=message, remedy="make room: traces and bundles need it"))
    newest = max(
        (project.root / name).stat().st_mtime for name in (PROJECT_FILE, LOCK_FILE) if (project.root / name).exists()
    )
    if newest > now + CLOCK_SLACK:
        message = f"the clock is {newest - now:,.0f} s behind the project's files"
        found.append(Finding(kind="machine", message=message, remedy="set the clock: leases and budgets go by it"))
    return found
