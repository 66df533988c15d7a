"""From what went wrong to the stable words of ``docs/runs.md``. Pure."""

from __future__ import annotations

from lockgate.errors import InputError, Killed, LimitExceeded, LockgateError, Refused, RunFailed, UpstreamError

ERROR_TYPES: dict[str, str] = {
    # limits of the version
    "llm_calls_exceeded": "The run asked for more model calls than max_llm_calls.",
    "tool_calls_exceeded": "The run asked for more tool calls than max_tool_calls.",
    "tokens_exceeded": "The run used up max_tokens_per_run.",
    "time_exceeded": "The run took longer than max_seconds.",
    "cost_exceeded": "The run used up max_usd_per_run.",
    "iterations_exceeded": "The run went round more often than max_iterations.",
    "loop_detected": "The run called the same tool with the same arguments again and again.",
    "depth_exceeded": "Runs that start runs went deeper than max_depth.",
    "budget_exceeded": "A budget outside the run is used up: the agent's, the tenant's, or the run's account.",
    "rate_limited": "Too many requests in a short time; later it may pass.",
    # models
    "model_unavailable": "The model's server cannot be reached, or the gateway cannot.",
    "model_timeout": "The model did not answer in time.",
    "model_error": "The model's server answered with an error.",
    "model_rejected": "The model's server, or the gateway, refused the request as wrong.",
    "model_invalid": "The answer is not a chat completion.",
    "output_invalid": "The answer does not fit the output schema, also after max_iterations repairs.",
    "killed": "Somebody switched the agent, its tenant or its environment off.",
    "model_killed": "Somebody switched the model off.",
    "refused": "The gateway refused the call: identity, roles, or a guardrail.",
    # tools
    "unknown_tool": "The version has no such tool, or the tool has no contract.",
    "invalid_arguments": "The arguments do not fit the tool's input schema.",
    "invalid_result": "The tool's result does not fit its output schema.",
    "tool_failed": "The tool raised an error.",
    "tool_timeout": "The tool took longer than its timeout.",
    "policy_refused": "A policy forbids the call, or none permits it.",
    "approval_rejected": "A person said no to the call.",
    "approval_expired": "Nobody decided on the call, or used the approval, in time.",
    "handler_failed": "The agent's handler raised an error.",
    "no_fixture": "A trial asked a tool for what its case's fixtures do not answer; nothing real was called.",
    "outcome_unknown": "A write may or may not have happened; it will not be repeated. Check by hand.",
    # the run itself
    "input_invalid": "The input is neither text nor a list of messages.",
    "code_error": "The agent's code cannot be loaded, or raised an error.",
    "cancelled": "The caller went away, or the host was told to stop.",
    "host_lost": "The host died while the run was in progress.",
    "diverged": "A resumed or replayed run asked for something else than was recorded.",
    "unscored": "A shadow would have had to act on the world, or to read what the primary changed.",
    "shadow_unsupported": "This kind of agent cannot run in a shadow without a sandbox.",
    "internal_error": "A defect in Lockgate.",
}
"""Every ``error_type``, with its meaning. A test holds ``docs/runs.md`` against it."""

PASSING = frozenset(
    {"model_killed", "model_unavailable", "model_timeout", "model_error", "model_invalid", "rate_limited"}
)
"""Failures after which the next fallback model is tried."""


LONGEST_RATE = 60.0
"""Seconds: rates are of a minute. What lets nothing pass for longer is a budget, until its window ends."""


def model_failure(error: LockgateError | TimeoutError, *, model: str, timeout: float) -> RunFailed:
    """What a failed model call means for the run."""
    match error:
        case RunFailed():
            return error
        case TimeoutError():
            return RunFailed("model_timeout", f"model {model!r} did not answer in {timeout:.0f} s")
        case LimitExceeded(reason=str(reason)) if reason in ERROR_TYPES:
            return RunFailed(reason, error.message, remedy=error.remedy)
        case LimitExceeded(retry_after=None):
            return RunFailed("budget_exceeded", error.message, remedy=error.remedy)
        case LimitExceeded(retry_after=(int() | float()) as wait):
            kind = "rate_limited" if wait <= LONGEST_RATE else "budget_exceeded"
            return RunFailed(kind, error.message, remedy=error.remedy, retry_after=wait)
        case Killed(what=what):
            return RunFailed("model_killed" if what == "model" else "killed", error.message, remedy=error.remedy)
        case Refused():
            return RunFailed("refused", error.message, remedy=error.remedy)
        case UpstreamError(upstream_status=429, retry_after=wait):
            return RunFailed("rate_limited", error.message, remedy=error.remedy, retry_after=wait)
        case UpstreamError(upstream_status=int(status)) if 400 <= status < 500:
            return RunFailed("model_rejected", error.message, remedy=error.remedy)
        case UpstreamError(sent=True):
            return RunFailed("model_error", error.message, remedy=error.remedy)
        case InputError():
            return RunFailed("model_rejected", error.message, remedy=error.remedy)
        case LockgateError():
            return RunFailed("model_unavailable", error.message, remedy=error.remedy)
