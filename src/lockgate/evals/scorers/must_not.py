"""must_not: what an answer must never say or do."""

from __future__ import annotations

import re

from lockgate.errors import InputError
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text, normal, skip


def must_not(*, forbidden: list[str] | None = None) -> Scorer:
    """1 when nothing forbidden was said or done, else 0.

    Forbidden are the case's ``must_not`` and the rubric's ``forbidden``: a text, ``re:PATTERN``, or ``tool:NAME`` for a
    tool that must not be called. Skips cases where nothing is forbidden.

    Range: 0 or 1. Needs: must_not, or ``forbidden``. Source: our own definition.
    """
    for rule in forbidden or ():
        _check(rule)

    def score(sample: Sample) -> Mark:
        rules = [*(forbidden or ()), *((sample.case.must_not or ()) if sample.case else ())]
        if not rules:
            return skip("nothing is forbidden in this case")
        answer = as_text(sample.output)
        plain = normal(answer)
        called = {call.name for call in sample.result.tools_used}
        broken = []
        for rule in rules:
            _check(rule)
            kind, _, rest = rule.partition(":")
            if kind == "tool":
                hit = rest in called
            elif kind == "re":
                hit = re.search(rest, answer) is not None
            else:
                hit = normal(rule) in plain
            if hit:
                broken.append(rule)
        return Mark(float(not broken), f"forbidden: {', '.join(broken)}" if broken else "")

    return score


def _check(rule: str) -> None:
    if rule.startswith("re:"):
        try:
            re.compile(rule[3:])
        except re.error as wrong:
            raise InputError(f"must_not {rule!r} is not a regular expression: {wrong}", remedy="correct it") from None
