"""loop_rate: an agent that goes round in circles."""

from __future__ import annotations

import json

from lockgate.evals.scorers.sample import Mark, Sample, Scorer


def loop_rate(*, repeats: int = 3, longest: int = 4) -> Scorer:
    """1 when the run repeated the same calls with the same arguments, else 0: the mean is the rate.

    A loop is a cycle of 1 to ``longest`` tool calls that comes ``repeats`` times in a row.
    A rule, not a model's opinion.

    Range: 0 or 1, lower is better. Needs: nothing. Source: our own definition; exact repetition of a cycle.
    """

    def score(sample: Sample) -> Mark:
        calls = [
            (call.name, json.dumps(call.arguments, sort_keys=True, default=str)) for call in sample.result.tools_used
        ]
        for length in range(1, longest + 1):
            for start in range(len(calls) - length * repeats + 1):
                cycle = calls[start : start + length]
                if cycle * repeats == calls[start : start + length * repeats]:
                    return Mark(1.0, f"{' → '.join(name for name, _ in cycle)}, {repeats} times in a row")
        return Mark(0.0)

    return score
