"""``lockgate doctor`` and ``lockgate owners``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from lockgate.console import JsonFlag, console, emit, table

if TYPE_CHECKING:
    from lockgate.versions.doctor.model import Note
    from lockgate.versions.reproducibility import Reproducibility

BAR = 20


def doctor(
    reproducibility: Annotated[
        bool, typer.Option("--reproducibility", help="Score which parts of the behaviour are locked.")
    ] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired safely, then look again.")] = False,
    offline: Annotated[bool, typer.Option("--offline", help="Do not ask providers whether they answer.")] = False,
    json: JsonFlag = False,
) -> None:
    """Check the project and this machine; each finding says where it is and what to do.

    Exit code 1 when something is broken, 0 when there is only advice.

    Example: lockgate doctor --fix
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.doctor import examine as doctors

    app = open_app()
    examined = doctors.read(app.project, app.versions, app.clock, online=not offline and not reproducibility)
    if reproducibility:
        score = doctors.reproducibility(examined)
        emit(score, json, lambda: _draw_score(score))
        return
    notes, done = doctors.examine(examined), []
    if fix:
        done = doctors.repair(notes)
        if done:
            notes = doctors.examine(doctors.read(app.project, app.versions, app.clock, online=not offline))
    known = app.uncalibrated({note.path or "" for note in notes if note.kind == "judge"})
    notes = [note for note in notes if note.kind != "judge" or known.get(note.path or "") != []]
    if fix:
        emit({"done": done, "findings": [note.data() for note in notes]}, json, lambda: _draw(notes, done))
    else:
        emit([note.data() for note in notes], json, lambda: _draw(notes, done))
    if any(note.severity == "problem" for note in notes):
        raise typer.Exit(1)


def _draw(notes: list[Note], done: list[str]) -> None:
    for line in done:
        console().print(f"fixed: {line}", markup=False)
    if not notes:
        console().print("nothing to complain about")
        return
    table(
        ("", "about", "where", "what", "remedy"),
        [(note.severity, note.kind, note.where, note.message, note.remedy) for note in notes],
    )
    if any(note.fix for note in notes):
        console().print("\nlockgate doctor --fix repairs some of this.")


def _draw_score(score: Reproducibility) -> None:
    from rich.text import Text

    rows = []
    for part in score.parts:
        filled = round(BAR * part.share)
        bar = Text("█" * filled, style="green") + Text("░" * (BAR - filled), style="dim")
        why = (
            part.missing[0] + (f" (and {len(part.missing) - 1} more)" if len(part.missing) > 1 else "")
            if part.missing
            else ""
        )
        rows.append((part.name, bar, f"{part.locked}/{part.of}", why))
    console().print(f"Reproducibility {score.percent:.0f} %", style="bold")
    table(("part", "locked", "agents", "what is open"), rows)
    if score.next is not None:
        console().print(f"\nLock next: {score.next.name}\n  → {score.next.remedy}", markup=False)


def owners(json: JsonFlag = False) -> None:
    """Who answers for each agent, prompt, tool and knowledge base, and where that stands.

    Exit code 1 when something has no owner.

    Example: lockgate owners
    """
    from lockgate.bootstrap import open_app
    from lockgate.versions.ownership import Ownership

    found = Ownership(open_app().project).everything()

    def draw() -> None:
        rows = [(one.kind, one.name, one.owner or "nobody", one.stated, one.path) for one in found]
        table(("kind", "name", "owner", "stated in", "file"), rows)

    emit(found, json, draw)
    if any(one.owner is None for one in found):
        raise typer.Exit(1)
