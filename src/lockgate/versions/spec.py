"""The agent file and the files it names, as types: what each key means and what it is by default.

``lockgate schema agent`` and the reference in the docs are generated from this module. Durations are written as
``30s``, ``15m``, ``1h``, ``7d`` or a number of seconds, and are seconds from here on.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from lockgate.project.durations import Duration
from lockgate.project.durations import seconds as seconds
from lockgate.project.guards import Cache, Guard
from lockgate.project.model import NAME, Strict
from lockgate.versions.model import ActionLimits, Effect

_LIMITS = ActionLimits()


def _named(value: Any) -> Any:
    return {"name": value} if isinstance(value, str) else value


def _bound(value: Any) -> Any:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return {"threshold": value} if is_number else value


Percent = Annotated[float, Field(ge=0, le=100)]
RelativePath = Annotated[str, Field(min_length=1)]
Metric = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_.:-]*$")]


class ModelSpec(Strict):
    """One model with its parameters. A parameter that is absent is the provider's default."""

    provider: str = Field(description="A provider of `lockgate.yaml`, or openai, anthropic, ollama, local.")
    name: str = Field(min_length=1, description="The model's name at the provider; pin a dated name or a digest.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="Sampling temperature.")
    top_p: float | None = Field(default=None, gt=0, le=1, description="Nucleus sampling.")
    max_tokens: int = Field(default=1024, gt=0, description="Most tokens of one answer.")
    seed: int | None = Field(default=None, description="Sampling seed, where the provider has one.")
    stop: list[str] = Field(default=[], description="Texts that end an answer.")
    revision: str | None = Field(
        default=None, description="Pins what a movable name stands for, e.g. an Ollama digest; else found at lock time."
    )


class TriageSpec(ModelSpec):
    """A cheaper model for the easy cases. The first rule that applies decides; without one, its own judgement does."""

    easy_below: int | None = Field(
        default=None, ge=1, description="A request of fewer (estimated) input tokens is easy, without asking."
    )
    hard_above: int | None = Field(
        default=None, ge=1, description="A request of more (estimated) input tokens is hard, without asking."
    )
    easy_tags: list[str] = Field(default=[], description="Tags of a request (`x-lockgate-tags`) that make it easy.")
    hard_tags: list[str] = Field(default=[], description="Tags that make it hard.")
    ask: bool = Field(
        default=True,
        description="Ask the cheaper model whether the request is easy. false: what no rule names is hard.",
    )
    question: str | None = Field(
        default=None, description="What it is asked, in place of the usual question; it answers EASY or HARD."
    )


class AgentModel(ModelSpec):
    """The agent's model, and what takes its place."""

    fallbacks: list[ModelSpec] = Field(default=[], description="Tried in order when the model does not answer.")
    triage: TriageSpec | None = Field(default=None, description="A cheaper model for the easy cases.")


class FrameworkSpec(Strict):
    """What runs the agent."""

    kind: Literal["native", "python", "langgraph", "image"] = Field(
        default="native", description="`native` is our own loop; `image`: a container, for any language."
    )
    entrypoint: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*:[A-Za-z_][A-Za-z0-9_]*$",
        description="`package.module:object`, from the project's root. Its package is part of the version.",
    )
    image: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/-]*(@sha256:[0-9a-f]{64})?$",
        description="The container image, `ghcr.io/acme/agent@sha256:…`; a tag is resolved when the agent is locked.",
    )


