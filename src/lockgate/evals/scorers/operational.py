"""What a run cost and took. Lower is better; none needs a case."""

from __future__ import annotations

from lockgate.evals.scorers.sample import Mark, Sample, Scorer


def cost_usd() -> Scorer:
    """USD of the run's model calls.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(sample.result.cost_nano / 1e9)


def usd_per_resolved(*, field: str | None = None) -> Scorer:
    """USD of the run when it resolved its case: all of the expected output, or ``field`` of it, is right.

    Runs that did not resolve theirs are skipped, so read it beside the share that did.

    Range: 0 or more, lower is better. Needs: expected_output. Source: cost per resolved contact.
    """
    from lockgate.evals.scorers.exact import exact_match
    from lockgate.evals.scorers.fields import field_match

    resolved = field_match(fields=[field]) if field else exact_match()

    def score(sample: Sample) -> Mark:
        found = resolved(sample)
        assert isinstance(found, Mark)
        if found.value is None:
            return found
        if found.value < 1:
            return Mark(None, "not resolved", "skipped")
        return Mark(sample.result.cost_nano / 1e9)

    return score


def step_count() -> Scorer:
    """Model calls and tool calls of the run.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(sample.result.model_calls + len(sample.result.tools_used)))


def latency_seconds() -> Scorer:
    """Wall time of the run, in seconds.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(sample.result.seconds)


def tokens() -> Scorer:
    """Input and output tokens of the run.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(sample.result.usage.total_tokens))


def output_tokens() -> Scorer:
    """Output tokens of the run.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(sample.result.usage.output_tokens))


def iterations() -> Scorer:
    """Model calls after the first that only repaired or refined the answer.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(sample.result.iterations))


def model_calls() -> Scorer:
    """Model calls of the run.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(sample.result.model_calls))


def tool_calls() -> Scorer:
    """Tool calls of the run.

    Range: 0 or more, lower is better. Needs: nothing. Source: the run's record.
    """
    return lambda sample: Mark(float(len(sample.result.tools_used)))


def error_rate(*, allow: list[str] | None = None) -> Scorer:
    """1 when the run did not complete, else 0. Error types in ``allow`` are no failures.

    Range: 0 or 1, lower is better. Needs: nothing. Source: the run's record.
    """

    def score(sample: Sample) -> Mark:
        failed = sample.result.status not in ("completed", "suspended")
        failed = failed and sample.result.error_type not in (allow or ())
        return Mark(float(failed), sample.result.error or "" if failed else "")

    return score
