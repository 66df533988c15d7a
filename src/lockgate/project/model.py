"""What ``lockgate.yaml`` says."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

from lockgate.project.guards import TenantSpec
from lockgate.project.identity import Issuer
from lockgate.project.limits import LimitSpec
from lockgate.project.strict import Strict as Strict

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"
DATE = r"^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])$"


_OWN_HEADERS = frozenset(
    ("accept-encoding", "api-key", "authorization", "connection", "content-length", "content-type", "expect", "host",
     "traceparent", "transfer-encoding", "x-api-key", "x-request-id")
)  # fmt: skip
"""What Lockgate says itself, the key among it."""


class UpstreamSpec(Strict):
    """One more place that serves a provider's models."""

    base_url: str = Field(description="The API's root.")
    api_key: str | None = Field(default=None, description="A secret reference; default: the provider's.")
    capacity: int | None = Field(default=None, ge=1, description="Calls at a time; more go to the next.")
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="What its key may ask in a minute; more go to the next."
    )


class UpstreamBreaker(Strict):
    """Stops asking an upstream that keeps failing."""

    failure_threshold: int = Field(default=5, ge=1, description="Failures in a row that open it.")
    reset_timeout: float = Field(default=300.0, gt=0, description="Seconds until one call is let through to try.")


def _settable(name: str) -> str:
    if name.lower() in _OWN_HEADERS:
        raise PydanticCustomError("header", "Lockgate sets the header {name} itself", {"name": repr(name)})
    return name


HeaderName = Annotated[str, Field(pattern=r"^[A-Za-z0-9-]{1,64}$"), AfterValidator(_settable)]
HeaderValue = Annotated[str, Field(pattern=r"^[\x20-\x7e]{1,2048}$")]


class Provider(Strict):
    """Where models are served. ``kind: local`` runs the named weights on this machine."""

    kind: Literal["openai", "anthropic", "azure", "any-llm", "local"] = Field(
        description="The wire protocol (`azure`: OpenAI's, with its keys and versions; `any-llm`: by that library), or "
        "`local`."
    )
    base_url: str | None = Field(default=None, description="The API's root; each kind has a default.")
    api_key: str | None = Field(default=None, description="A secret reference such as `${env:OPENAI_API_KEY}`.")
    headers: dict[HeaderName, HeaderValue] = Field(
        default={},
        description="Further headers of each request, such as `x-portkey-provider`; a secret as a reference.",
    )
    weights: str | None = Field(
        default=None, description="For `local`: a known model's name, or a path to a GGUF file."
    )
    api_version: str | None = Field(
        default=None, pattern=r"^[A-Za-z0-9.-]+$", description="For `azure`: the `api-version`; default: the v1 API."
    )
    vendor: str | None = Field(
        default=None, pattern=NAME, description="For `any-llm`: what it calls the provider; default: this one's name."
    )
    timeout: float = Field(default=120.0, gt=0, description="Seconds until a model call is given up.")
    region: str | None = Field(
        default=None, description="Where it serves, such as `eu`: what the `regions` of a tenant are held against."
    )
    retries: int = Field(
        default=2, ge=0, le=10, description="Further tries of a call that was not served, inside its timeout."
    )
    first_token_timeout: float | None = Field(
        default=None, gt=0, description="Seconds until a stream without any output is given up for a fallback."
    )
    hedge_after: float | None = Field(
        default=None, gt=0, description="Seconds after which a second upstream is asked too; the first answer is taken."
    )
    private_urls: bool = Field(
        default=False, description="Let requests name images and files at addresses of a private network."
    )
    requests_per_minute: int | None = Field(
        default=None, ge=1, description="What its key may ask in a minute, on one machine; more go to `upstreams`."
    )
    upstreams: list[UpstreamSpec] = Field(default=[], description="Further places that serve the same models.")
    capacity: int | None = Field(
        default=None, ge=1, description="Calls at a time and gateway worker; more go to the next upstream, or wait."
    )
    queue: int = Field(default=100, ge=0, description="Calls that may wait for a place; more are answered 503.")
    queue_timeout: float = Field(default=10.0, gt=0, description="Seconds a call may wait for a place.")
    breaker: UpstreamBreaker = Field(
        default_factory=UpstreamBreaker, description="When an upstream that fails is left alone."
    )


