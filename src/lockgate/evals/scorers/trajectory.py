"""trajectory_match: the way an agent went, against the expected one."""

from __future__ import annotations

from typing import Literal

from lockgate.evals.scorers.sample import Mark, Sample, Scorer, skip
from lockgate.evals.scorers.tools import difference, fits, wanted


def trajectory_match(
    *, mode: Literal["strict", "unordered", "subset", "superset"] = "strict", arguments: bool = False
) -> Scorer:
    """1 when the tools called are the expected ones, else 0.

    ``strict``: the same calls in the same order; ``unordered``: in any order; ``subset``: no call but expected ones;
    ``superset``: all expected ones, and maybe more. ``arguments``: they must fit too.

    Range: 0 or 1. Needs: expected_tools. Source: the four modes of LangChain's agentevals.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_tools is None:
            return skip("the case has no expected_tools")
        expected, made = sample.case.expected_tools, sample.result.tools_used
        if mode == "strict":
            right = len(expected) == len(made) and all(
                fits(want, call, arguments) for want, call in zip(expected, made, strict=True)
            )
            return Mark(float(right), "" if right else difference(expected, made) or "other arguments")
        left, missing = list(made), 0
        for want in sorted(expected, key=lambda one: -len(wanted(one)[1])):
            found = next((call for call in left if fits(want, call, arguments)), None)
            if found is None:
                missing += 1
            else:
                left.remove(found)
        right = (mode == "subset" or not missing) and (mode == "superset" or not left)
        return Mark(float(right), "" if right else difference(expected, made) or "other arguments or number of calls")

    return score
