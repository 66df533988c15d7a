"""side_effects: what was changed is what should have been."""

from __future__ import annotations

from lockgate.evals.scorers.sample import Mark, Sample, Scorer, skip
from lockgate.evals.scorers.tools import fits, wanted


def side_effects(*, tools: list[str], arguments: bool = True) -> Scorer:
    """1 when the run's calls of ``tools``, those that change something, are exactly the expected ones, else 0.

    Order does not matter; a call too many counts as much as one that is missing. Calls that failed changed nothing.

    Range: 0 or 1. Needs: expected_tools (only ``tools`` of it count; none expected: none may be made).
    Source: goal-state comparison of tau-bench (Yao et al. 2024), on the calls instead of the database.
    """
    writes = set(tools)

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_tools is None:
            return skip("the case has no expected_tools")
        left = [call for call in sample.result.tools_used if call.name in writes and call.error is None]
        missing = []
        expected = [want for want in sample.case.expected_tools if wanted(want)[0] in writes]
        for want in sorted(expected, key=lambda one: -len(wanted(one)[1])):
            found = next((call for call in left if fits(want, call, arguments)), None)
            if found is None:
                missing.append(wanted(want)[0])
            else:
                left.remove(found)
        said = [f"missing: {', '.join(missing)}"] if missing else []
        said += [f"not intended: {', '.join(call.name for call in left)}"] if left else []
        return Mark(float(not said), "; ".join(said))

    return score
