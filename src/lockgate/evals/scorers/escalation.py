"""escalation_rate: how often a person is needed."""

from __future__ import annotations

import re

from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text

_HANDS_OVER = re.compile(
    r"\b(escalat(e|ed|ing)|(transfer(red|ring)?|hand(ed|ing)?|pass(ed|ing)?|forward(ed|ing)?) (you|this|it|the \w+)"
    r"( over| on)? to (a|an|our|the) (human|person|colleague|agent|specialist|supervisor|manager|team))",
    re.I,
)
_TOOL = re.compile(r"(escalat|transfer_to_(a_)?human|hand_?off|human_agent)", re.I)


def escalation_rate(*, tools: list[str] | None = None, pattern: str | None = None) -> Scorer:
    """1 when the run handed over to a person, else 0: the mean is the rate.

    It did when it waits for an approval, called one of ``tools`` (by default those named like an escalation), or said
    so in its answer (``pattern``; by default usual phrases in English). A rule, not a model's opinion.

    Range: 0 or 1, lower is better. Needs: nothing. Source: containment rate of contact centres, the other way round.
    """
    says = re.compile(pattern, re.I) if pattern else _HANDS_OVER

    def score(sample: Sample) -> Mark:
        if sample.result.status == "suspended":
            return Mark(1.0, "waits for an approval")
        for call in sample.result.tools_used:
            if call.name in tools if tools is not None else _TOOL.search(call.name):
                return Mark(1.0, f"called {call.name}")
        said = says.search(as_text(sample.output))
        return Mark(1.0, f"said {said[0]!r}") if said else Mark(0.0)

    return score
