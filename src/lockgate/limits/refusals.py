"""What a caller is told when a limit stops a call: the arithmetic, and whether waiting can help."""

from __future__ import annotations

from lockgate.errors import LimitExceeded
from lockgate.limits.model import Account, Balance, Rate
from lockgate.limits.windows import seconds_left
from lockgate.money import show_usd
from lockgate.settings.catalogue import LIMITS

SAME = "same "
"""How the window of an account begins that counts calls which are alike."""

_REASONS = {
    ("run", "usd"): "cost_exceeded",
    ("run", "tokens"): "tokens_exceeded",
    ("run", "calls"): "llm_calls_exceeded",
}
"""Why a run ends when its own budget is used up, in the words of ``docs/runs.md``."""


_RUN_CAPS = {"usd": "max_usd_per_run", "tokens": "max_tokens_per_run", "calls": "max_llm_calls"}
_SCOPES = {"tenant": "tenants", "agent": "agents", "model": "models", "session": "sessions", "task": "tasks",
           "label": "labels"}  # fmt: skip


def setting_of(account: str, field: str) -> str:
    """The key that sets a cap or a rate, and its file: ``daily_usd`` of ``limits.tenants.acme`` (or of its ``'*'``)…

    ``account`` is a name such as ``tenant:prod:acme``; a limit that `lockgate settings` holds is above the file's, so
    both are named where both can be: there is no setting for what may be spent or called in all.
    """
    kind, _, rest = account.partition(":")
    if kind == "run":
        # a run that a header named has no agent file
        return f"limits.runs.{field} in lockgate.yaml" if "/" in rest else f"budgets.{field} in the agent's file"
    environment, _, name = rest.partition(":")
    at = f", or `lockgate settings set limit.{field} … --env {environment}" if field in LIMITS else ""
    if kind == "project":
        return f"{field} of limits.project in lockgate.yaml" + (at and f"{at}`")
    if kind == "key":
        return f"{field} of the key, which `lockgate keys create --limit` set, or of limits.keys in lockgate.yaml"
    if kind not in _SCOPES:
        return field
    own = f"limits.{_SCOPES[kind]}.{name.partition('/')[2] if kind == 'session' else name}"
    file = f"{field} of {own} (or of its '*') in lockgate.yaml"
    if kind == "agent" and field in ("daily_usd", "daily_tokens"):
        file = f"budgets.{field} in the agent's file, {file}"
    return f"{file}{at} --{kind} {name}`" if at and kind in ("tenant", "agent", "model") else file


def _field_of(account: str, window: str, unit: str) -> str:
    if account.startswith("run:"):
        return _RUN_CAPS.get(unit, unit)
    period = {len("2026-11"): "monthly_", len("2026-11-21"): "daily_"}.get(len(window.partition(" ")[0]), "")
    return f"{period}{unit}"


def _count(figure: int, things: str) -> str:
    return f"{figure:,} {things if figure != 1 else things.removesuffix('s')}"


def _cap_of(account: str, window: str, unit: str) -> str:
    return setting_of(account, _field_of(account, window, unit))


_NOTHING = {"usd": "spend nothing", "tokens": "use no tokens"}


def budget_exceeded(balance: Balance, needed: int, now: float) -> LimitExceeded:
    """The error for an account that has not ``needed`` left.

    ``retry_after`` is a second when open holds may yet be given back, the time to the end of the window when it has
    one, and None when waiting cannot help: there is no window, or the call alone is above the cap.
    """
    if balance.cap == 0:
        return LimitExceeded(
            f"{balance.account!r} may {_NOTHING.get(balance.unit, 'make no calls')}: "
            f"{_field_of(balance.account, balance.window, balance.unit)} is 0",
            limit=balance.account,
            remedy=f"raise {_cap_of(balance.account, balance.window, balance.unit)}; without one there is no limit",
            reason=_REASONS.get((balance.account.partition(":")[0], balance.unit)),
        )
    if balance.unit == "concurrent":
        return LimitExceeded(
            f"{balance.account!r} has {_count(balance.held, 'calls')} under way, and may have {balance.cap}",
            limit=balance.account,
            retry_after=1.0,
            remedy=f"wait for one to end, or raise {_cap_of(balance.account, '', 'concurrent')}",
        )
    if balance.window.startswith(SAME):
        return LimitExceeded(
            f"{balance.account!r} made the same call {_count(balance.settled + balance.held, 'times')}",
            limit=balance.account,
            reason="loop_detected",
            remedy="end the run; a higher limit is `limits.runs.max_repeats` in lockgate.yaml",
        )
    cap = balance.cap or 0
    retry_after = None if needed > cap else 1.0
    if retry_after and needed + balance.settled > cap:
        retry_after = seconds_left(balance.window, now)
    if balance.unit == "usd":
        spent, held, left, need, limit = map(show_usd, (balance.settled, balance.held, balance.left or 0, needed, cap))
    else:
        figures = (balance.settled, balance.held, balance.left or 0, needed, cap)
        spent, held, left, need, limit = (_count(figure, balance.unit) for figure in figures)
    when = f" in {balance.window}" if balance.window else ""
    remedy = f"raise {_cap_of(balance.account, balance.window, balance.unit)}"
    if needed > cap:
        remedy += ", or lower max_tokens or shorten the request"
    elif balance.window:
        remedy += ", or wait until it ends"
    return LimitExceeded(
        f"the budget {balance.account!r}{when} would pass its cap of {limit}: "
        f"spent {spent}, held {held}, left {left}, this call may need {need}",
        limit=balance.account,
        retry_after=retry_after,
        remedy=remedy,
        reason=_REASONS.get((balance.account.partition(":")[0], balance.unit)) if retry_after is None else None,
    )


def rate_refused(refusal: tuple[Rate, float, bool], tokens: int) -> LimitExceeded:
    """The error for a rate: when waiting helps, for how long; when the call alone is above the rate, that it is."""
    rate, wait, is_share = refusal
    of = f"{rate.per_minute:g} {rate.unit} a minute"
    setting = setting_of(rate.name, f"{rate.unit}_per_minute")
    if wait < 0:
        return LimitExceeded(
            f"the rate limit {rate.name!r} is {of}, and this call alone may need {_count(tokens, 'tokens')}",
            limit=rate.name,
            remedy=f"lower max_tokens, shorten the request, or raise {setting}",
        )
    what = f"{rate.member!r} has used its share of it" if is_share else "it is used up"
    return LimitExceeded(
        f"the rate limit {rate.name!r} is {of}: {what}",
        limit=rate.name,
        retry_after=wait,
        remedy=f"try again in {wait:.3g} s, or raise {setting}",
        unit=rate.unit,
    )


def lease_refused(account: Account, *, spent: int, leased: int, needed: int, now: float) -> LimitExceeded:
    """The error for a cap over several machines of which too little is left to lease.

    Waiting a second helps while a machine may give back what it leased and has not spent.
    """
    cap = account.cap or 0
    show = show_usd if account.unit == "usd" else lambda figure: _count(figure, account.unit)
    when = f" in {account.window}" if account.window else ""
    may_come_back = spent + needed <= cap and leased > spent
    return LimitExceeded(
        f"the budget {account.name!r}{when} would pass its cap of {show(cap)}: spent {show(spent)}, leased to machines "
        f"{show(leased)}, this call may need {show(needed)} more",
        limit=account.name,
        retry_after=1.0 if may_come_back else seconds_left(account.window, now),
        remedy=f"raise {_cap_of(account.name, account.window, account.unit)}, or wait for the next window",
    )