class FloatingAllowance(Strict):
    """A model name that may float, and who said so."""

    model: str = Field(description="`PROVIDER/NAME`, or `*`.")
    by: str = Field(min_length=1, description="Who allows it: goes into the audit log with every deployment.")
    reason: str = Field(default="", description="Why.")
    until: str | None = Field(
        default=None, pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$", description="The last day (UTC) it holds, `2027-01-31`."
    )


Level = Literal["observe", "warn", "enforce"]
"""What happens to a version that a policy has something against: it is written down, warned of, or refused."""


class EnvironmentPolicy(Strict):
    """What an environment asks of a version, and what it does about one that falls short."""

    level: Level = Field(
        default="enforce",
        description="`enforce` refuses what falls short, `warn` lets it in and says so, `observe` only writes it down.",
    )
    require_owner: bool = Field(default=True, description="Refuse an agent that nobody owns.")
    require_pinned_model: bool = Field(default=True, description="Refuse a model name that can be moved.")
    allow_floating: list[FloatingAllowance] = Field(
        default=[], description="Exceptions to it, each by somebody's name."
    )
    require_gate: bool = Field(default=True, description="Refuse what has no passing attestation of the eval gate.")
    require_calibrated_judge: bool = Field(
        default=False, description="Evaluate no blocking metric by a judge that was not calibrated against people."
    )
    require_own_rubric: bool = Field(
        default=True,
        description="Refuse a verdict that another rubric or golden set gave than the agent's own as they are now.",
    )
    gate_max_days: float | None = Field(
        default=None, gt=0, description="An attestation older than so many days no longer counts; default: any age."
    )


class Budgets(Strict):
    """Daily budgets of one agent in one environment, in place of its file's. Part of no identity."""

    daily_usd: float | None = Field(default=None, ge=0, description="USD a day.")
    daily_tokens: int | None = Field(default=None, ge=0, description="Tokens a day.")


class Placement(Strict):
    """One agent in one environment: which version, and how it gets there."""

    version: int | str = Field(
        description="A file version (3), a digest (`sha256:…`, or 12 of its hex digits), or the path of an agent file."
    )
    strategy: Literal["rollout", "direct"] = Field(
        default="rollout", description="`rollout`: by the agent's phases. `direct`: as soon as a host is ready."
    )
    level: Level | None = Field(default=None, description="In place of the environment's policy level, for this agent.")
    providers: dict[str, Provider] = Field(
        default_factory=dict, description="Overrides by provider name, for this agent alone."
    )
    budgets: Budgets = Field(default_factory=Budgets, description="In place of the agent file's daily budgets.")
    rollout: dict[str, Any] = Field(
        default_factory=dict, description="Keys of the agent file's rollout block that are different here."
    )


class Mirror(Strict):
    """Traffic of another environment, run here as shadows: tools that change something are never carried out."""

    source: str = Field(alias="from", description="The environment whose runs are copied, such as `prod`.")
    share: float = Field(default=1.0, gt=0, le=1, description="The share of its runs, over 0 and up to 1.")


class Environment(Strict):
    """One of dev, staging, prod: the same version flows through all of them."""

    file: str | None = Field(default=None, description="A YAML file that says the rest, in place of the keys here.")
    agents: dict[str, Placement] = Field(default_factory=dict, description="What serves here, by agent.")
    providers: dict[str, Provider] = Field(default_factory=dict, description="Overrides by provider name.")
    mirror: Mirror | None = Field(
        default=None, description="Run what another environment is asked here too, as shadows on this one's budget."
    )
    policy: EnvironmentPolicy | None = Field(
        default=None, description="Default: everything required in `prod`, else nothing."
    )
    limits: LimitSpec = Field(default_factory=LimitSpec, description="Limits here, in place of the project's by name.")


class GitOps(Strict):
    """The git branch that says what ought to serve; the control plane follows it."""

    repository: str = Field(default=".", description="A path (from the project) or a URL (https, ssh, file).")
    branch: str = Field(default="main", description="The branch to follow.")
    folder: str = Field(default=".", description="The project's folder inside the repository.")
    environments: list[str] | None = Field(default=None, description="Only these; default: each that names agents.")
    poll: float = Field(default=30.0, ge=1, description="Seconds between two looks at the repository.")
    revert_drift: bool = Field(default=False, description="Take back changes made by hand.")
    token: str | None = Field(default=None, description="A secret reference: the password for an https repository.")
    webhook_secret: str | None = Field(
        default=None, description="A secret reference: what pushes are signed with (HMAC-SHA256)."
    )


