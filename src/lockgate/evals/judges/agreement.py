"""How far people agree with one another: no judge can agree with them more than they do. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations

import msgspec
import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Weights = NDArray[np.float64]


class Agreement(msgspec.Struct, frozen=True, kw_only=True):
    """Of answers graded by several people. ``kappa`` is None where chance cannot be told from agreement."""

    annotators: int
    answers: int  # graded at all
    doubly: int  # by two people or more
    agreement: float | None = None
    kappa: float | None = None


def between_people(grades: Iterable[tuple[str, str, float]]) -> Agreement:
    """Cohen's κ of ``(answer, annotator, grade in 0..1)``, cut at a half.

    With more than two people: the mean over pairs of people, by the number of answers that both graded (Light 1971).
    """
    by_person: dict[str, dict[str, bool]] = {}
    for answer, annotator, value in grades:
        by_person.setdefault(annotator, {})[answer] = value >= 0.5
    people = sorted(by_person)
    counted: dict[str, int] = {}
    for given in by_person.values():
        for answer in given:
            counted[answer] = counted.get(answer, 0) + 1
    agreed, kappas = [], []
    for one, other in combinations(people, 2):
        both = sorted(by_person[one].keys() & by_person[other].keys())
        if not both:
            continue
        left = np.array([by_person[one][answer] for answer in both])
        right = np.array([by_person[other][answer] for answer in both])
        agreed.append((len(both), float((left == right).mean())))
        found = kappa(left, right)
        if found is not None:
            kappas.append((len(both), found))
    return Agreement(
        annotators=len(people),
        answers=len(counted),
        doubly=sum(count > 1 for count in counted.values()),
        agreement=_mean(agreed),
        kappa=_mean(kappas),
    )


def kappa(left: Bools, right: Bools, weights: Weights | None = None) -> float | None:
    """Cohen's κ: (agreement − chance)/(1 − chance). None where both only ever say one and the same."""
    if not len(left):
        return None
    weights = np.ones(len(left)) if weights is None else weights
    share = weights / weights.sum()
    agreement = float(share[left == right].sum())
    p, q = float(share[left].sum()), float(share[right].sum())
    chance = p * q + (1 - p) * (1 - q)
    return None if chance >= 1 - 1e-9 else (agreement - chance) / (1 - chance)


def _mean(parts: Sequence[tuple[int, float]]) -> float | None:
    total = sum(count for count, _ in parts)
    return sum(count * value for count, value in parts) / total if total else None
