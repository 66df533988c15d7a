"""One number, two behaviours: when that is said, and when it is refused."""

from __future__ import annotations

import pytest

from lockgate.errors import Conflict
from lockgate.versions.model import LockedVersion
from lockgate.versions.renumbered import Deployed, refuse, renumbered, warnings

OLD, NEW = "sha256:" + "a" * 64, "sha256:" + "b" * 64
IN_PROD = {OLD: Deployed("support", 1, ("prod",))}


def entry(digest: str, version: int = 1, agent: str = "support") -> LockedVersion:
    file = f"agents/{agent}.v{version}.yaml"
    return LockedVersion(agent=agent, version=version, file=file, digest=digest, settings="sha256:0")


def test_a_number_that_was_not_deployed_warns_with_both_digests() -> None:
    found = renumbered([entry(OLD)], [entry(NEW)], {})
    (warning,) = warnings(found)
    assert "support@1 was aaaaaaaaaaaa, and is bbbbbbbbbbbb now" in warning.message
    assert warning.remedy == "count `version` up in agents/support.v1.yaml, to keep the two apart"
    refuse(found)


def test_a_deployed_number_is_refused_with_its_environment() -> None:
    with pytest.raises(Conflict, match=r"support@1 was aaaaaaaaaaaa \(deployed to prod\)") as caught:
        refuse(renumbered([entry(OLD)], [entry(NEW)], IN_PROD))
    assert "--same-number" in caught.value.remedy


def test_deleting_the_lock_file_forgets_no_deployed_number() -> None:
    with pytest.raises(Conflict):
        refuse(renumbered([], [entry(NEW)], IN_PROD))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], [entry(NEW, 2)]),  # a number that nobody had
        ([entry(OLD)], [entry(OLD)]),
        ([entry(OLD), entry(OLD, 2)], [entry(OLD), entry(NEW, 2)]),  # a copy, edited: its origin keeps the digest
        ([entry(OLD)], [entry(OLD), entry(NEW, 1, "other")]),
    ],
)
def test_a_digest_that_keeps_a_number_is_nothing_to_speak_of(
    before: list[LockedVersion], after: list[LockedVersion]
) -> None:
    assert renumbered(before, after, IN_PROD) == []
