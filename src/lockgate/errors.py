"""Every error Lockgate raises on purpose, one tree.

    LockgateError                 exit  HTTP   meaning
    ├── InputError                  2    400   the user's file, flag or request is wrong
    │   ├── TooLarge                2    413   the request is larger than allowed
    │   └── MissingExtra            2    501   an optional dependency is not installed
    ├── NotFound                    2    404   the thing named does not exist
    ├── Conflict                    1    409   somebody else was first, or the state forbids it
    ├── Corrupt                     4    500   stored bytes are not what their digest says
    ├── Refused                     1    403   a rule says no
    │   ├── Unauthenticated         1    401   no key, a wrong key, an expired token
    │   │   └── Expired             1    401   it was good, and its time is over
    │   ├── Killed                  1    403   somebody has switched it off
    │   ├── Blocked                 1    403   a guardrail stopped it
    │   ├── LimitExceeded           1    429   a budget, rate or action limit is reached
    │   └── ApprovalPending         1    202   the run waits for a person's yes
    ├── Unavailable                 4    503   something Lockgate needs does not answer
    │   └── UpstreamError           4    502   a model provider failed; says whether it was sent
    │       └── UpstreamBusy        4    503   none of its upstreams takes the call now
    ├── Diverged                    1    409   a replayed run asked for something else
    └── RunFailed                   1    422   a run ended without an answer, for a typed reason
        └── ToolFailed              1    422   one tool call did; a handler may catch it and go on

A message names what is wrong, where, the value (quoted with ``!r``) and the remedy.
"""

from __future__ import annotations

import time
from pathlib import Path

__all__ = [
    "ApprovalPending",
    "Blocked",
    "Conflict",
    "Corrupt",
    "Diverged",
    "Expired",
    "InputError",
    "Killed",
    "LimitExceeded",
    "LockgateError",
    "MissingExtra",
    "NotFound",
    "Refused",
    "RunFailed",
    "TooLarge",
    "ToolFailed",
    "Unauthenticated",
    "Unavailable",
    "UpstreamBusy",
    "UpstreamError",
]


class LockgateError(Exception):
    """The root: ``exit_code`` for the command line, ``status`` for HTTP, ``code`` for programs."""

    exit_code = 4
    status = 500
    code = "internal_error"
    paid_nano = 0
    """What a call that failed cost all the same."""

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  → {self.remedy}" if self.remedy else self.message


class InputError(LockgateError):
    """The user's input is wrong. ``path`` and ``line`` (1-based) say where, when it is a file."""

    exit_code = 2
    status = 400
    code = "invalid_request"

    def __init__(
        self,
        message: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        remedy: str | None = None,
    ) -> None:
        where = "" if path is None else f"{path}:{line}: " if line else f"{path}: "
        super().__init__(where + message, remedy=remedy)
        self.path = None if path is None else str(path)
        self.line = line


class TooLarge(InputError):
    """A request is larger than allowed."""

    status = 413
    code = "too_large"


class MissingExtra(InputError):
    """An optional part is not installed."""

    status = 501
    code = "missing_extra"

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(
            f"{what} needs an optional part that is not installed",
            remedy=f"pip install 'lockgate[{extra}]'",
        )


class NotFound(LockgateError):
    """The thing named does not exist."""

    exit_code = 2
    status = 404
    code = "not_found"


class Conflict(LockgateError):
    """Somebody else was first, or the state forbids it."""

    exit_code = 1
    status = 409
    code = "conflict"


class Corrupt(LockgateError):
    """Stored bytes are not what their digest says."""

    code = "corrupt"


class Refused(LockgateError):
    """A rule says no."""

    exit_code = 1
    status = 403
    code = "refused"


class Unauthenticated(Refused):
    """No key, a wrong key, or an expired token."""

    status = 401
    code = "unauthenticated"


class Expired(Unauthenticated):
    """What was shown was good until its time was over. ``what`` is run_token, key, or token (an issuer's); ``at`` when
    that was, in Unix seconds."""

    code = "expired"

    def __init__(self, shown: str, *, what: str, at: float, remedy: str | None = None) -> None:
        when = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(max(0.0, at)))
        super().__init__(f"{shown} has expired, at {when}", remedy=remedy)
        self.what = what
        self.at = at


class Killed(Refused):
    """Somebody has switched it off. ``what`` is the narrowest thing named: model, agent, tenant or environment."""

    code = "killed"

    def __init__(self, message: str, *, what: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.what = what


class Blocked(Refused):
    """A guardrail stopped a call. ``guard`` is which one, ``side`` whether it was the input or the output."""

    code = "guardrail_blocked"

    def __init__(self, message: str, *, guard: str, side: str, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.guard = guard
        self.side = side


class LimitExceeded(Refused):
    """A limit is reached. ``retry_after`` is seconds until it may pass, None when waiting cannot help.

    ``reason``: when a run has to end for it, the word of ``docs/runs.md`` that says why. ``unit``: when it is a rate,
    what it counts.
    """

    status = 429
    code = "limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        limit: str,
        retry_after: float | None = None,
        remedy: str | None = None,
        reason: str | None = None,
        unit: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.limit = limit
        self.retry_after = retry_after
        self.reason = reason
        self.unit = unit


class ApprovalPending(Refused):
    """The run is suspended until somebody decides on one exact tool call."""

    status = 202
    code = "approval_pending"

    def __init__(self, message: str, *, run_id: str, approval_id: str) -> None:
        super().__init__(message, remedy=f"lockgate approvals approve {approval_id}")
        self.run_id = run_id
        self.approval_id = approval_id


class Unavailable(LockgateError):
    """Something Lockgate needs does not answer."""

    exit_code = 4
    status = 503
    code = "unavailable"


class UpstreamError(Unavailable):
    """A provider failed. ``sent`` is False only when the request surely never left this machine:
    then nothing was billed and another try is safe. ``retry_after``: the seconds the provider asked to wait."""

    status = 502
    code = "upstream_error"

    def __init__(
        self,
        message: str,
        *,
        sent: bool,
        upstream_status: int | None = None,
        retry_after: float | None = None,
        remedy: str | None = None,
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.sent = sent
        self.upstream_status = upstream_status
        self.retry_after = retry_after


class UpstreamBusy(UpstreamError):
    """No upstream of the provider takes the call now; ``sent`` is False."""

    status = 503
    code = "upstream_busy"


class Diverged(LockgateError):
    """A replayed run asked for something else than the record holds."""

    exit_code = 1
    status = 409
    code = "diverged"


class RunFailed(LockgateError):
    """A run cannot go on. ``error_type`` is one of the words in ``docs/runs.md``; ``retry_after``: another run may,
    after so many seconds."""

    exit_code = 1
    status = 422
    code = "run_failed"

    def __init__(
        self, error_type: str, message: str, *, remedy: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.error_type = error_type
        self.retry_after = retry_after


class ToolFailed(RunFailed):
    """One tool call gave no result: refused, rejected, invalid, raised or timed out."""

    code = "tool_failed"
