"""Every table, in one place: what Lockgate remembers.

Two databases: ``control`` (state that must not be lost) and ``traces`` (spans, append-only). The migrations in
``migrations/`` bring a database to this shape; a test holds the two against each other.
Times are Unix seconds, money is nano-USD, digests are ``sha256:<hex>``.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    Connection,
    Double,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    String,
    Table,
    Text,
    UniqueConstraint,
    event,
)

HEAD = {"control": "control_0002", "traces": "traces_0001"}
VERSION_TABLE = {"control": "control_schema_version", "traces": "traces_schema_version"}

control = MetaData()
traces = MetaData()

_Sequence = BigInteger().with_variant(Integer(), "sqlite")  # SQLite counts up only a plain INTEGER


def _only_where(index: Index, table: Table, condition: ColumnElement[bool]) -> None:
    """Make it an index of those rows alone. Said when the table is created: to say it here would import the whole
    dialect of PostgreSQL, for every command."""

    def say(_table: Table, connection: Connection, **_: Any) -> None:
        index.dialect_kwargs[f"{connection.dialect.name}_where"] = condition

    event.listen(table, "before_create", say)


# --- who may, who leads, who did ------------------------------------------------------------------------------

leases = Table(
    "leases",
    control,
    Column("name", String, primary_key=True),
    Column("holder", String, nullable=False),
    Column("fence", BigInteger, nullable=False),
    Column("expires_at", Double, nullable=False),
)

audit = Table(
    "audit",
    control,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("at", Double, nullable=False),
    Column("actor", String, nullable=False),
    Column("action", String, nullable=False),
    Column("subject", String, nullable=False),
    Column("details", JSON, nullable=False),
    Column("previous_hash", String, nullable=False),
    Column("hash", String, nullable=False),
)

api_keys = Table(
    "api_keys",
    control,
    Column("id", String, primary_key=True),
    Column("hash", String, nullable=False, unique=True),
    Column("name", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("roles", JSON, nullable=False),
    Column("agents", JSON),  # null: any
    Column("models", JSON),  # null: any
    Column("tools", JSON),  # null: any
    Column("limits", JSON, nullable=False, default={}),  # by the names of project.limits.Allowance
    Column("created_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("revoked_at", Double),
    Column("previous_hash", String, unique=True),  # of the secret before the last rotation
    Column("previous_until", Double),
)

setting_changes = Table(  # append-only: the newest of each name and scope holds
    "setting_changes",
    control,
    Column("revision", _Sequence, primary_key=True, autoincrement=True),
    Column("name", String, nullable=False),
    Column("environment", String, nullable=False),  # the scope; empty: any
    Column("agent", String, nullable=False),
    Column("tenant", String, nullable=False),
    Column("model", String, nullable=False),
    Column("value", JSON),
    Column("removed", Boolean, nullable=False),
    Column("reason", Text, nullable=False),
    Column("actor", String, nullable=False),
    Column("at", Double, nullable=False),
    Index("setting_changes_by_name", "name", "environment", "agent", "tenant", "model"),
)

# --- versions and where they serve ----------------------------------------------------------------------------

versions = Table(
    "versions",
    control,
    Column("behaviour_digest", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("file_version", Integer, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("git_commit", String),
    Column("source", String, nullable=False),  # the agent file, relative to the project
    Column("settings_digest", String, nullable=False),  # blob of AgentSettings as last locked
    Index("versions_by_agent", "agent", "created_at"),
)

version_commits = Table(
    "version_commits",
    control,
    Column("behaviour_digest", String, primary_key=True),
    Column("git_commit", String, primary_key=True),  # a clean commit that the version was locked from
    Column("seen_at", Double, nullable=False),
    Index("version_commits_by_commit", "git_commit"),
)

attestations = Table(
    "attestations",
    control,
    Column("id", String, primary_key=True),
    Column("effective_digest", String, nullable=False),
    Column("behaviour_digest", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("verdict", String, nullable=False),
    Column("envelope", JSON, nullable=False),  # signed; see versions/attestation.py
    Column("created_at", Double, nullable=False),
    Index("attestations_by_digest", "effective_digest", "created_at"),
)

resolved_providers = Table(  # of deployed versions
    "resolved_providers",
    control,
    Column("effective_digest", String, primary_key=True),
    Column("behaviour_digest", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("providers", JSON, nullable=False),  # by name; secrets as references
    Column("recorded_at", Double, nullable=False),
)

deployments = Table(
    "deployments",
    control,
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("stable_behaviour", String, nullable=False),
    Column("stable_effective", String, nullable=False),
    Column("previous_behaviour", String),
    Column("previous_effective", String),
    Column("warm_until", Double),
    Column("settings", JSON, nullable=False),  # AgentSettings: what may change without a new identity
    Column("updated_at", Double, nullable=False),
    Column("updated_by", String, nullable=False),
    PrimaryKeyConstraint("environment", "agent"),
)

rollouts = Table(
    "rollouts",
    control,
    Column("id", String, primary_key=True),
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("baseline_behaviour", String, nullable=False),
    Column("baseline_effective", String, nullable=False),
    Column("candidate_behaviour", String, nullable=False),
    Column("candidate_effective", String, nullable=False),
    Column("plan", JSON, nullable=False),
    Column("settings", JSON, nullable=False),  # AgentSettings of the candidate: the deployment's, once promoted
    Column("status", String, nullable=False),
    Column("phase", Integer, nullable=False),
    Column("phase_started_at", Double, nullable=False),
    Column("reason", Text, nullable=False),
    Column("created_by", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    Column("ended_at", Double),
    Index("rollouts_by_agent", "environment", "agent", "created_at"),
)
_only_where(
    Index("one_live_rollout", rollouts.c.environment, rollouts.c.agent, unique=True),
    rollouts,
    rollouts.c.ended_at.is_(None),
)

rollout_events = Table(
    "rollout_events",
    control,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("rollout_id", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("kind", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("data", JSON, nullable=False),
    Index("rollout_events_by_rollout", "rollout_id", "seq"),
)

routes = Table(
    "routes",
    control,
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("stable_behaviour", String, nullable=False),
    Column("stable_effective", String, nullable=False),
    Column("candidate_behaviour", String),
    Column("candidate_effective", String),
    Column("rollout_id", String),
    Column("weight", Double, nullable=False),  # percent of assignment keys to the candidate
    Column("mirror", Double, nullable=False),  # percent of stable runs shadowed
    Column("settings", JSON, nullable=False),  # of the stable version: daily budgets, breaker
    Column("lease_until", Double),  # past it, gateways serve stable only
    Column("revision", BigInteger, nullable=False),
    PrimaryKeyConstraint("environment", "agent"),
)

assignments = Table(
    "assignments",
    control,
    Column("seq", _Sequence, primary_key=True, autoincrement=True),
    Column("rollout_id", String, nullable=False),
    Column("key", String, nullable=False),
    Column("arm", String, nullable=False),  # stable | candidate
    Column("weight", Double, nullable=False),  # in force when assigned
    Column("assigned_at", Double, nullable=False),
    UniqueConstraint("rollout_id", "key"),
)

evidence = Table(
    "evidence",
    control,
    Column("key", String, primary_key=True),  # digest of (candidate, baseline, environment, metric spec)
    Column("agent", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("state", JSON, nullable=False),
    Column("updated_at", Double, nullable=False),
)

digest_holds = Table(
    "digest_holds",
    control,
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("effective_digest", String, nullable=False),
    Column("reason", Text, nullable=False),
    Column("held_by", String, nullable=False),
    Column("held_at", Double, nullable=False),
    PrimaryKeyConstraint("environment", "agent", "effective_digest"),
)

gitops_source = Table(
    "gitops_source",
    control,
    Column("name", String, primary_key=True),
    Column("seen_commit", String, nullable=False),  # the branch's newest
    Column("applied_commit", String, nullable=False),  # the newest that could be read
    Column("error", Text, nullable=False),  # what is wrong with the newest
    Column("checked_at", Double, nullable=False),
    Column("woken_at", Double, nullable=False),
)

gitops_states = Table(
    "gitops_states",
    control,
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("wanted_behaviour", String, nullable=False),
    Column("wanted_effective", String, nullable=False),
    Column("commit", String, nullable=False),
    Column("status", String, nullable=False),  # Synced | OutOfSync | Progressing | Degraded
    Column("message", Text, nullable=False),
    Column("synced_at", Double),  # since it is wanted
    Column("updated_at", Double, nullable=False),
    PrimaryKeyConstraint("environment", "agent"),
)

# --- runs -----------------------------------------------------------------------------------------------------

runs = Table(
    "runs",
    control,
    Column("id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("behaviour_digest", String, nullable=False),
    Column("effective_digest", String, nullable=False),
    Column("arm", String, nullable=False),  # stable | candidate | shadow | direct
    Column("rollout_id", String),
    Column("assignment_key", String, nullable=False),
    Column("session", String),
    Column("tenant", String, nullable=False),
    Column("primary_run", String),  # of a shadow: the run it copies
    Column("depth", Integer, nullable=False, default=0),
    Column("tools", JSON),  # that its caller may have called; null: any
    Column("origin", JSON),  # what its calls count for: lockgate.runs.Origin
    Column("status", String, nullable=False),
    Column("input", JSON, nullable=False),
    Column("output", JSON),
    Column("error_type", String),
    Column("error", Text),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("model_calls", Integer, nullable=False, default=0),
    Column("tool_calls", Integer, nullable=False, default=0),
    Column("iterations", Integer, nullable=False, default=0),
    Column("replayed_calls", Integer, nullable=False, default=0),  # of a shadow: tool calls answered from the record
    Column("served", JSON),  # by model as asked for: what the provider says answered
    Column("trace_id", String, nullable=False),
    Column("attempt", Integer, nullable=False, default=1),  # fences writes of a late host
    Column("host", String, nullable=False, default=""),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Index("runs_by_agent", "environment", "agent", "started_at"),
    Index("runs_by_rollout", "rollout_id", "assignment_key"),
    Index("runs_by_status", "status"),
    Index("runs_by_end", "ended_at"),
)

run_steps = Table(
    "run_steps",
    control,
    Column("run_id", String, nullable=False),
    Column("seq", Integer, nullable=False),
    Column("kind", String, nullable=False),  # model | tool
    Column("name", String, nullable=False),
    Column("request_hash", String, nullable=False),
    Column("request", JSON, nullable=False),
    Column("response", JSON),
    Column("status", String, nullable=False),  # started | waiting | done | failed | stubbed
    Column("effect", String),  # of a tool: pure | read | write
    Column("replayed", Boolean, nullable=False, default=False),  # a shadow's: answered from the primary's record
    Column("error_type", String),
    Column("error", Text),
    Column("input_tokens", BigInteger, nullable=False, default=0),
    Column("output_tokens", BigInteger, nullable=False, default=0),
    Column("cost_nano", BigInteger, nullable=False, default=0),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    PrimaryKeyConstraint("run_id", "seq"),
)

run_scores = Table(
    "run_scores",
    control,
    Column("run_id", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("score", Double),  # 0..1; null when skipped
    Column("reason", Text),
    Column("scored_at", Double, nullable=False),
    PrimaryKeyConstraint("run_id", "metric"),
    Index("run_scores_by_time", "scored_at"),
)

approvals = Table(
    "approvals",
    control,
    Column("id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("seq", Integer, nullable=False),  # the step that waits
    Column("agent", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("tool", String, nullable=False),
    Column("arguments", JSON, nullable=False),
    Column("arguments_hash", String, nullable=False),
    Column("effective_digest", String, nullable=False),
    Column("policy_digest", String, nullable=False),
    Column("status", String, nullable=False),  # see tools/model.py
    Column("requested_at", Double, nullable=False),
    Column("expires_at", Double),
    Column("decided_at", Double),
    Column("decided_by", String),
    Column("reason", Text),
    Column("executed_at", Double),
    UniqueConstraint("run_id", "seq"),
    Index("approvals_by_status", "status", "requested_at"),
)

served_revisions = Table(
    "served_revisions",
    control,
    Column("environment", String, nullable=False),
    Column("effective_digest", String, nullable=False),
    Column("model", String, nullable=False),  # provider/name, as asked for
    Column("revision", String, nullable=False),  # as the provider calls what answered
    Column("accepted", Boolean, nullable=False),  # false: an alert tells of it
    Column("first_seen_at", Double, nullable=False),
    PrimaryKeyConstraint("environment", "effective_digest", "model", "revision"),
)

hosts = Table(
    "hosts",
    control,
    Column("id", String, primary_key=True),
    Column("effective_digest", String, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("address", String, nullable=False),
    Column("ready_at", Double, nullable=False),
    Column("heartbeat_at", Double, nullable=False),
)

instances = Table(  # agents that others run, and that report by heartbeat
    "instances",
    control,
    Column("environment", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("instance", String, nullable=False),
    Column("version", String, nullable=False),  # what it runs, as it says
    Column("status", String, nullable=False),  # ok | degraded | stopping
    Column("message", Text, nullable=False),
    Column("interval", Double, nullable=False),  # seconds between its heartbeats
    Column("first_seen_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Column("behind_since", Double),  # null: it runs what it should
    PrimaryKeyConstraint("environment", "agent", "instance"),
)

# --- evals ----------------------------------------------------------------------------------------------------

eval_runs = Table(
    "eval_runs",
    control,
    Column("id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("kind", String, nullable=False, default="quality"),  # quality | safety | fallback | compare
    Column("behaviour_digest", String, nullable=False),
    Column("effective_digest", String, nullable=False),
    Column("baseline_effective", String),
    Column("dataset_digest", String, nullable=False),
    Column("rubric_digest", String, nullable=False),
    Column("verdict", String),  # pass | fail | inconclusive; null while running
    Column("scorecard", JSON),
    Column("started_at", Double, nullable=False),
    Column("ended_at", Double),
    Index("eval_runs_by_agent", "agent", "started_at"),
)

eval_tables = Table(  # what an evaluation saw, case by case and in few bytes: comparing two reads these alone
    "eval_tables",
    control,
    Column("evaluation", String, primary_key=True),
    Column("data", LargeBinary, nullable=False),  # lockgate.evals.tables
)

trials = Table(
    "trials",
    control,
    Column("effective_digest", String, nullable=False),
    Column("case_digest", String, nullable=False),
    Column("trial", Integer, nullable=False),
    Column("case_id", String, nullable=False),
    Column("result", JSON, nullable=False),  # a RunResult
    Column("finished_at", Double, nullable=False),
    PrimaryKeyConstraint("effective_digest", "case_digest", "trial"),
)

trial_calls = Table(  # of trials under way: what a trial cut off has paid for; gone when its result is stored
    "trial_calls",
    control,
    Column("effective_digest", String, nullable=False),
    Column("case_digest", String, nullable=False),
    Column("trial", Integer, nullable=False),
    Column("asked", String, nullable=False),  # digest of the request
    Column("number", Integer, nullable=False),  # how often the trial had asked the same before
    Column("answer", JSON, nullable=False),
    PrimaryKeyConstraint("effective_digest", "case_digest", "trial", "asked", "number"),
)

trial_scores = Table(
    "trial_scores",
    control,
    Column("effective_digest", String, nullable=False),
    Column("case_digest", String, nullable=False),
    Column("trial", Integer, nullable=False),
    Column("scorer_digest", String, nullable=False),
    Column("score", Double),  # 0..1, or units for cost and latency; null when skipped
    Column("status", String, nullable=False),  # scored | skipped | unscored | error
    Column("reason", Text),
    PrimaryKeyConstraint("effective_digest", "case_digest", "trial", "scorer_digest"),
)

calibrations = Table(
    "calibrations",
    control,
    Column("id", String, primary_key=True),
    Column("judge_digest", String, nullable=False),  # of its model, its words and its metric
    Column("metric", String, nullable=False),
    Column("record", JSON, nullable=False),  # a Calibration
    Column("created_at", Double, nullable=False),
    Index("calibrations_by_judge", "judge_digest", "created_at"),
)

annotation_items = Table(  # answers that people are to grade
    "annotation_items",
    control,
    Column("id", String, primary_key=True),
    Column("agent", String, nullable=False),
    Column("metric", String, nullable=False),
    Column("answer", String, nullable=False),  # digest of input, answer and what it is held against
    Column("question", Text, nullable=False),  # as people are asked
    Column("sample", JSON, nullable=False),  # a Shown: the case and the result
    Column("source", String, nullable=False),  # trial | run
    Column("stratum", String, nullable=False),
    Column("weight", Double, nullable=False),  # answers of its stratum that it stands for
    Column("wanted", Integer, nullable=False),  # grades, each by another person
    Column("created_at", Double, nullable=False),
    UniqueConstraint("agent", "metric", "answer"),
)

annotation_labels = Table(
    "annotation_labels",
    control,
    Column("item_id", String, nullable=False),
    Column("annotator", String, nullable=False),
    Column("value", Double),  # 0..1; null: this person cannot tell
    Column("note", Text, nullable=False),
    Column("created_at", Double, nullable=False),
    PrimaryKeyConstraint("item_id", "annotator"),
)

# --- limits ---------------------------------------------------------------------------------------------------

ledger = Table(
    "ledger",
    control,
    Column("account", String, nullable=False),
    Column("window", String, nullable=False),
    Column("unit", String, nullable=False),  # usd (settled is nano-USD) | tokens | calls
    Column("machine", String, nullable=False),  # whose total it is; "" where there is only one
    Column("settled", BigInteger, nullable=False),
    Column("granted", BigInteger),  # how much of the cap the machine has leased; null: the cap is its own
    Column("burn", Double, nullable=False, default=0.0),  # units a second, as of updated_at
    # for other machines to show, a second old:
    Column("cap", BigInteger),
    Column("held", BigInteger, nullable=False, default=0),
    Column("refused", BigInteger, nullable=False, default=0),
    Column("created_at", Double, nullable=False),
    Column("updated_at", Double, nullable=False),
    PrimaryKeyConstraint("account", "window", "unit", "machine"),
)

machines = Table(  # that lease slices of shared caps
    "machines",
    control,
    Column("name", String, primary_key=True),
    Column("joined_at", Double, nullable=False),
    Column("seen_at", Double, nullable=False),
    Column("keeps_traces", Boolean, nullable=False, default=False),  # its spans are in a database of its own
)

uncertain_charges = Table(  # calls that were charged at their bound, because what they used was not known
    "uncertain_charges",
    control,
    Column("id", String, primary_key=True),  # the span's id, 16 hex, else a random one
    Column("machine", String, nullable=False),
    Column("at", Double, nullable=False),
    Column("reason", String, nullable=False),  # died | no_usage | batch | batch_no_usage | lost
    Column("parts", JSON, nullable=False),  # [account, window, unit, charged]
    Column("tokens", BigInteger, nullable=False),  # held
    Column("corrected_at", Double),
    Column("used_nano", BigInteger),
    Column("used_tokens", BigInteger),
    Index("uncertain_charges_open", "corrected_at", "at"),
)

provider_files = Table(  # OpenAI files that went through the gateway: whose they are
    "provider_files",
    control,
    Column("environment", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("id", String, nullable=False),  # the provider's own
    Column("tenant", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("purpose", String, nullable=False),
    Column("object", JSON, nullable=False),  # as the provider last told it
    Column("counted", JSON),  # what its lines can cost at most, when it is a batch's input; see gateway/batches
    Column("batch_id", String),  # the batch that made it
    PrimaryKeyConstraint("environment", "provider", "id"),
    Index("provider_files_by_tenant", "environment", "tenant", "created_at"),
)

provider_uploads = Table(  # OpenAI files that come in parts, until they are whole
    "provider_uploads",
    control,
    Column("environment", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("id", String, nullable=False),  # the provider's own
    Column("tenant", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Column("purpose", String, nullable=False),
    PrimaryKeyConstraint("environment", "provider", "id"),
    Index("provider_uploads_by_tenant", "environment", "tenant", "created_at"),
)

provider_batches = Table(
    "provider_batches",
    control,
    Column("environment", String, nullable=False),
    Column("provider", String, nullable=False),
    Column("id", String, nullable=False),  # the provider's own
    Column("tenant", String, nullable=False),
    Column("key_id", String, nullable=False),
    Column("machine", String, nullable=False),  # that made it, and settles it while it lives
    Column("agent", String),
    Column("run_id", String),
    Column("model", String, nullable=False),  # as the provider names it
    Column("endpoint", String, nullable=False),
    Column("charge_id", String, nullable=False),  # of uncertain_charges, and the span's id
    Column("trace_id", String, nullable=False),
    Column("attributes", JSON, nullable=False),  # of the span
    Column("created_at", Double, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("held_nano", BigInteger, nullable=False),
    Column("object", JSON, nullable=False),  # as the provider last told it
    Column("status", String, nullable=False),  # open | settled | unknown (charged in full: nobody can tell)
    Column("cost_nano", BigInteger),
    Column("due_at", Double, nullable=False),  # when the provider is to be asked again
    Column("terms", JSON),  # what the checks of its answers go by; see gateway/batches
    PrimaryKeyConstraint("environment", "provider", "id"),
    Index("provider_batches_by_tenant", "environment", "tenant", "created_at"),
    Index("provider_batches_due", "status", "due_at"),
)

# --- improve and operate --------------------------------------------------------------------------------------

candidates = Table(
    "candidates",
    control,
    Column("id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("agent", String, nullable=False),
    Column("environment", String, nullable=False),
    Column("signature", String, nullable=False),  # digest of agent and input: rows that share it are one candidate
    Column("reason", String, nullable=False),  # see improve/model.py
    Column("cause", String, nullable=False),  # the error type, metric, tool or rollout
    Column("detail", Text, nullable=False),
    Column("weight", Double, nullable=False),  # share of the agent's runs that this one is
    Column("status", String, nullable=False),  # open | promoted | rejected
    Column("case_id", String),
    Column("created_at", Double, nullable=False),
    Column("decided_at", Double),
    Column("decided_by", String),
    UniqueConstraint("run_id", "reason"),
    Index("candidates_by_status", "status", "created_at"),
    Index("candidates_by_signature", "signature"),
)

feedback = Table(
    "feedback",
    control,
    Column("id", String, primary_key=True),
    Column("run_id", String, nullable=False),
    Column("rating", Integer, nullable=False),  # -1 | 1
    Column("comment", Text, nullable=False),
    Column("author", String, nullable=False),
    Column("created_at", Double, nullable=False),
    Index("feedback_by_time", "created_at"),
)

alerts = Table(
    "alerts",
    control,
    Column("id", String, primary_key=True),
    Column("key", String, nullable=False),  # one open alert per key
    Column("kind", String, nullable=False),
    Column("severity", String, nullable=False),  # critical | warning | info
    Column("subject", String, nullable=False),
    Column("message", Text, nullable=False),
    Column("opened_at", Double, nullable=False),
    Column("last_seen_at", Double, nullable=False),
    Column("resolved_at", Double),
    Index("alerts_by_time", "opened_at"),
)

_only_where(Index("one_open_alert", alerts.c.key, unique=True), alerts, alerts.c.resolved_at.is_(None))

# --- traces ---------------------------------------------------------------------------------------------------

spans = Table(
    "spans",
    traces,
    Column("trace_id", LargeBinary(16), nullable=False),
    Column("span_id", LargeBinary(8), nullable=False),
    Column("parent_id", LargeBinary(8)),
    Column("name", String, nullable=False),
    Column("kind", Integer, nullable=False),
    Column("start_ns", BigInteger, nullable=False),
    Column("end_ns", BigInteger, nullable=False),
    Column("status", Integer, nullable=False),  # 0 unset, 1 ok, 2 error
    Column("status_message", Text, nullable=False),
    Column("run_id", String),
    Column("agent", String),
    Column("effective_digest", String),
    Column("model", String),
    Column("input_tokens", BigInteger, nullable=False),
    Column("output_tokens", BigInteger, nullable=False),
    Column("cost_nano", BigInteger, nullable=False),
    Column("attributes", LargeBinary, nullable=False),  # JSON
    Column("events", LargeBinary, nullable=False),  # JSON
    PrimaryKeyConstraint("trace_id", "span_id"),
    Index("spans_by_run", "run_id"),
    Index("spans_by_start", "start_ns"),
)
