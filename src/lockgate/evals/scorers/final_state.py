"""The state of a simulation's world when the trial ended."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lockgate.evals.scorers.sample import Mark, Sample, Scorer, skip


def final_state(*, root: Path = Path()) -> Scorer:
    """1 when the world ended as the case's expected_tools would leave it, else 0.

    Range: 0 or 1. Needs: a simulation with a world. Source: tau-bench's database check: expected calls are made in a
    fresh world, and what changed there is compared with what changed in the trial's. The way there does not matter.
    """
    known: dict[str, dict[str, Any]] = {}

    def score(sample: Sample) -> Mark:
        from lockgate.evals.simulation.model import simulation_of
        from lockgate.evals.simulation.world import expected_changes, load_world

        case = sample.case
        simulation = None if case is None else simulation_of(case)
        if case is None or simulation is None or simulation.world is None:
            return skip("the case has no metadata.simulation.world")
        if case.expected_tools is None:
            return skip("the case has no expected_tools")
        if sample.result.changes is None:
            return Mark(0.0, "the trial left no state")
        if case.expectation_digest + case.digest not in known:
            world = load_world(simulation.world, root)(case)
            known[case.expectation_digest + case.digest] = expected_changes(world, case.expected_tools)
        expected, found = known[case.expectation_digest + case.digest], sample.result.changes
        wrong = sorted(path for path in expected.keys() | found.keys() if expected.get(path) != found.get(path))
        if not wrong:
            return Mark(1.0, f"{len(expected)} changes, as expected")
        first = wrong[0]
        return Mark(
            0.0, f"{len(wrong)} differ; {first} is {found.get(first)!r}, expected {expected.get(first)!r}"[:500]
        )

    return score
