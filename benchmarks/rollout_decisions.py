"""What whole rollouts decide, and when, through the code that decides them; and what a tick costs.

    python benchmarks/rollout_decisions.py [--rollouts 200] [--seed 1]

The meters by themselves are in ``statistics_gates.py``. Here units go one by one through evidence and decision, all
metrics at once, as the controller does it. Counts are in candidate units; 5 % of the users go to the candidate
unless a plan says otherwise.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from sqlalchemy import insert

from lockgate.rollouts import evidence, gather, store
from lockgate.rollouts.decision import decide
from lockgate.rollouts.evidence import Observation, Reference, State, Unit
from lockgate.rollouts.model import MetricSpec, Phase, Plan, Rollout, Situation
from lockgate.storage import schema
from lockgate.storage.engine import open_database
from lockgate.versions.model import AgentSettings, VersionRef

ERRORS = MetricSpec(name="errors", kind="errors", max_rate=0.05)
COST = MetricSpec(name="cost_usd", kind="cost", ratio=1.2)
QUALITY = MetricSpec(name="quality", kind="quality", margin=0.05)


def qualities(count: int) -> tuple[MetricSpec, ...]:
    return tuple(MetricSpec(name=f"quality_{number}", kind="quality", margin=0.05) for number in range(count))


class World:
    """Users of one agent: each yields one observation, which depends on the version that serves it."""

    def __init__(
        self, rng: np.random.Generator, *, error: float = 0.005, score: float = 0.85, cost: float = 1.0
    ) -> None:
        self.rng = rng
        self.error, self.score, self.cost = error, score, cost

    def observe(self, plan: Plan, incident: float = 0.0) -> Observation:
        spread = 0.15**2
        strength = self.score * (1 - self.score) / spread - 1
        scores = {
            spec.name: float(self.rng.beta(self.score * strength, (1 - self.score) * strength))
            for spec in evidence.qualities(plan)
        }
        return Observation(
            error=bool(self.rng.random() < max(self.error, incident)),
            cost_nano=int(1e6 * self.cost * self.rng.lognormal(-0.125, 0.5)),
            seconds=1.0,
            scores=scores,
        )


def roll_out(
    rng: np.random.Generator, plan: Plan, stable: World, candidate: World, *, most: int, incident: float = 0.0
) -> tuple[str, int]:
    """(how it ended, candidate units until then); decided after every candidate unit."""
    states = {spec.name: State(reference=Reference(value=1e6, at=0.0, units=100)) for spec in plan.metrics}
    phase, in_phase, units, failed = 0, 0, 0, 0
    for seq in itertools.count(1):
        weight = plan.phases[phase].weight / 100
        mine = bool(rng.random() < weight)
        now = incident if plan.phases[phase].weight > plan.phases[0].weight else 0.0
        seen = (candidate if mine else stable).observe(plan, now)
        unit = Unit(seq=seq, key=str(seq), candidate=mine, weight=weight, assigned_at=float(seq))
        for spec in plan.metrics:
            states[spec.name] = evidence.add_unit(spec, states[spec.name], unit, seen)
        if not mine:
            continue
        units, in_phase, failed = units + 1, in_phase + 1, failed + seen.error
        wealth = 1.0 if plan.catastrophe is None else evidence.catastrophe(units, failed, plan.catastrophe)
        decision = decide(
            plan,
            Situation(
                phase=phase,
                phase_seconds=math.inf,
                phase_units=in_phase,
                pairs=0,
                readings=tuple(evidence.read(spec, states[spec.name]) for spec in plan.metrics),
                catastrophe=wealth,
            ),
        )
        if decision.action == "advance":
            phase, in_phase = phase + 1, 0
        elif decision.action in ("rollback", "promote"):
            return decision.action, units
        if units >= most:
            return "inconclusive", units
    raise AssertionError


def soon(rows: list[tuple[str, int]], action: str) -> str:
    counts = sorted(units for ended, units in rows if ended == action)
    share = len(counts) / len(rows)
    if not counts:
        return "never"
    return f"{share:4.0%}, mean {np.mean(counts):5.0f}, p90 {counts[int(0.9 * (len(counts) - 1))]:4d}"


def decisions(rng: np.random.Generator, rollouts: int) -> None:
    five = (Phase(weight=5),)
    ramp = (Phase(weight=5, min_units=20), Phase(weight=25, min_units=60), Phase(weight=50, min_units=200))
    one = Plan(phases=five, metrics=(ERRORS,), catastrophe=None)
    six = Plan(phases=five, metrics=(ERRORS, COST, *qualities(4)), catastrophe=None)
    full = Plan(phases=ramp, metrics=(ERRORS, COST, QUALITY))
    rows: list[tuple[str, str, Plan, World, int, float]] = [
        ("20 % errors, 1 metric (anchor 13)", "rollback", one, World(rng, error=0.2), 400, 0.0),
        ("20 % errors, 6 metrics (anchor 19)", "rollback", six, World(rng, error=0.2), 400, 0.0),
        ("50 % errors, 1 metric (anchor 5)", "rollback", one, World(rng, error=0.5), 200, 0.0),
        ("100 % errors, ramp, fast path", "rollback", full, World(rng, error=1.0), 200, 0.0),
        ("twice the cost, ramp", "rollback", full, World(rng, cost=2.0), 600, 0.0),
        ("quality .85 → .70, ramp", "rollback", full, World(rng, score=0.7), 600, 0.0),
        ("identical, ramp (false rollbacks)", "rollback", full, World(rng), 600, 0.0),
        ("identical, ramp, 20 % incident from 25 % on", "rollback", full, World(rng), 300, 0.2),
        ("identical, ramp, safe", "promote", full, World(rng), 600, 0.0),
    ]
    print(f"{rollouts} rollouts each; counts in candidate units")
    for name, action, plan, candidate, most, incident in rows:
        ended = [roll_out(rng, plan, World(rng), candidate, most=most, incident=incident) for _ in range(rollouts)]
        print(f"  {name:<46} {action:<9} {soon(ended, action)}  (within {most})", flush=True)


def ticks() -> None:
    """Speed on SQLite: assigning, and letting units enter."""
    with tempfile.TemporaryDirectory() as folder:
        control = open_database(Path(folder) / "control.db", "control")
        refs = [VersionRef(agent="a", behaviour_digest=f"sha256:{n}", effective_digest=f"sha256:{n}") for n in "bc"]
        rollout = Rollout(
            id="rollout_a",
            environment="prod",
            agent="a",
            baseline=refs[0],
            candidate=refs[1],
            plan=Plan(phases=(Phase(weight=50),), metrics=(ERRORS, COST), session_idle=0, min_reference=1),
            settings=AgentSettings(),
            status="running",
            phase=0,
            phase_started_at=0.0,
            reason="",
            created_by="",
            created_at=0.5,
            updated_at=0.0,
        )
        began = time.perf_counter()
        arms = {str(n): store.assign(control, rollout.id, str(n), 50, float(n)) for n in range(1000)}
        first = time.perf_counter() - began
        began = time.perf_counter()
        for key in arms:
            store.assign(control, rollout.id, key, 50, 0.0)
        again = time.perf_counter() - began
        with control.write() as connection:
            store.insert_rollout(connection, rollout)
            connection.execute(insert(schema.runs), list(_runs(arms)))
        with control.read() as connection:
            began = time.perf_counter()
            known = gather.bring_up_to_date(connection, rollout, gather.load(connection, rollout), 1e6)
            entered = time.perf_counter() - began
        assert known.traffic.candidate_units + known.traffic.baseline_units == 1000
        with control.write() as connection:
            gather.save(connection, rollout, gather.load(connection, rollout), known, 1e6)
        with control.read() as connection:
            began = time.perf_counter()
            for _ in range(50):
                known = gather.bring_up_to_date(connection, rollout, gather.load(connection, rollout), 1e6)
                decide(rollout.plan, gather.situation(connection, rollout, known, now=1e6, ready=True))
            idle = (time.perf_counter() - began) / 50
        control.close()
    print(f"assign: {1000 / first:,.0f} new keys/s (written through), {1000 / again:,.0f} known keys/s")
    print(
        f"evidence: {1000 / entered:,.0f} units/s enter two metrics; a tick with nothing new takes {idle * 1e3:.1f} ms"
    )


def _runs(arms: dict[str, str]) -> Iterator[dict[str, object]]:
    for n, (key, arm) in enumerate(arms.items()):
        yield {
            "id": f"run_{n:06}",
            "agent": "a",
            "environment": "prod",
            "behaviour_digest": "sha256:b" if arm == "stable" else "sha256:c",
            "effective_digest": "sha256:b" if arm == "stable" else "sha256:c",
            "arm": arm,
            "rollout_id": "rollout_a",
            "assignment_key": key,
            "tenant": "t",
            "status": "completed",
            "input": "x",
            "cost_nano": 1000,
            "trace_id": "0" * 32,
            "started_at": float(n),
            "ended_at": float(n) + 1,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rollouts", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    ticks()
    decisions(np.random.default_rng(arguments.seed), arguments.rollouts)


if __name__ == "__main__":
    main()