class ToolUseSpec(Strict):
    """A tool this agent may use; its contract is `tools/<name>.yaml`."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$", description="The tool's name.")
    approval: Literal["required", "none"] | None = Field(
        default=None, description="`required`: a person says yes to each exact call. Default: what the contract says."
    )
    contract: Literal["none"] | None = Field(
        default=None,
        description="`none`: the agent's own framework or server brings this tool; Lockgate does not call it.",
    )


class GuardrailSpec(Strict):
    """What is checked and changed around the model."""

    pii_redaction: bool = Field(default=False, description="Take personal data out before the model sees it.")
    output_schema: RelativePath | None = Field(default=None, description="A JSON Schema the answer must satisfy.")
    injection: Literal["off", "flag", "block"] = Field(default="off", description="What to do about prompt injection.")
    input: list[Guard] = Field(default=[], description="Checks of what goes into the model, in this order.")
    output: list[Guard] = Field(default=[], description="Checks of what comes out of it, in this order.")


class RetrievalSpec(Strict):
    """What the agent looks things up in."""

    knowledge_base: str = Field(min_length=1, description="A knowledge base with its snapshot, `kb/NAME@SNAPSHOT`.")


class ReferenceSpec(Strict):
    """Something too large to carry that defines the behaviour all the same: it is part of it by its digest."""

    name: str = Field(pattern=NAME, description="What it is called.")
    kind: Literal["weights", "adapter", "fine_tuning_data", "feedback_data", "other"] = Field(
        default="other", description="What it is."
    )
    digest: str | None = Field(
        default=None, pattern=r"^sha256:[0-9a-f]{64}$", description="Its sha256; default: of what `path` names."
    )
    path: RelativePath | None = Field(
        default=None, description="A file or folder of the project; hashed when the agent is locked."
    )
    uri: str | None = Field(default=None, description="Where it is kept, for people; not part of the identity.")


class MemorySpec(Strict):
    """What the agent keeps between runs."""

    ttl: Duration = Field(description="How long it keeps it.")


class BudgetSpec(Strict):
    """What one run, and one day, may cost. The run's limits belong to the behaviour; the daily ones do not."""

    max_iterations: int = Field(
        default=_LIMITS.max_iterations, ge=0, description="Repairs and refinements of an answer."
    )
    max_llm_calls: int = Field(default=_LIMITS.max_llm_calls, ge=1, description="Model calls of one run.")
    max_tool_calls: int = Field(default=_LIMITS.max_tool_calls, ge=0, description="Tool calls of one run.")
    max_tokens_per_run: int = Field(
        default=_LIMITS.max_tokens_per_run, ge=1, description="Input and output tokens of one run."
    )
    max_seconds: Duration = Field(default=_LIMITS.max_seconds, gt=0, description="Wall time of one run.")
    max_usd_per_run: float | None = Field(default=None, gt=0, description="USD of one run.")
    max_depth: int = Field(default=_LIMITS.max_depth, ge=0, description="Agents that call agents: how deep.")
    daily_usd: float | None = Field(default=None, gt=0, description="USD a day (UTC), hard stop; alert at 70 %.")
    daily_tokens: int | None = Field(default=None, gt=0, description="Tokens a day (UTC), hard stop.")


class BreakerSpec(Strict):
    """Stops sending runs to an agent that keeps failing."""

    failure_threshold: int = Field(default=5, ge=1, description="Failures in a row that open it.")
    reset_timeout: Duration = Field(default=300.0, description="Until one run is let through to try.")
    fallback: str | None = Field(default=None, description="The agent that answers meanwhile.")


class PanelSpec(Strict):
    """One more judge of a panel."""

    provider: str = Field(description="A provider of `lockgate.yaml`.")
    name: str = Field(min_length=1, description="The judge model's name; pin it.")


class JudgeSpec(Strict):
    """The model that grades answers. Calibrate it against human labels before it may block."""

    provider: str = Field(description="A provider of `lockgate.yaml`.")
    name: str = Field(min_length=1, description="The judge model's name; pin it.")
    temperature: float = Field(default=0.0, ge=0, le=2, description="Sampling temperature.")
    max_tokens: int = Field(default=512, gt=0, description="Most tokens of one grading.")
    seed: int | None = Field(default=None, description="Sampling seed, where the provider has one.")
    prompt: RelativePath | None = Field(default=None, description="A text file with the grading instructions.")
    panel: list[PanelSpec] = Field(default=[], description="Further judges; the median of all counts.")


