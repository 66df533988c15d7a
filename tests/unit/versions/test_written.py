"""A version written out as files, and locked again from them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.conftest import ACME, PLAYBOOK_AGENT, write_files

from lockgate.project.model import Project
from lockgate.project.service import load_project
from lockgate.versions import checkout
from lockgate.versions.bundle import unpack
from lockgate.versions.locking import Names, Packed, pack_file
from lockgate.versions.source import agent_files
from lockgate.versions.written import Written, written

RICH = """\
agent:
  name: triage
  version: 7
  model:
    provider: house
    name: "1e3"
    temperature: 0
    stop: ["~", "no", "0o7"]
    fallbacks: [{provider: openai, name: gpt-4o-mini-2024-07-18}]
    triage: {provider: openai, name: small-2024-07-18, easy_below: 40, ask: false}
  references: [{name: adapter, kind: adapter, digest: "sha256:%s"}]
  system_prompt: prompts/triage.yaml
  variables: {shop: "Müller & Söhne"}
  tools: [read_orders, {name: send_email, approval: required, contract: none}, {name: issue_refund, approval: required}]
  guardrails: {pii_redaction: true, injection: flag, input: [secrets], output_schema: schemas/facts.json}
  cache: true
  policies: [policies/support.cedar]
  memory: {ttl: 7d}
  budgets: {max_llm_calls: 4, max_usd_per_run: 0.5, daily_tokens: 900}
  breaker: {failure_threshold: 3}
  evals:
    dataset: evals/golden/triage.jsonl
    rubric: {dimensions: {field_match: 0.8}}
    judge: {provider: house, name: j-1}
  rollout: {shadow: {mirror: 50}, phases: [{weight: 5, min: 1h}], gates: {cost_usd: false}}
""" % ("0" * 64)

HOUSE = "project: acme\nproviders: {house: {kind: openai, base_url: 'https://models.example.test/v1'}}\n"
PROMPT = "name: triage\ntemplate: |\n  Help the customers of {{shop}}.\n  Say 'yes'.\nvariables: {shop: null}\n"


def packed(root: Path) -> tuple[Project, Packed]:
    project = load_project(root)
    (path,) = agent_files(project.root)
    return project, pack_file(path, project, Names(project, [], online=False))


def write_again(root: Path, folder: Path) -> tuple[Packed, Written]:
    project, one = packed(root)
    get = one.bundle.blobs.__getitem__
    version = unpack(one.entry.digest, get, file_version=one.entry.version)
    files = written(version, one.source.settings, get, project)
    checkout.write(files.files, folder)
    return one, files


@pytest.mark.parametrize(
    "files",
    [
        ACME,
        ACME | {"agents/triage.v1.yaml": RICH, "lockgate.yaml": HOUSE, "prompts/triage.yaml": PROMPT},
        ACME
        | {"tools/decide.yaml": "tool: {name: decide, effect: pure, python: 'tools/decide.py:decide', timeout: 5}\n"},
    ],
    ids=["small", "rich", "contract"],
)
def test_what_is_written_locks_to_the_same_digest(files: dict[str, str], tmp_path: Path) -> None:
    before, out = write_again(write_files(tmp_path / "acme", files), tmp_path / "out")
    _, after = packed(tmp_path / "out")
    assert after.entry.digest == before.entry.digest
    assert after.entry.version == before.entry.version
    evals = dict(before.source.settings.evals)
    evals.pop("dataset")
    assert after.source.settings.evals == evals
    for name in ("owner", "daily_usd", "daily_tokens", "breaker", "rollout"):
        assert getattr(after.source.settings, name) == getattr(before.source.settings, name), name
    assert any("the golden set evals/golden/triage.jsonl" in one for one in out.missing)


def test_a_metric_that_needs_a_file_of_its_own_is_left_out_and_named(tmp_path: Path) -> None:
    text = ACME["agents/triage.v1.yaml"].replace(
        "field_match: 0.8", "shape: {metric: valid_json, schema: evals/s.json}"
    )
    _, out = write_again(write_files(tmp_path / "acme", ACME | {"agents/triage.v1.yaml": text}), tmp_path / "out")
    _, after = packed(tmp_path / "out")
    assert after.source.settings.evals == {"thresholds": {"cost_usd": {"max": 0.05}}}
    assert "the metric shape: it needs evals/s.json" in out.missing


def test_what_a_bundle_does_not_carry_is_named(tmp_path: Path) -> None:
    files = ACME | {
        "agents/triage.v1.yaml": PLAYBOOK_AGENT.replace("provider: ollama", "provider: house"),
        "prompts/refund-triage.v3.md": "You triage refunds.\n",
        "schemas/triage_output.json": "{}",
        "lockgate.yaml": HOUSE,
    }
    write_files(tmp_path / "acme", files)
    _, one = packed(tmp_path / "acme")
    get = one.bundle.blobs.__getitem__
    version = unpack(one.entry.digest, get)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/lockgate.yaml").write_text("project: other\n")
    out = written(version, one.source.settings, get, load_project(tmp_path / "elsewhere"), number=3)
    assert "agents/refund-triage.v3.yaml" in out.files
    assert sorted(line.partition(":")[0] for line in out.missing) == [
        "the knowledge base kb/support-policies@2026-05-21",
        "the provider house",
    ]
