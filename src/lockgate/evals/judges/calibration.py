"""How far a judge agrees with people, and how it is biased. Pure.

A label is a person's score in 0..1. For agreement both are cut at a half: at least 0.5 is good.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import numpy as np

from lockgate.evals.judges.agreement import Agreement, kappa
from lockgate.evals.model import JudgeSettings, Metric

FEWEST = 30
"""Labels below which a judge does not count as calibrated."""
KAPPA = 0.6
"""Agreement below which it does not either: "substantial" begins here (Landis and Koch 1977)."""


class Pair(msgspec.Struct, frozen=True, kw_only=True):
    """One answer, graded by both. ``judge`` is None where it gave no usable answer; ``length`` is in characters."""

    item: str
    human: float
    judge: float | None
    length: int = 0
    weight: float = 1.0  # answers that this one stands for


class Calibration(msgspec.Struct, frozen=True, kw_only=True):
    """What a calibration found. ``digest`` names the judge, its words and its metric exactly."""

    digest: str
    metric: str
    model: str
    labels: int
    unscored: int
    agreement: float
    kappa: float | None
    sensitivity: float | None
    specificity: float | None
    mean_error: float  # judge − human
    error_sd: float
    length_bias: float | None  # correlation of judge − human with the answer's length
    position_bias: float | None = None  # share of pairs whose verdict changes with their order
    first_bias: float | None = None  # −1..1: how much better an answer fares in the first place than in the second
    position_pairs: int = 0
    annotators: int = 0  # people, where it is known who graded
    doubly: int = 0  # answers that two of them graded
    human_kappa: float | None = None  # how far people agree with one another
    pairs: list[tuple[float, float]] = []  # judge and human, answer by answer: a gate's mean is corrected from them
    weights: list[float] = []  # of the pairs: answers that each stands for
    agent: str = ""  # whose answers were graded; empty: not said
    spent_nano: int = 0
    created_at: float = 0.0

    @property
    def good(self) -> bool:
        """Whether the judge may block a release."""
        return self.labels - self.unscored >= FEWEST and self.kappa is not None and self.kappa >= KAPPA

    @property
    def why_not(self) -> str:
        """What is missing; empty when it is good."""
        if self.labels - self.unscored < FEWEST:
            return f"{self.labels - self.unscored} usable labels, fewer than {FEWEST}"
        if self.kappa is None:
            return "all labels are of one kind: agreement cannot be told from chance"
        return "" if self.good else f"κ {self.kappa:.2f}, less than {KAPPA}"


def judge_digest(settings: JudgeSettings, metric: Metric) -> str:
    """``sha256:…`` of everything that decides what the judge says: models, parameters, words, the metric's options."""
    judge = msgspec.to_builtins(msgspec.structs.replace(settings, calibrated=False))
    content = [judge, metric.scorer, metric.options, metric.version]
    return "sha256:" + hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def calibrate(
    pairs: Sequence[Pair],
    settings: JudgeSettings,
    metric: Metric,
    *,
    now: float,
    swapped: Sequence[tuple[float, float]] = (),
    people: Agreement | None = None,
) -> Calibration:
    """Hold the judge against people. ``swapped`` says of pairs of answers how good the same one of the two was found
    (1 better, 0.5 a tie, 0 worse) when it stood first, and when it stood second.

    κ is Cohen's: (agreement − chance)/(1 − chance); sensitivity and specificity take the people as the truth. All are
    of the answers that the labelled ones stand for (their weights), so that drawing more of the rare kind bends none.
    """
    scored = [pair for pair in pairs if pair.judge is not None]
    human = np.array([pair.human >= 0.5 for pair in scored], dtype=bool)
    judge = np.array([(pair.judge or 0.0) >= 0.5 for pair in scored], dtype=bool)
    errors = np.array([(pair.judge or 0.0) - pair.human for pair in scored])
    weights = np.array([pair.weight for pair in scored], dtype=float)
    lengths = np.array([pair.length for pair in scored], dtype=float)
    return Calibration(
        digest=judge_digest(settings, metric),
        metric=metric.name,
        model=settings.shown,
        labels=len(pairs),
        unscored=len(pairs) - len(scored),
        agreement=float(np.average(human == judge, weights=weights)) if scored else 0.0,
        kappa=kappa(human, judge, weights),
        sensitivity=float(np.average(judge[human], weights=weights[human])) if human.any() else None,
        specificity=float(np.average(~judge[~human], weights=weights[~human])) if (~human).any() else None,
        mean_error=float(np.average(errors, weights=weights)) if scored else 0.0,
        error_sd=float(errors.std(ddof=1)) if len(scored) > 1 else 0.0,
        length_bias=_correlation(errors, lengths),
        position_bias=sum(first != second for first, second in swapped) / len(swapped) if swapped else None,
        first_bias=sum(first - second for first, second in swapped) / len(swapped) if swapped else None,
        position_pairs=len(swapped),
        annotators=people.annotators if people else 0,
        doubly=people.doubly if people else 0,
        human_kappa=people.kappa if people else None,
        pairs=[(pair.judge or 0.0, pair.human) for pair in scored],
        weights=[pair.weight for pair in scored],
        created_at=now,
    )


def _correlation(left: np.ndarray, right: np.ndarray) -> float | None:
    if len(left) < 3 or left.std() == 0 or right.std() == 0:
        return None
    return float(np.corrcoef(left, right)[0, 1])
