"""What an environment says of an agent holds in the real processes: file, providers, budgets, and the branch."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.gateway.test_up import Up, ask, lockgate, wait_until

from lockgate.testing import FakeModelServer

pytestmark = pytest.mark.xdist_group("placements")  # they share one running `up`

PROJECT = """\
project: shop
owner: us
prices: prices.yaml
providers: {{fake: {{kind: openai, base_url: '{url}', timeout: 20}}}}
environments:
  dev: {{agents: {{clerk: {{version: 1, strategy: direct}}}}}}
  prod: {{file: environments/prod.yaml}}
gitops: {{repository: ., branch: main, poll: 1, environments: [dev]}}
"""
PROD = """\
policy: {{require_gate: false, require_pinned_model: false}}
agents:
  clerk:
    version: 1
    providers: {{fake: {{kind: openai, base_url: '{url}', timeout: 20}}}}
    budgets: {{daily_usd: 0.5}}
"""
CLERK = """\
agent:
  name: clerk
  version: 1
  model: {provider: fake, name: fake-model, max_tokens: 64}
  system_prompt: prompts/clerk.md
  budgets: {daily_usd: 50}
"""


class Shop(NamedTuple):
    root: Path
    url: str


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, FakeModelServer]]:
    """Three servers, each of which answers with its name."""
    with FakeModelServer() as here, FakeModelServer() as branch, FakeModelServer() as prod:
        servers = {"here": here, "branch": branch, "prod": prod}
        for name, server in servers.items():
            server.respond = lambda _, name=name: name  # type: ignore[misc]
        yield servers


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, models: dict[str, FakeModelServer]) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("placements")
    files = {
        ".gitignore": ".lockgate/\n",
        "lockgate.yaml": PROJECT.format(url=models["branch"].base_url),
        "environments/prod.yaml": PROD.format(url=models["prod"].base_url),
        "prices.yaml": "fake: {fake-model: {input: 1.0, output: 2.0}}\n",
        "agents/clerk.yaml": CLERK,
        "prompts/clerk.md": "You answer.\n",
    }
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    assert lockgate(root, "lock").returncode == 0
    who = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    for command in (("init", "--quiet", "--initial-branch=main"), ("add", "-A"), ("commit", "--quiet", "-m", "one")):
        subprocess.run(["git", *who, *command], cwd=root, check=True, capture_output=True, timeout=120)
    # What runs here reads this file; what is deployed in dev was read from the branch.
    (root / "lockgate.yaml").write_text(PROJECT.format(url=models["here"].base_url))
    applied = lockgate(root, "apply", "--env", "prod", "--json")
    assert applied.returncode == 0, applied.stderr
    up = Up(root)
    try:
        shop = Shop(root, up.url)
        for environment in ("prod", "dev"):
            wait_until(lambda environment=environment: run(shop, environment)[0] == 200, f"{environment} is served")
        yield shop
    finally:
        up.stop()


def run(shop: Shop, environment: str) -> tuple[int, Any]:
    made = lockgate(shop.root, "keys", "create", "--tenant", "acme", "--env", environment, "--json")
    key = json.loads(made.stdout)["key"]
    return ask(shop.url, "/api/v1/agents/clerk/runs", key, {"input": "hi"}, timeout=60)


def test_an_agents_own_provider_and_budget_hold_in_its_environment_alone(shop: Shop) -> None:
    status, result = run(shop, "prod")
    assert (status, result["output"], result["error"]) == (200, "prod", None)
    balances = json.loads(lockgate(shop.root, "budgets", "--agent", "clerk", "--json").stdout)
    caps = {one["account"]: one["cap_usd"] for one in balances if one["unit"] == "usd"}
    assert caps["agent:prod:clerk"] == 0.5


def test_a_provider_that_only_the_followed_branch_names_serves_what_it_deployed(shop: Shop) -> None:
    def synced() -> bool:
        told = json.loads(lockgate(shop.root, "gitops", "status", "--json").stdout)
        return [one["status"] for one in told["agents"] if one["environment"] == "dev"] == ["Synced"]

    wait_until(synced, "dev is not synced")
    status, result = run(shop, "dev")
    assert (status, result["output"], result["error"]) == (200, "branch", None)


def test_evaluations_and_local_runs_ask_the_agents_own_provider_too(shop: Shop) -> None:
    done = lockgate(shop.root, "run", "clerk", "hi", "--local", "--env", "prod", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output"] == "prod"


def test_an_address_in_the_file_is_followed_by_plain_calls_and_by_versions_from_a_deploy_on(shop: Shop) -> None:
    made = lockgate(shop.root, "keys", "create", "--tenant", "acme", "--env", "prod", "--json")
    key = json.loads(made.stdout)["key"]
    body = {"model": "fake/fake-model", "messages": [{"role": "user", "content": "hi"}]}

    def said() -> str:
        status, answer = ask(shop.url, "/v1/chat/completions", key, body, timeout=60)
        assert status == 200, answer
        return str(answer["choices"][0]["message"]["content"])

    assert said() == "here"
    file = shop.root / "lockgate.yaml"
    before = file.read_text()
    others = (shop.root / "environments/prod.yaml").read_text().partition("base_url: '")[2].partition("'")[0]
    here = before.partition("base_url: '")[2].partition("'")[0]
    file.write_text(before.replace(here, others))
    try:
        wait_until(lambda: said() == "prod", "the address is not followed")
    finally:
        file.write_text(before)
