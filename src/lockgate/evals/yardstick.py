"""What an agent is measured by, as digests: a verdict by anything else says nothing of it."""

from __future__ import annotations

from pathlib import Path

from lockgate.errors import LockgateError
from lockgate.evals.golden import dataset_digest, read_cases
from lockgate.evals.rubric import check_decides, parse_rubric
from lockgate.versions.model import AgentSettings, Yardstick


def yardstick(settings: AgentSettings, root: Path) -> Yardstick:
    """The digests of the agent's own rubric and golden set.

    None for one that cannot be read from ``root``, or that the agent file does not state: then there is no other than
    what the command names.
    """
    try:
        rubric = parse_rubric(settings.evals, root, where="evals")
    except LockgateError:
        return Yardstick()
    golden = None
    if rubric.dataset is not None and (root / rubric.dataset).is_file():
        try:
            golden = dataset_digest(read_cases(root / rubric.dataset, shown_as=rubric.dataset))
        except LockgateError:
            golden = None
    try:
        check_decides(rubric)
    except LockgateError:
        return Yardstick(golden=golden)
    return Yardstick(rubric=rubric.digest, golden=golden)