class MetricRule(Strict):
    """What a metric must reach. Further keys are options of its scorer."""

    model_config = ConfigDict(extra="allow")

    metric: Metric | None = Field(default=None, description="The scorer's name; default: the key this stands under.")
    threshold: float | None = Field(
        default=None, description="Bound in the metric's own direction: quality at least, cost and time at most."
    )
    min: float | None = Field(default=None, description="At least this.")
    max: float | None = Field(default=None, description="At most this.")
    margin: float | None = Field(default=None, ge=0, description="How much worse than the baseline is still as good.")
    blocking: bool = Field(default=True, description="false: reported, never decides.")
    strict: bool = Field(default=False, description="true: the interval's lower end must reach it, not the mean.")
    never: bool = Field(default=False, description="true: one failure fails the whole gate.")
    aggregate: str | None = Field(
        default=None,
        pattern=r"^(mean|pass[\^@][1-9]\d?)$",
        description="A case's trials as one value: `mean`, `pass^K` (all of K pass) or `pass@K` (one of K does).",
    )
    passes: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="For `pass^K`, `pass@K`: a trial passes with this value; default: the best.",
    )


Bound = Annotated[MetricRule, BeforeValidator(_bound, json_schema_input_type=float | MetricRule)]


class RubricSpec(Strict):
    """What a good answer is, and what must never happen (`evals/rubrics/*.yaml`, or inline)."""

    name: str | None = Field(default=None, description="The rubric's name.")
    description: str | None = Field(default=None, description="What a good answer is, in words.")
    dimensions: dict[Metric, Bound] = Field(default={}, description="By dimension: a number, or the rule.")
    never: list[str] = Field(default=[], description="Metrics of which one failure fails the whole gate.")
    slices: dict[str, float] = Field(default={}, description="Weights of tags in the mean; default 1.")


class RubricFile(Strict):
    """A rubric file, `evals/rubrics/NAME.yaml`."""

    rubric: RubricSpec


class FallbackSpec(Strict):
    """A part of the golden set that the control plane runs on the backup model, so that it is known to work."""

    every: Duration = Field(default=604_800.0, gt=0, description="How often; a week by default.")
    environment: str = Field(default="prod", description="Where: what serves there, with its providers.")
    model: str | None = Field(default=None, description="`PROVIDER:NAME`; default: the first of `model.fallbacks`.")
    tag: str | None = Field(default=None, description="The cases with this tag; default: `cases` of all.")
    cases: int = Field(default=20, ge=1, le=10_000, description="How many, where no tag is given.")
    max_usd: float | None = Field(default=None, gt=0, description="Most one such run may cost; default: evals.max_usd.")


class EvalSpec(Strict):
    """The eval gate."""

    dataset: RelativePath | None = Field(default=None, description="The golden set, JSONL.")
    trials: int = Field(default=1, ge=1, le=100, description="Times each case is run.")
    judge: JudgeSpec | None = Field(default=None, description="The model that grades, for metrics that need one.")
    thresholds: dict[Metric, Bound] = Field(
        default={}, description="By metric: a number, or the rule. Over the rubric's dimensions."
    )
    rubric: RelativePath | RubricSpec | None = Field(default=None, description="A rubric file, or the rubric itself.")
    baseline: str | None = Field(
        default=None,
        description="The version to be as good as: `AGENT@VERSION`, a digest, or `none`. Default: what serves.",
    )
    concurrency: int = Field(default=4, ge=1, le=1000, description="Trials at a time.")
    timeout: Duration = Field(default=120.0, gt=0, description="Until a trial counts as failed.")
    max_usd: float | None = Field(default=None, gt=0, description="Most one evaluation may cost.")
    trial_max_usd: float | None = Field(default=None, gt=0, description="Most one trial may cost, all its calls.")
    trial_max_tokens: int | None = Field(default=None, ge=1, description="Most tokens of one trial, all its calls.")
    whole: bool = Field(default=False, description="true: run every trial, also when the verdict is settled earlier.")
    max_trials: int | None = Field(
        default=None, ge=1, description="Most trials of one evaluation, all cases and bought ones included."
    )
    fallback: FallbackSpec | None = Field(
        default=None, description="Try the backup model now and then. Default: it is not tried."
    )


