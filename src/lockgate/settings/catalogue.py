"""Which settings there are, what each takes, and where it can hold. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Annotated, Any

import msgspec

from lockgate.errors import InputError, Refused
from lockgate.settings.model import SELECTORS, Scope

Usd = Annotated[float, msgspec.Meta(ge=0, le=1e12)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class ModelPrice(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """USD per million tokens, as a row of ``prices.yaml``; ``request``: USD for each request."""

    input: Usd
    output: Usd
    cached: Usd | None = None
    request: Usd = 0.0


class Definition(msgspec.Struct, frozen=True, kw_only=True):
    """One setting. ``selectors`` may narrow it, ``needs`` must."""

    name: str
    help: str
    type: Any
    takes: str
    selectors: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    one_of: tuple[str, ...] = ()  # at most one of these
    reasoned: bool = False  # a reason must be given: it is told to whom it hits


_EVERY = ("environment", "agent", "tenant", "model")

LIMITS: dict[str, tuple[Any, str, str]] = {
    "daily_usd": (Usd, "USD", "USD a day, in place of the file's."),
    "daily_tokens": (Count, "tokens", "Tokens a day, in place of the file's."),
    "monthly_usd": (Usd, "USD", "USD a calendar month."),
    "monthly_tokens": (Count, "tokens", "Tokens a calendar month."),
    "requests_per_minute": (Annotated[float, msgspec.Meta(gt=0, le=1e9)], "requests, above 0", "Requests a minute."),
    "tokens_per_minute": (Annotated[float, msgspec.Meta(gt=0, le=1e12)], "tokens, above 0", "Tokens a minute."),
    "concurrent": (Count, "calls", "Calls under way at the same time."),
}
"""Limits of a tenant, an agent, a model, or (with none of them) of an environment: type, unit and meaning."""

DEFINITIONS: dict[str, Definition] = {
    one.name: one
    for one in (
        Definition(
            name="kill",
            help="Refuse every call of what is named, at once, runs under way included.",
            type=bool,
            takes="on",
            selectors=_EVERY,
            reasoned=True,
        ),
        Definition(
            name="rollout.pause",
            help="Rollouts stay in their phase. Traffic goes on, and harm still rolls back.",
            type=bool,
            takes="on or off",
            selectors=("environment", "agent"),
        ),
        *(
            Definition(
                name=f"limit.{name}",
                help=about,
                type=kind,
                takes=unit,
                selectors=_EVERY,
                one_of=("agent", "tenant", "model"),
            )
            for name, (kind, unit, about) in LIMITS.items()
        ),
        Definition(
            name="price",
            help="What a model costs, in place of prices.yaml and the bundled table.",
            type=ModelPrice,
            takes="{input: USD, output: USD, cached: USD, request: USD} per million tokens",
            selectors=("model",),
            needs=("model",),
        ),
        Definition(
            name="alert.budget_percent",
            help="A budget that is used to this share raises a warning. Default: 70.",
            type=Annotated[float, msgspec.Meta(gt=0, le=100)],
            takes="percent",
            selectors=("environment", "agent", "tenant"),
        ),
        Definition(
            name="alert.retirement_days",
            help="A served model that its publisher retires within so many days raises an alert. Default: 30.",
            type=Annotated[int, msgspec.Meta(ge=0, le=3650)],
            takes="days",
            selectors=("environment", "agent"),
        ),
        Definition(
            name="alert.mute",
            help="Raise no alert of these kinds.",
            type=list[Annotated[str, msgspec.Meta(min_length=1, pattern="^[a-z_]+$")]],
            takes="[kind, …]",
        ),
    )
}
"""Every setting, by name."""

BEHAVIOUR = frozenset(
    ("model", "framework", "system_prompt", "prompt", "variables", "references", "tools", "handler", "guardrails",
     "policies", "retrieval", "memory", "max_iterations", "max_llm_calls", "max_tool_calls", "max_tokens_per_run",
     "max_seconds", "max_usd_per_run", "max_depth", "temperature", "top_p", "max_tokens", "seed", "stop", "fallbacks",
     "triage", "cache", "code", "schema", "base_url", "weights")
)  # fmt: skip
"""Words of what defines an agent's answers. None of them is a setting."""
_BESIDE = frozenset(("evals", "thresholds", "owner", "breaker", "rollout", "budgets"))
"""Words of the agent file that stand beside the digest, and are brought by a deployment."""


