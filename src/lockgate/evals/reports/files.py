"""Reports as files: fetches what is stored of each case, in pieces, and writes the form that is asked for."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from lockgate.errors import InputError
from lockgate.evals.golden import read_cases
from lockgate.evals.model import Case, Scorecard, score_key
from lockgate.evals.reports.cases import CaseView, Found, Scores, view
from lockgate.evals.simulation.model import trial_key
from lockgate.evals.store import CHUNK, TrialStore
from lockgate.storage.engine import Database

Form = Literal["text", "markdown", "json", "html", "junit", "inspect"]


def cases_of(card: Scorecard, root: Path) -> list[Case]:
    """The cases an evaluation was over, from its file as it is now: none when that file is gone."""
    match = re.fullmatch(r"(.*?)(?: \(([^()]*)\))?", card.dataset)
    name, slice = (match[1], match[2]) if match else (card.dataset, None)
    path = Path(name) if Path(name).exists() else root / name
    if not path.exists():
        return []
    wanted = {tag.strip() for tag in slice.split(",")} if slice else set()
    return [case for case in read_cases(path, shown_as=name) if not wanted or wanted & set(case.tags)]


def views(control: Database, card: Scorecard, cases: Sequence[Case], root: Path = Path()) -> Iterator[CaseView]:
    """Each case with its stored trials and scores, a few hundred at a time. ``root`` is the project's."""
    now = TrialStore(control, card.effective_digest)
    before = TrialStore(control, card.baseline_effective) if card.baseline_effective else None
    for some in _batches(cases):
        keys = {trial_key(case, root): case.digest for case in some}
        names = [score_key(digest, case.expectation_digest) for digest in card.scorer_digests.values() for case in some]
        found, other = _stored(now, keys, names), _stored(before, keys, names) if before else None
        for case in some:
            yield view(card, case, *found, card.scorer_digests, other)


def _stored(trials: TrialStore, keys: Mapping[str, str], names: Sequence[str]) -> tuple[Found, Scores]:
    """What is kept under these ``keys``, by the digests of their cases."""
    results, scores = trials.results([*keys]), trials.scores([*keys], names)
    return (
        {(keys[key], number): result for (key, number), result in results.items()},
        {(keys[key], number, name): score for (key, number, name), score in scores.items()},
    )


def _batches(cases: Sequence[Case]) -> Iterator[Sequence[Case]]:
    for start in range(0, len(cases), CHUNK):
        yield cases[start : start + CHUNK]


def rendered(form: Form, card: Scorecard, cases: Iterator[CaseView]) -> str:
    """The report as text; every form but ``inspect`` and ``text``."""
    if form == "markdown":
        from lockgate.evals.reports.markdown import markdown

        return markdown(card)
    if form == "html":
        from lockgate.evals.reports.html import html

        return html(card, cases)
    if form == "junit":
        from lockgate.evals.reports.junit import junit

        return junit(card, cases)
    return msgspec.json.format(msgspec.json.encode(card), indent=2).decode() + "\n"


def write_report(
    path: Path, form: Form, card: Scorecard, control: Database, cases: Sequence[Case], root: Path = Path()
) -> None:
    """Write one form to a file. ``root`` is the project's. Raises :class:`InputError` when it cannot be written."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if form == "inspect":
            from lockgate.evals.reports.inspect_log import write_log

            write_log(path, card, views(control, card, cases, root))
        else:
            path.write_text(rendered(form, card, views(control, card, cases, root)), encoding="utf-8")
    except OSError as failure:
        raise InputError(f"cannot be written: {failure.strerror}", path=path, remedy="give a path that can") from None


def comment(card: Scorecard | None, body: str | None = None, agent: str | None = None) -> str:
    """Post or update the scorecard's comment where this CI job's pull request is; says what was done and where."""
    import json
    import os

    from lockgate.evals.reports.comments import place_of, post
    from lockgate.evals.reports.markdown import MARKER, markdown

    event = None
    name = os.environ.get("GITHUB_EVENT_PATH")
    if name and Path(name).exists():
        event = json.loads(Path(name).read_text(encoding="utf-8"))
    text = body if body is not None else markdown(card) if card else ""
    marker = MARKER.format(agent=agent or (card.agent if card else ""))
    done = post(place_of(os.environ, event=event), marker, text)
    return f"comment {done.action}: {done.url}"
