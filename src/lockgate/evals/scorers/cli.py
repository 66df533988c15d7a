"""``lockgate scorers``: what a rubric can name."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from lockgate.console import JsonFlag, emit, table


def scorers(
    family: Annotated[
        str | None, typer.Option("--family", help="Only reference, quality, agent, operational, own or peer.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """List the scorers a rubric can name, with their range, needs and source.

    Example: lockgate scorers --family agent
    """
    from lockgate.errors import InputError

    found = _peers() if family == "peer" else [row for row in described() if family in (None, row["family"])]
    if not found:
        raise InputError(f"no family {family!r}", remedy="reference, quality, agent, operational, own or peer")
    columns = ("scorer", "family", "range", "needs", "suits")
    emit(found, json, lambda: table(columns, [tuple(row[name] for name in columns) for row in found]))


def described() -> list[dict[str, Any]]:
    """Every scorer, from its row and its docstring; those of other packages last."""
    from lockgate.evals.scorers import ALIASES, SCORERS, plugins

    rows = []
    for name in dict.fromkeys([*SCORERS, *plugins()]):
        kind = SCORERS[name]
        text = " ".join((kind.make.__doc__ or "").replace("``", "`").split())
        about, _, rest = text.partition("Range:")
        spread, _, rest = rest.partition("Needs:")
        needs, _, source = rest.partition("Source:")
        rows.append(
            {
                "scorer": name,
                "family": kind.family,
                "unit": kind.unit,
                "better": kind.direction,
                "live": not kind.needs_case and kind.runs == "inline",
                "asks": kind.runs == "judge",
                "suits": kind.suits,
                "range": spread.strip(" ."),
                "needs": needs.strip(" ."),
                "source": source.strip(),
                "about": about.strip(),
                "aliases": [alias for alias, target in ALIASES.items() if target == name],
            }
        )
    return rows


def _peers() -> list[dict[str, Any]]:
    """The metrics of other tools, by their catalogue."""
    from lockgate.evals.peers import PEERS
    from lockgate.evals.scorers import SCORERS

    return [
        {
            "scorer": f"{peer}:{name}",
            "family": "peer",
            "better": metric.direction,
            "asks": "judge" in metric.needs,
            "suits": SCORERS[f"{peer}:{name}"].suits,
            "range": "0..1",
            "needs": ", ".join(metric.needs),
        }
        for peer, package in PEERS.items()
        for name, metric in package.metrics.items()
    ]