class TrustedKey(Strict):
    """Whose signature on a verdict of the eval gate counts. A public key alone may stand in its place."""

    public: str = Field(
        pattern=r"^ed25519:[A-Za-z0-9+/]{43}=$", description="The public key, as `lockgate attest keys` prints it."
    )
    environments: list[str] | None = Field(default=None, description="Where it counts; default: in all of them.")
    until: str | None = Field(
        default=None, pattern=DATE, description="The last day (UTC) on which it counts, such as `2027-01-31`."
    )


def _public_alone(value: Any) -> Any:
    return {"public": value} if isinstance(value, str) else value


class ProjectConfig(Strict):
    """The project file, ``lockgate.yaml``."""

    project: str = Field(pattern=NAME, description="The project's name.")
    owner: str | None = Field(default=None, description="Who owns what names no owner of its own.")
    providers: dict[str, Provider] = Field(
        default_factory=dict, description="By name. openai, anthropic, ollama and local need no entry."
    )
    trusted_keys: dict[str, Annotated[TrustedKey, BeforeValidator(_public_alone)]] = Field(
        default_factory=dict,
        description="By name. Where none is given for an environment, this machine's own key counts there.",
    )
    prices: str | None = Field(default=None, description="A YAML file of prices, over the bundled table.")
    deprecations: str | None = Field(
        default=None, description="A YAML file of models' announced ends, over the bundled table."
    )
    environments: dict[str, Environment] = Field(
        default_factory=lambda: {"dev": Environment(), "staging": Environment(), "prod": Environment()},
        description="By name. Default: dev, staging, prod.",
    )
    peers: dict[Literal["ragas", "deepeval", "promptfoo", "inspect"], str] = Field(
        default_factory=dict,
        description="Environments of tools whose metrics are scorers: a virtual environment's folder, or for "
        "promptfoo the folder of its node_modules. Default: this Python.",
    )
    tenants: dict[str, TenantSpec] = Field(
        default_factory=dict,
        description="What holds for a tenant's calls, by its name; `*`: for those without an entry.",
    )
    limits: LimitSpec = Field(default_factory=LimitSpec, description="Budgets and rates, in every environment.")
    issuers: list[Issuer] = Field(default=[], description="Whose JSON Web Tokens count beside API keys.")
    gitops: GitOps | None = Field(default=None, description="Follow a git branch. Default: nothing is followed.")


class Project(msgspec.Struct, kw_only=True):
    """A loaded project: where it is, and what its file says. ``config`` follows the file (``reload.py``)."""

    root: Path
    home: Path  # state: control.db, traces.db, blobs/, run/
    config: ProjectConfig
    problem: str | None = None  # with the file as it stands, when ``config`` is the last good one


class ResolvedUpstream(msgspec.Struct, frozen=True, kw_only=True):
    """One place that serves a provider's models."""

    base_url: str
    api_key: str | None
    capacity: int | None = None
    requests_per_minute: int | None = None


class ResolvedProvider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as one environment resolves it. ``api_key`` is still a reference: secrets resolve at use."""

    name: str
    kind: str
    base_url: str
    api_key: str | None
    weights: str | None
    timeout: float
    retries: int = 2
    api_version: str | None = None
    vendor: str | None = None
    first_token_timeout: float | None = None
    hedge_after: float | None = None
    private_urls: bool = False
    requests_per_minute: int | None = None
    headers: tuple[tuple[str, str], ...] = ()  # values may be references, as api_key is
    upstreams: tuple[ResolvedUpstream, ...] = ()  # beside the one at base_url
    capacity: int | None = None
    queue: int = 100
    queue_timeout: float = 10.0
    failure_threshold: int = 5
    reset_timeout: float = 300.0
    region: str | None = None

    @property
    def local_name(self) -> str:
        """What its server is called among the local ones: other weights under the same name are another server."""
        if self.weights is None:
            return self.name
        return f"{self.name}-{hashlib.sha256(self.weights.encode()).hexdigest()[:8]}"

    def identity(self) -> dict[str, Any]:
        """What of it can change an answer, for the effective digest."""
        further = {"api_version": self.api_version, "vendor": self.vendor}
        given: dict[str, Any] = {name: value for name, value in further.items() if value is not None}
        if self.headers:
            given["headers"] = dict(self.headers)  # a gateway's choose the model behind it
        if self.upstreams:
            given["upstreams"] = [upstream.base_url for upstream in self.upstreams]
        return {"kind": self.kind, "base_url": self.base_url, "weights": self.weights, **given}
