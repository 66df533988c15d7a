"""tool_call_accuracy and tool_call_f1: the tools an agent called, against those expected."""

from __future__ import annotations

from typing import Any

from lockgate.evals.scorers.fields import same
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, skip
from lockgate.results import ToolUse

_NO_TOOLS = skip("the case has no expected_tools")


def tool_call_accuracy(*, arguments: bool = True) -> Scorer:
    """The share of calls that are right, in order: the longest common sequence over the longer of the two lists.

    An expected tool is a name, or ``{"name", "arguments"}``; arguments it does not name may be anything.
    Unlike RAGAS' metric of that name, calls that nobody expected count against the answer.

    Range: 0..1. Needs: expected_tools. Source: RAGAS ToolCallAccuracy, with the longer list as the denominator.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_tools is None:
            return _NO_TOOLS
        expected, made = sample.case.expected_tools, sample.result.tools_used
        if not expected and not made:
            return Mark(1.0)
        row = [0] * (len(made) + 1)
        for want in expected:  # longest common subsequence, a row at a time
            previous = row
            row = [0]
            for number, call in enumerate(made):
                hit = previous[number] + 1 if fits(want, call, arguments) else 0
                row.append(max(hit, previous[number + 1], row[number]))
        return Mark(row[-1] / max(len(expected), len(made)), difference(expected, made))

    return score


def tool_call_f1(*, arguments: bool = True) -> Scorer:
    """F1 of the calls made against those expected, whatever their order.

    Range: 0..1. Needs: expected_tools. Source: RAGAS ToolCallF1.
    """

    def score(sample: Sample) -> Mark:
        if sample.case is None or sample.case.expected_tools is None:
            return _NO_TOOLS
        expected, left = sample.case.expected_tools, list(sample.result.tools_used)
        if not expected and not left:
            return Mark(1.0)
        made, hits = len(left), 0
        # the most demanding first, so that a bare name does not take the call that only they fit
        for want in sorted(expected, key=lambda one: -len(wanted(one)[1])):
            found = next((call for call in left if fits(want, call, arguments)), None)
            if found is not None:
                left.remove(found)
                hits += 1
        return Mark(2 * hits / (made + len(expected)), difference(expected, sample.result.tools_used))

    return score


def argument_match() -> Scorer:
    """The share of expected arguments that the calls have right, each expected call held against the best of its name.

    Range: 0..1. Needs: expected_tools with arguments. Source: DeepEval's argument correctness, by comparison.
    """

    def score(sample: Sample) -> Mark:
        expected = None if sample.case is None else sample.case.expected_tools
        asked = [want for want in expected or () if wanted(want)[1]]
        if not asked:
            return skip("the case expects no arguments")
        left, right, total, wrong = list(sample.result.tools_used), 0, 0, []
        for want in asked:
            name, values = wanted(want)
            total += len(values)

            def hits(call: ToolUse, values: dict[str, Any] = values) -> int:
                return sum(key in call.arguments and same(call.arguments[key], values[key]) for key in values)

            best = max((call for call in left if call.name == name), key=hits, default=None)
            if best is None:
                wrong.append(f"{name} was not called")
                continue
            left.remove(best)
            right += hits(best)
            wrong += [f"{name}.{key}" for key in values if not same(best.arguments.get(key), values[key])]
        return Mark(right / total, "; ".join(wrong)[:500])

    return score


def wanted(tool: Any) -> tuple[str, dict[str, Any]]:
    """Name and arguments of an expected tool."""
    if isinstance(tool, str):
        return tool, {}
    return tool["name"], tool.get("arguments") or tool.get("args") or {}


def fits(want: Any, call: ToolUse, arguments: bool) -> bool:
    """Whether a call is the expected one; arguments that are not named may be anything."""
    name, values = wanted(want)
    if name != call.name:
        return False
    return not arguments or all(key in call.arguments and same(call.arguments[key], values[key]) for key in values)


def difference(expected: list[Any], made: list[ToolUse]) -> str:
    """How the names of the calls made differ from those expected; empty when they do not."""
    names, calls = [wanted(want)[0] for want in expected], [call.name for call in made]
    return "" if names == calls else f"called {', '.join(calls) or 'nothing'}, not {', '.join(names) or 'nothing'}"
