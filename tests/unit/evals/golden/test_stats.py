"""What a golden set is made of, counted by hand, and its division."""

from __future__ import annotations

from lockgate.evals.golden.stats import divide, stats
from lockgate.evals.model import Case

CASES = [
    Case(id="a", input="x" * 100, expected_output="yes", tags=["late", "angry"], cluster="k1", owner="ana", weight=3.0),
    Case(id="b", input="x" * 101, expected_output="no", tags=["late"], cluster="k1", owner="ana", split="test"),
    Case(id="c", input="x" * 4000, expected_tools=[], must_not=["sorry"], tags=["late"]),
    Case(id="d", input={"messages": [{"role": "user", "content": "hi"}]}, labels={"refuse": True}, contexts=["k"]),
]


def test_the_figures_are_those_that_one_counts_by_hand() -> None:
    found = stats(CASES)
    assert (found.cases, found.clusters) == (4, 3)  # a and b share one, c and d are their own
    assert found.weight == 6.0
    assert found.effective == 6.0**2 / (9 + 1 + 1 + 1)  # Kish: (Σw)²/Σw² = 3
    assert found.tags == {"late": 3, "angry": 1}
    assert found.splits == {"(none)": 3, "test": 1}
    assert found.owners == {"ana": 2, "(none)": 2}
    assert found.expects == {"expected_output": 2, "expected_tools": 1, "must_not": 1, "contexts": 1}
    assert found.input_lengths == [2, 1, 0, 0, 1]
    assert found.labels["expected_output"] == {"yes": 1, "no": 1}
    assert found.labels["refuse"] == {"true": 1}


def test_what_joins_a_cluster_gets_its_split() -> None:
    for seed in ("", "1", "2", "3"):
        by_id = {case.id: case.split for case in divide(CASES, {"dev": 0.5, "test": 0.5}, seed=seed)}
        assert (by_id["a"], by_id["b"]) == ("test", "test")


def test_shares_are_met_by_clusters_and_growth_moves_nothing() -> None:
    cases = [Case(id=f"{n}", input="x", cluster=f"k{n // 2}") for n in range(2000)]
    once = divide(cases, {"dev": 0.3, "test": 0.7})
    assert abs(sum(case.split == "dev" for case in once) / 2000 - 0.3) < 0.05
    assert len({(case.cluster, case.split) for case in once}) == 1000
    grown = divide([*cases, *(Case(id=f"n{n}", input="x") for n in range(500))], {"dev": 0.3, "test": 0.7})
    assert grown[:2000] == once
