"""What an evaluation saw, packed."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from lockgate.errors import InputError
from lockgate.evals.comparing import paired
from lockgate.evals.grid import SCORED, Grid
from lockgate.evals.model import Case
from lockgate.evals.tables import CaseTable, key_of, pack, unpack


def table(ids: list[str], trials: int = 2, seed: int = 1) -> CaseTable:
    random = np.random.default_rng(seed)
    shape = (len(ids), trials)
    values = random.random(shape)
    values[0, 0] = np.nan
    cases = [
        Case(
            id=id, input=None, tags=["a", "b"] if n % 2 else [], cluster=f"k{n // 2}" if n % 3 else None, weight=n + 0.5
        )
        for n, id in enumerate(ids)
    ]
    grids = {"exact_match": Grid(values, np.full(shape, SCORED, dtype=np.uint8))}
    return CaseTable([key_of(id) for id in ids], cases, grids, random.random(shape), random.random(shape))


def test_a_table_comes_back_as_it_was() -> None:
    given = table([f"c{n}" for n in range(50)])
    found = unpack(pack(given))
    assert found.cases == given.cases
    assert list(found.keys) == list(given.keys)
    for name, grid in given.grids.items():
        np.testing.assert_array_equal(found.grids[name].values, grid.values)
        np.testing.assert_array_equal(found.grids[name].status, grid.status)
    np.testing.assert_array_equal(found.costs, given.costs)
    np.testing.assert_array_equal(found.seconds, given.seconds)


def test_a_digest_is_its_own_key_and_any_other_name_gets_one() -> None:
    digest = hashlib.sha256(b"x")
    assert key_of(f"sha256:{digest.hexdigest()}") == digest.digest()
    assert len(key_of("c1")) == 32
    assert key_of("c1") != key_of("c2")


def test_runs_are_paired_by_what_was_asked_whatever_their_order() -> None:
    before, after = table(["a", "b", "c", "x"], seed=1), table(["c", "y", "a", "b"], seed=2)
    found = paired(before, after)
    assert [case.id for case in found.after.cases] == ["c", "a", "b"]
    assert list(found.before.keys) == list(found.after.keys)
    np.testing.assert_array_equal(found.before.costs[0], before.costs[2])
    np.testing.assert_array_equal(found.after.costs[1], after.costs[2])
    assert found.left_out == 2
    with pytest.raises(InputError, match="no case in common"):
        paired(table(["a"]), table(["b"]))
