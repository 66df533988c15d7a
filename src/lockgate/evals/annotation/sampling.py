"""Which answers people are asked to grade. Pure: randomness is an argument."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from random import Random

T = TypeVar("T")


def in_turn(strata: Mapping[str, Sequence[T]], random: Random) -> Iterator[tuple[str, T]]:
    """The members of the strata in an order that takes from each in turn, and at random within one.

    So that few labels hold all kinds: a judge that is nearly always content would else show few answers it is not.
    """
    names = sorted(strata)
    shuffled = {name: random.sample(list(strata[name]), len(strata[name])) for name in names}
    for turn in range(max((len(members) for members in shuffled.values()), default=0)):
        for name in names:
            if turn < len(shuffled[name]):
                yield name, shuffled[name][turn]


def weights(sizes: Mapping[str, int], taken: Mapping[str, int]) -> dict[str, float]:
    """By stratum, how many answers each one taken stands for, over the mean of all: they average 1."""
    drawn = {name: count for name, count in taken.items() if count}
    raw = {name: sizes[name] / count for name, count in drawn.items()}
    total = sum(drawn.values())
    mean = sum(raw[name] * count for name, count in drawn.items()) / total if total else 1.0
    return {name: value / mean for name, value in raw.items()}


def share_of(items: Sequence[T], fraction: float, random: Random) -> set[int]:
    """The places of about this fraction of the items, at least one where the fraction is not 0."""
    count = 0 if fraction <= 0 else max(1, round(fraction * len(items)))
    return set(random.sample(range(len(items)), min(count, len(items))))


def kind_of(score: float | None) -> str:
    """A stratum by what the judge said."""
    return "not judged" if score is None else "judged good" if score >= 0.5 else "judged bad"
