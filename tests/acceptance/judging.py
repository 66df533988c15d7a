"""A project with an agent and a judge on one fake model server, for tests of what is done with judges."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.conftest import write_files

from lockgate.testing import FakeModelServer
from lockgate.testing.replies import ModelRequest

AGENT = """\
agent:
  name: support
  version: {version}
  owner: support
  model: {{provider: fake, name: agent-2026-01-01, temperature: 0}}
  system_prompt: prompts/v{version}.md
  evals:
    dataset: evals/golden/support.jsonl
    trials: 1
    concurrency: 8
    judge: {{provider: fake, name: judge-2026-01-01}}
    thresholds: {{helpfulness: 0.5, error_rate: 0.1}}
"""


class Models:
    """The agent answers kindly or curtly by its prompt and the case; the judge calls kind answers helpful."""

    def __init__(self) -> None:
        self.always_first = False
        self.judge_calls = 0

    def __call__(self, request: ModelRequest) -> Any:
        if request.body["model"].startswith("agent"):
            kind = "kind" in request.messages[0]["content"] or int(request.last_user.split("-")[-1]) % 2 == 0
            return f"Gladly! {request.last_user}" if kind else f"No. {request.last_user}"
        self.judge_calls += 1
        material = json.loads(request.last_user.partition("Material:\n")[2])
        if "first" not in material:
            return json.dumps({"reason": "r", "verdict": "yes" if "Gladly" in material["answer"] else "no"})
        first, second = ("Gladly" in material[side] for side in ("first", "second"))
        better = "first" if self.always_first or first > second else "second" if second > first else "tie"
        return json.dumps({"reason": "r", "better": better})


def write_project(root: Path, server: FakeModelServer, *, cases: int = 40) -> None:
    """Two versions, a kind one (v2) and one that is kind to every other case (v1)."""
    files = {
        "lockgate.yaml": f"project: p\nproviders: {{fake: {{kind: openai, base_url: '{server.base_url}'}}}}\n"
        "prices: prices.yaml\n"
        "environments:\n  dev: {}\n  prod: {}\n  strict: {policy: {require_calibrated_judge: true}}\n",
        "prices.yaml": "fake:\n  agent-2026-01-01: {input: 1.0, output: 2.0}\n"
        "  judge-2026-01-01: {input: 1.0, output: 2.0}\n",
        "evals/golden/support.jsonl": "".join(
            json.dumps({"id": f"c{n}", "input": f"question-{n}", "tags": ["late" if n % 4 < 2 else "broken"]}) + "\n"
            for n in range(cases)
        ),
        "prompts/v1.md": "You help.\n",
        "prompts/v2.md": "You help and are kind.\n",
        **{f"agents/support.v{version}.yaml": AGENT.format(version=version) for version in (1, 2)},
    }
    write_files(root, files)
