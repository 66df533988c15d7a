"""What a golden set is made of, and a division of it into splits. Pure."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.evals.golden.lint import balance
from lockgate.evals.model import Case
from lockgate.evals.scorers.sample import input_text


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counts over the cases. ``effective`` is how many equally weighted cases the weights are worth (Kish)."""

    cases: int
    clusters: int
    effective: float
    tags: dict[str, int]
    splits: dict[str, int]
    owners: dict[str, int]
    labels: dict[str, dict[str, int]]
    expects: dict[str, int]
    input_lengths: list[int]  # cases by length of input: upto 100, 300, 1,000, 3,000, more
    weight: float


LENGTHS = (100, 300, 1000, 3000)


def stats(cases: Sequence[Case]) -> Stats:
    """Count what there is."""
    weights = [case.weight for case in cases]
    lengths = [0] * (len(LENGTHS) + 1)
    for case in cases:
        size = len(input_text(case.input))
        lengths[next((n for n, bound in enumerate(LENGTHS) if size <= bound), len(LENGTHS))] += 1
    expects = {
        "expected_output": sum(case.expected_output is not None for case in cases),
        "expected_tools": sum(case.expected_tools is not None for case in cases),  # none at all is an expectation too
        "must_not": sum(bool(case.must_not) for case in cases),
        "contexts": sum(bool(case.contexts or case.reference_contexts) for case in cases),
    }
    return Stats(
        cases=len(cases),
        clusters=len({case.cluster or f"\0{case.id}" for case in cases}),
        effective=sum(weights) ** 2 / sum(weight**2 for weight in weights) if cases else 0.0,
        tags=_counted(tag for case in cases for tag in case.tags),
        splits=_counted(case.split or "(none)" for case in cases),
        owners=_counted(case.owner or "(none)" for case in cases),
        labels={name: dict(values.most_common()) for name, values in balance(cases).items()},
        expects={name: count for name, count in expects.items() if count},
        input_lengths=lengths,
        weight=sum(weights),
    )


def divide(cases: Sequence[Case], shares: Mapping[str, float], *, seed: str = "") -> list[Case]:
    """Each case with a split, whole clusters together, the same for the same seed however the file grows.

    Shares are fractions that add up to 1. Cases that have a split keep it, and what joins their cluster gets theirs:
    what was tuned on one must not be measured on its kin.
    """
    if not shares or abs(sum(shares.values()) - 1) > 1e-6 or min(shares.values()) < 0:
        raise InputError(f"shares {dict(shares)!r} do not add up to 1", remedy="e.g. --share dev=0.3 --share test=0.7")
    found = []
    kept = {case.cluster: case.split for case in cases if case.cluster and case.split is not None}
    for case in cases:
        split = case.split if case.split is not None else kept.get(case.cluster or "")
        if split is not None:
            found.append(msgspec.structs.replace(case, split=split))
            continue
        digest = hashlib.sha256(f"{seed}\0{case.cluster or case.id}".encode()).digest()
        at, name = int.from_bytes(digest[:8], "big") / 2**64, ""
        for name, share in shares.items():  # noqa: B007
            at -= share
            if at < 0:
                break
        found.append(msgspec.structs.replace(case, split=name))
    return found


def picture(found: Stats, name: str) -> str:
    """The counts as bars, in one SVG that stands alone."""
    from html import escape

    groups = [("tags", found.tags), ("splits", found.splits), ("owners", found.owners)]
    groups += [(f"label {label}", values) for label, values in found.labels.items()]
    bounds = [f"up to {bound:,}" for bound in LENGTHS] + [f"over {LENGTHS[-1]:,}"]
    groups.append(("letters of input", dict(zip(bounds, found.input_lengths, strict=True))))
    parts, y = (
        [f'<text x="16" y="28" class="title">{escape(name)}: {found.cases} cases, {found.clusters} clusters</text>'],
        56,
    )
    for title, values in groups:
        if not values:
            continue
        parts.append(f'<text x="16" y="{y}" class="group">{escape(title)}</text>')
        y += 10
        most = max(values.values()) or 1
        for label, count in list(values.items())[:12]:
            short = label if len(label) <= 28 else label[:27] + "…"
            parts.append(f'<text x="190" y="{y + 12}" class="label" text-anchor="end">{escape(short)}</text>')
            parts.append(f'<rect x="198" y="{y}" width="{max(1, 320 * count / most):.1f}" height="15" rx="2"/>')
            parts.append(f'<text x="{204 + 320 * count / most:.1f}" y="{y + 12}" class="count">{count}</text>')
            y += 20
        y += 22
    style = (
        "text{font:12px system-ui,sans-serif;fill:#1f2933}.title{font-size:16px;font-weight:600}"
        ".group{font-weight:600}.count{fill:#52606d}rect{fill:#3b7ea1}"
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 580 {y}" width="580" height="{y}" role="img">'
        f'<style>{style}</style><rect width="580" height="{y}" style="fill:#fff"/>{"".join(parts)}</svg>\n'
    )


def _counted(values: Any) -> dict[str, int]:
    return dict(Counter(values).most_common())
