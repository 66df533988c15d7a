"""Whether an answer stands on what was found: scorers of the project's own."""

import re


def passages_found(sample):
    """The share of the case's reference_contexts that stand in the passages the agent was given."""
    wanted = sample.case.reference_contexts if sample.case else None
    if not wanted:
        return None, "the case has no reference_contexts"
    given = " ".join(_given(sample))
    missing = [text for text in wanted if text not in given]
    return 1 - len(missing) / len(wanted), f"not found: {missing}" if missing else ""


def numbers_grounded(sample):
    """The share of the answer's numbers that stand in the passages: a number made up costs most."""
    numbers = set(re.findall(r"\d+(?:[.,]\d+)*", sample.output["answer"]))
    if not numbers:
        return None, "no number in the answer"
    known = set(re.findall(r"\d+(?:[.,]\d+)*", " ".join(_given(sample))))
    loose = sorted(numbers - known)
    return 1 - len(loose) / len(numbers), f"in no passage: {loose}" if loose else ""


def _given(sample):
    return [passage["text"] for call in sample.result.tools_used for passage in call.result or ()]
