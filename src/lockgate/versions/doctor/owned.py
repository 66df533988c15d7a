"""The check that everything has an owner."""

from __future__ import annotations

from collections.abc import Iterator

from lockgate.versions.doctor.model import Examined, Note
from lockgate.versions.ownership import Ownership


def nobody_s(examined: Examined) -> Iterator[Note]:
    """Agents, prompts, tools and knowledge bases that nobody answers for."""
    ownership = Ownership(examined.project)
    for thing in ownership.everything():
        if thing.owner is None:
            remedy = f"add a line for it to {ownership.place or 'CODEOWNERS'}, or `owner:` to lockgate.yaml"
            if thing.path.endswith((".yaml", ".yml")):
                remedy = f"add `owner:` to it, or {remedy.removeprefix('add ')}"
            yield Note("owner", "advice", f"the {thing.kind} {thing.name!r} has no owner", remedy, thing.path, 1)