class ShadowSpec(Strict):
    """Runs beside the stable version, seen by nobody, unable to act."""

    mirror: Percent = Field(default=100.0, description="Percent of stable runs that are shadowed.")
    min_pairs: int = Field(default=20, ge=0, description="Pairs to see before the first phase.")
    min: Duration = Field(default=0.0, description="Time to spend in shadow at least.")
    max: Duration = Field(default=86400.0, description="Past it the first phase begins, with the pairs there are.")


class PhaseSpec(Strict):
    """One step of a canary."""

    weight: Percent = Field(description="Percent of new sessions that get the candidate.")
    mirror: Percent = Field(default=0.0, description="Percent of stable runs that are shadowed meanwhile.")
    min: Duration = Field(default=0.0, description="Time to spend here at least.")
    min_units: int = Field(default=0, ge=0, description="Candidate sessions to see here at least.")


class GateSpec(Strict):
    """What a live metric may do to a rollout."""

    margin: float | None = Field(default=None, ge=0, lt=1, description="Quality: how much worse is still as good.")
    ratio: float | None = Field(default=None, ge=1, description="Errors, latency, cost: times the stable version's.")
    max: float | None = Field(
        default=None, gt=0, lt=1, description="Errors, latency: the rate below which it counts as safe."
    )
    cap: float | None = Field(default=None, gt=1, description="Cost: a unit counts at most this many times the mean.")
    percentile: float | None = Field(default=None, gt=0, lt=100, description="Latency: which one is watched.")


class RolloutSpec(Strict):
    """How a new version reaches its users."""

    shadow: bool | ShadowSpec | None = Field(default=None, description="Shadow first; `true` for its defaults.")
    phases: list[PhaseSpec] | None = Field(
        default=None, description="Canary weights, rising; promotion to 100 follows. Default: 5, 25, 50."
    )
    gates: dict[Metric, bool | GateSpec] = Field(
        default={}, description="By live metric; `false`: not watched. Errors, latency and cost_usd are by default."
    )
    promote: Literal["when_safe", "when_not_harmful"] = Field(
        default="when_safe", description="What promotion needs: evidence that it is safe, or merely none of harm."
    )
    alpha: float = Field(default=0.05, gt=0, lt=1, description="Chance of a false rollback.")
    beta: float = Field(default=0.05, gt=0, lt=1, description="Chance of a false promotion.")
    catastrophe: float | Literal[False] = Field(
        default=0.25, description="An error rate that rolls back at once; `false`: none."
    )
    fidelity: float = Field(default=0.8, ge=0, le=1, description="Share of recorded tool calls a shadow pair needs.")
    min_reference: int = Field(
        default=20, ge=0, description="Stable sessions that freeze the cost and latency references."
    )
    session_idle: Duration = Field(default=1800.0, description="A session is over when idle this long.")
    unit_deadline: Duration = Field(default=7200.0, description="A session counts as it stands when this old.")
    warm: Duration = Field(default=86400.0, description="The previous version stays ready for `undo` this long.")
    max: Duration | None = Field(default=None, description="Past it without a decision the rollout is inconclusive.")


