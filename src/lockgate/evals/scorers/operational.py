"""What a run cost and took. Lower is better; none needs a case."""

from __future__ import annotations

from lockgate.evals.scorers.sample import Mark, Sample, Scorer


def cost_usd() -> Scorer:
    """USD of the run's model calls."""
    return lambda sample: Mark(sample.result.cost_nano / 1e9)


def latency_seconds() -> Scorer:
    """Wall time of the run, in seconds."""
    return lambda sample: Mark(sample.result.seconds)


def tokens() -> Scorer:
    """Input and output tokens of the run."""
    return lambda sample: Mark(float(sample.result.usage.total_tokens))


def output_tokens() -> Scorer:
    """Output tokens of the run."""
    return lambda sample: Mark(float(sample.result.usage.output_tokens))


def iterations() -> Scorer:
    """Model calls after the first that only repaired or refined the answer."""
    return lambda sample: Mark(float(sample.result.iterations))


def model_calls() -> Scorer:
    """Model calls of the run."""
    return lambda sample: Mark(float(sample.result.model_calls))


def tool_calls() -> Scorer:
    """Tool calls of the run."""
    return lambda sample: Mark(float(len(sample.result.tools_used)))


def error_rate() -> Scorer:
    """1 when the run did not complete, else 0."""

    def score(sample: Sample) -> Mark:
        failed = sample.result.status not in ("completed", "suspended")
        return Mark(float(failed), sample.result.error or "" if failed else "")

    return score
