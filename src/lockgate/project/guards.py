"""Guardrails, caches and tenants, as the project's and the agents' files write them."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from lockgate.project.durations import Duration
from lockgate.project.strict import Strict

PERSONAL = ("email", "phone", "card", "iban", "ssn", "national_id", "birth_date", "ip", "person", "place")
SECRETS = ("key", "private_key", "credential", "high_entropy")
TOPICS = (
    "self_harm", "weapons", "violence", "drugs", "malware", "medical_advice", "legal_advice", "financial_advice",
)  # fmt: skip
"""Rules that come with Lockgate."""
MAX_WORDS = 8
"""Words of a phrase."""
OPTIONS: dict[str, frozenset[str]] = {
    "pii": frozenset(("kinds",)),
    "secrets": frozenset(("kinds",)),
    "injection": frozenset(("threshold", "mark", "model")),
    "topics": frozenset(("rules",)),
    "canary": frozenset(("tokens",)),
    "max_length": frozenset(("characters",)),
    "schema": frozenset(("repair",)),
}
"""The options of each guard, beside its action."""
ACTIONS: dict[str, tuple[str, ...]] = {
    "pii": ("redact", "block", "flag"),
    "secrets": ("redact", "block", "flag"),
    "injection": ("block", "flag"),
    "topics": ("block", "flag"),
    "canary": ("block", "redact", "flag"),
    "max_length": ("block", "redact", "flag"),
    "schema": ("block", "flag"),
}
"""What each guard can do about what it finds; the first is what it does unless told."""


class RuleSpec(Strict):
    """What a text must not be about."""

    name: str = Field(pattern=r"^[a-z][a-z0-9_]*$", description="The rule's name, as findings have it.")
    any: list[Annotated[str, Field(min_length=2, max_length=128)]] = Field(
        min_length=1, description="Words and phrases (at most 8 words) that name it; `prescri*` is any that begin so."
    )
    least: int = Field(default=1, ge=1, description="How many different ones it takes.")
    unless: list[str] = Field(default=[], description="Words that show another meaning.")


class GuardModel(Strict):
    """A model that is asked whether a text tries to take over."""

    provider: str = Field(description="A provider of `lockgate.yaml`.")
    name: str = Field(min_length=1, description="The model's name; pin it.")


class GuardSpec(Strict):
    """One check. They run in the order they stand in."""

    guard: Literal["pii", "secrets", "injection", "topics", "canary", "max_length", "schema"] = Field(
        description="What is looked for."
    )
    action: Literal["flag", "redact", "block"] | None = Field(
        default=None, description="What is done about it: written down, taken out, or the call refused."
    )
    kinds: list[str] | None = Field(
        default=None, description="`pii`, `secrets`: only these kinds. `person` and `place` need the extra `pii`."
    )
    threshold: float | None = Field(
        default=None, gt=0, le=1, description="`injection`: the score that counts. Default 0.6."
    )
    mark: bool | None = Field(
        default=None,
        description="`injection`: put tool results between marks that say they are no orders. Default true.",
    )
    model: GuardModel | None = Field(
        default=None, description="`injection`: asked besides, for what the marks let pass."
    )
    rules: list[str | RuleSpec] | None = Field(
        default=None, description="`topics`: rules, or names of built-in ones such as `self_harm`."
    )
    tokens: list[Annotated[str, Field(min_length=6)]] | None = Field(
        default=None,
        description="`canary`: texts that no answer may hold. Default: one of the version's own is planted.",
    )
    characters: int | None = Field(default=None, ge=1, description="`max_length`: the most a text may have.")
    repair: bool | None = Field(
        default=None, description="`schema`: ask once more for an answer that fits. Default true."
    )

    @model_validator(mode="after")
    def _fits(self) -> GuardSpec:
        given = {name for name in ("kinds", "threshold", "mark", "model", "rules", "tokens", "characters", "repair")
                 if getattr(self, name) is not None}  # fmt: skip
        foreign = sorted(given - OPTIONS[self.guard])
        if foreign:
            raise _wrong(f"{foreign[0]!r} is no option of {self.guard!r}", "leave it out")
        if self.action is not None and self.action not in ACTIONS[self.guard]:
            raise _wrong(f"{self.guard!r} cannot {self.action}", f"it can {', '.join(ACTIONS[self.guard])}")
        known = {"pii": PERSONAL, "secrets": SECRETS}.get(self.guard, ())
        for kind in self.kinds or ():
            if kind not in known:
                raise _wrong(f"{kind!r} is no kind of {self.guard!r}", f"there are {', '.join(known)}")
        for rule in self.rules or ():
            if isinstance(rule, str) and rule not in TOPICS:
                raise _wrong(f"there is no built-in rule {rule!r}", f"there are {', '.join(TOPICS)}; or write one")
            if not isinstance(rule, str) and any(not 0 < len(one.split()) <= MAX_WORDS for one in rule.any):
                raise _wrong(f"a phrase of the rule {rule.name!r} has more than {MAX_WORDS} words", "shorten it")
        if self.guard == "topics" and not self.rules:
            raise _wrong("'topics' has no rules", "name one, such as `rules: [self_harm]`")
        if self.guard == "max_length" and self.characters is None:
            raise _wrong("'max_length' says no length", "add `characters: 20000`")
        return self

    def config(self) -> dict[str, Any]:
        """What a version carries of it: what was written, and the action it stands for."""
        written = self.model_dump(exclude_none=True)
        return {**written, "action": self.action or ACTIONS[self.guard][0]}


def _wrong(message: str, remedy: str) -> PydanticCustomError:
    return PydanticCustomError("guard", "{message}", {"message": message, "remedy": remedy})


def _named(value: Any) -> Any:
    return {"guard": value} if isinstance(value, str) else value


Guard = Annotated[GuardSpec, BeforeValidator(_named, json_schema_input_type=str | GuardSpec)]


class SemanticSpec(Strict):
    """Answers from the cache for questions that mean the same."""

    provider: str = Field(description="The provider of the embedding model.")
    name: str = Field(min_length=1, description="The embedding model; pin it.")
    threshold: float = Field(default=0.95, gt=0.5, le=1, description="The least cosine similarity of two questions.")


class CacheSpec(Strict):
    """Answers that are given again. What it may do belongs to the behaviour."""

    exact: bool = Field(default=True, description="The same request again: the same answer.")
    ttl: Duration = Field(default=3600.0, gt=0, description="How long an answer is kept.")
    semantic: SemanticSpec | None = Field(default=None, description="Default: off.")
    tools: bool = Field(default=False, description="Results of tools with the effect `read` or `pure`, called alike.")
    prefix: bool = Field(default=True, description="Ask providers that can to keep the start of the prompt.")
    random: bool = Field(
        default=False, description="Also answers drawn at a temperature above 0: repeats would be one and the same."
    )


def _cache(value: Any) -> Any:
    return ({} if value else None) if isinstance(value, bool) else value


Cache = Annotated[CacheSpec | None, BeforeValidator(_cache, json_schema_input_type=bool | CacheSpec | None)]


class TenantSpec(Strict):
    """What holds for one tenant's calls. `*` stands for every tenant without an entry of its own."""

    input: list[Guard] = Field(default=[], description="Checks of what goes into a model, before the agent's own.")
    output: list[Guard] = Field(default=[], description="Checks of what comes out, after the agent's own.")
    no_store: bool = Field(default=False, description="Nothing is cached, and providers are told to keep nothing.")
    regions: list[str] | None = Field(
        default=None, description="Only providers whose `region` is one of these. Default: any."
    )
    cache: Cache = Field(default=None, description="For calls that belong to no agent. Default: off.")