class AgentSpec(Strict):
    """An agent: one declarative artifact."""

    name: str = Field(pattern=NAME, max_length=128, description="The agent's name.")
    version: int = Field(ge=0, description="Counts up in the file's name and here; the digest is the identity.")
    description: str | None = Field(default=None, description="What the agent is for.")
    owner: str | None = Field(default=None, description="Who answers for it. Default: CODEOWNERS, then the project's.")
    model: AgentModel = Field(description="The model and its parameters.")
    framework: FrameworkSpec | None = Field(default=None, description="Default: the native loop.")
    system_prompt: RelativePath | None = Field(
        default=None, description="A text file, or a prompt YAML; paths are from the project's root."
    )
    variables: dict[str, str] = Field(default={}, description="Values for the prompt's declared variables.")
    references: list[ReferenceSpec] = Field(
        default=[], description="Weights, adapters and data sets: part of the version by their digests."
    )
    tools: list[Annotated[ToolUseSpec, BeforeValidator(_named, json_schema_input_type=str | ToolUseSpec)]] = Field(
        default=[], description="Names, or names with `approval`."
    )
    handler: str | None = Field(
        default=None,
        description="A pure tool that receives the model's JSON answer and returns the final one; it may call the "
        "agent's other tools.",
    )
    guardrails: GuardrailSpec = Field(default=GuardrailSpec(), description="Checks around the model.")
    cache: Cache = Field(
        default=None, description="Answers that are given again. Default: none; `true`: the same request."
    )
    policies: list[RelativePath] = Field(default=[], description="Cedar files that decide which tool calls may pass.")
    retrieval: RetrievalSpec | None = Field(default=None, description="Default: none.")
    memory: MemorySpec | None = Field(default=None, description="Default: none.")
    budgets: BudgetSpec = Field(default=BudgetSpec(), description="Limits of a run and of a day.")
    breaker: BreakerSpec | None = Field(default=None, description="Default: none.")
    evals: EvalSpec | None = Field(default=None, description="The eval gate.")
    rollout: RolloutSpec | None = Field(default=None, description="Shadow, canary, promotion.")


class AgentFile(Strict):
    """An agent file, `agents/NAME.vN.yaml`."""

    agent: AgentSpec


class ToolSpec(Strict):
    """What a tool is called, takes, gives and does."""

    name: str = Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$", description="As the agent file and the model call it.")
    description: str = Field(default="", description="What it does, for the model to read.")
    effect: Effect = Field(
        default="write", description="`pure` computes only, `read` looks at the world, `write` changes it."
    )
    python: str | None = Field(
        default=None,
        pattern=r"^[^:]+\.py:[A-Za-z_][A-Za-z0-9_]*$",
        description="`path/to/file.py:function`; all .py files in its folder are part of the version.",
    )
    input: dict[str, Any] = Field(
        default={"type": "object", "properties": {}}, description="JSON Schema of the arguments."
    )
    output: dict[str, Any] | None = Field(default=None, description="JSON Schema of the result.")
    scopes: list[str] = Field(default=[], description="What the caller must be allowed.")
    approval: Literal["required", "none"] = Field(default="none", description="Whether each call waits for a person.")
    timeout: Duration = Field(default=30.0, gt=0, description="Until a call counts as failed.")
    owner: str | None = Field(default=None, description="Who answers for it.")


class ToolFile(Strict):
    """A tool contract, `tools/NAME.yaml`."""

    tool: ToolSpec


class PromptSpec(Strict):
    """A prompt with a name of its own (`prompts/*.yaml`)."""

    name: str = Field(description="The prompt's name.")
    version: str | int | float | None = Field(default=None, description="The prompt's own version.")
    template: str = Field(description="The prompt's text; with `variables`, `{{name}}` stands for a variable's value.")
    variables: dict[str, str | None] = Field(
        default={}, description="Declared variables with their defaults; `null`: the agent file must give a value."
    )
    objective: str | None = Field(default=None, description="What it is for.")
    owner: str | None = Field(default=None, description="Who answers for it.")
    model: str | None = Field(default=None, description="The model it was written for; the agent file decides.")
    temperature: float | None = Field(default=None, description="As it was written for; the agent file decides.")
    metadata: dict[str, Any] = Field(default={}, description="Anything else worth keeping with it.")