def definition(name: str) -> Definition:
    """The setting of this name. Raises :class:`Refused` for what only a new digest may change."""
    found = DEFINITIONS.get(name)
    if found is not None:
        return found
    words = name.removeprefix("agent.").split(".")
    if any(word in BEHAVIOUR for word in words):
        raise Refused(
            f"{name!r} changes what the agent answers: it changes only through a new digest",
            remedy="edit the agent file, then lockgate lock, lockgate eval and lockgate deploy",
        )
    if words[0] in _BESIDE:
        raise InputError(
            f"{name!r} stands in the agent file, not in the settings",
            remedy="edit it there, then lockgate lock and lockgate deploy: the digest stays as it is",
        )
    near = get_close_matches(name, DEFINITIONS, 1)
    raise InputError(
        f"there is no setting {name!r}",
        remedy=f"did you mean {near[0]!r}?" if near else f"one of {', '.join(DEFINITIONS)}",
    )


def check_scope(known: Definition, scope: Scope) -> None:
    """Raises :class:`InputError` when the setting cannot hold there."""
    given = [name for name in SELECTORS if getattr(scope, name)]
    for name in given:
        if name not in known.selectors:
            allowed = " and ".join(_flag(one) for one in known.selectors) or "nothing: it holds everywhere"
            raise InputError(
                f"{known.name!r} cannot be narrowed to {name} {getattr(scope, name)!r}", remedy=f"it takes {allowed}"
            )
    missing = [name for name in known.needs if name not in given]
    if missing:
        raise InputError(
            f"{known.name!r} needs {' and '.join(_flag(one) for one in missing)}",
            remedy=f"lockgate settings set {known.name} … {' '.join(_flag(one) + ' NAME' for one in missing)}",
        )
    several = [name for name in known.one_of if name in given]
    if len(several) > 1:
        raise InputError(
            f"{known.name!r} names {' and '.join(several)}", remedy=f"give one of {', '.join(map(_flag, known.one_of))}"
        )
    if known.one_of and scope.model.endswith("/*"):
        raise InputError(f"{known.name!r} is for one model, not {scope.model!r}", remedy="write PROVIDER/NAME, or *")
    if known.name == "kill" and not given:
        raise InputError("'kill' names nothing to refuse", remedy="give --env, --agent, --tenant or --model")
    if scope.model and "/" not in scope.model and not (known.one_of and scope.model == "*"):
        raise InputError(f"the model is {scope.model!r}", remedy="write PROVIDER/NAME, or PROVIDER/* for all of it")


def check_value(known: Definition, value: Any) -> Any:
    """The value as it is kept. Raises :class:`InputError` with what it should have been."""
    value = {"on": True, "off": False}.get(value, value) if isinstance(value, str) else value
    remedy = f"it takes {known.takes}"
    if isinstance(value, float) and value != value:
        raise InputError(f"{known.name!r} is {value!r}", remedy=remedy)
    try:
        taken = msgspec.convert(value, known.type)
    except msgspec.ValidationError as wrong:
        raise InputError(f"{known.name!r} is {value!r}: {str(wrong).lower()}", remedy=remedy) from None
    if known.name == "kill" and taken is False:
        raise InputError("'kill' is 'off'", remedy="lockgate settings unset kill, with the same --env, --agent, …")
    return msgspec.to_builtins(taken)


def _flag(selector: str) -> str:
    return "--env" if selector == "environment" else f"--{selector}"


def describe() -> list[Mapping[str, Any]]:
    """Every setting for people and for the documentation."""
    return [
        {"name": one.name, "takes": one.takes, "narrowed": [_flag(name) for name in one.selectors], "help": one.help}
        for one in DEFINITIONS.values()
    ]
