"""Deploys, undos, mirrored traffic, heartbeats and replays through `lockgate up` with its real processes."""

from __future__ import annotations

import json
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.integration.gateway.test_up import LOCKGATE, Up, ask, lockgate, wait_until

from lockgate.testing import FakeModelServer, ModelRequest, Reply, call

pytestmark = pytest.mark.xdist_group("deploying")  # they share one running `up`

PROJECT = """\
project: shop
owner: us
prices: prices.yaml
providers: {{fake: {{kind: openai, base_url: '{url}', timeout: 20}}}}
environments:
  dev: {{}}
  staging: {{mirror: {{from: prod, share: 1.0}}}}
  prod: {{policy: {{require_gate: false, require_pinned_model: false}}}}
"""
CLERK = """\
agent:
  name: clerk
  version: {version}
  model: {{provider: fake, name: fake-model, max_tokens: 64}}
  system_prompt: prompts/clerk.{version}.md
  tools: [look, {{name: note, approval: none}}]
  budgets: {{max_seconds: 100}}
"""
SORTER = """\
agent:
  name: sorter
  version: 1
  model: {provider: fake, name: fake-model, max_tokens: 64}
  framework: {kind: python, entrypoint: "app.sorter:run"}
  system_prompt: prompts/clerk.1.md
  tools: [look]
"""
GRAPHER = SORTER.replace("sorter\n", "grapher\n").replace(
    'kind: python, entrypoint: "app.sorter:run"', 'kind: langgraph, entrypoint: "app.grapher:app"'
)
FILES = {
    "agents/grapher.yaml": GRAPHER,
    "app/grapher.py": """\
from openai import AsyncOpenAI

from lockgate.runtime import current_run


class Graph:
    async def ainvoke(self, state):
        run = current_run()
        found = await run.tool("look", {"order": "A-1"})
        async with AsyncOpenAI(base_url=run.base_url, api_key=run.api_key) as client:
            answer = await client.chat.completions.create(messages=state["messages"], model=run.model)
        said = answer.choices[0].message.content
        return {"messages": [], "structured_response": {"said": said, "found": found["state"]}}


app = Graph()
""",
    "prices.yaml": "fake: {fake-model: {input: 1.0, output: 2.0}}\n",
    "agents/sorter.yaml": SORTER,
    "app/sorter.py": """\
async def run(ctx, input):
    completion = await ctx.model([{"role": "user", "content": input}])
    found = await ctx.tool("look", {"order": "A-1"})
    return {"said": completion.message["content"], "found": found["state"]}
""",
    "tools/look.yaml": """\
tool:
  name: look
  effect: read
  timeout: 90
  python: tools/desk.py:look
  input: {type: object, properties: {order: {type: string}}, required: [order]}
""",
    "tools/note.yaml": """\
tool:
  name: note
  effect: write
  python: tools/desk.py:note
  input: {type: object, properties: {text: {type: string}}, required: [text]}
""",
    "tools/desk.py": """\
import time
from pathlib import Path


def look(order):
    while order.startswith("until ") and not Path(order.removeprefix("until ")).exists():
        time.sleep(0.02)
    return {"state": f"{order} is on its way"}


def note(text):
    with open("noted.txt", "a") as file:
        file.write(text + "\\n")
    return {"noted": True}
""",
}
VERSIONS = 5


def answer(request: ModelRequest) -> Any:
    """``until FILE`` answers when there is such a file; ``note …`` looks, then notes; the rest is answered at once."""
    said = request.last_user
    done = sum(1 for message in request.messages if message["role"] == "tool")
    if said.startswith("until ") and not done:
        return call("look", order=said)
    if said.startswith("note") and done < 2:
        return call("look", order="A-1") if done == 0 else call("note", text=said)
    return Reply(text="hello")


class Shop(NamedTuple):
    """The running project."""

    root: Path
    url: str
    key: str  # of prod
    digests: dict[int, str]  # of clerk, by file version
    up: Up


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    root = tmp_path_factory.mktemp("shop")
    with FakeModelServer() as model:
        model.respond = answer
        for name, text in FILES.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text)
        (root / "prompts").mkdir()
        for version in range(1, VERSIONS + 1):
            (root / f"agents/clerk.v{version}.yaml").write_text(CLERK.format(version=version))
            (root / f"prompts/clerk.{version}.md").write_text(f"You answer, version {version}.\n")
        (root / "lockgate.yaml").write_text(PROJECT.format(url=model.base_url))
        for command in (
            ("lock",),
            ("deploy", "clerk@1", "--env", "prod"),
            ("deploy", "clerk@2", "--env", "staging"),
            ("deploy", "sorter", "--env", "prod"),
            ("deploy", "sorter", "--env", "staging"),
            ("deploy", "grapher", "--env", "prod"),
        ):
            done = lockgate(root, *command)
            assert done.returncode == 0, done.stderr
        listed = json.loads(lockgate(root, "versions", "list", "--json").stdout)
        digests = {one["file_version"]: one["behaviour_digest"] for one in listed if one["agent"] == "clerk"}
        up = Up(root)
        try:
            shop = Shop(root, up.url, make_key(root, "prod", "admin"), digests, up)
            for agent in ("clerk", "sorter", "grapher"):
                wait_until(lambda agent=agent: run(shop, "hi", agent).status == 200, f"{agent} is served")
            yield shop
        finally:
            up.stop()


def make_key(root: Path, environment: str, role: str, *more: str) -> str:
    made = lockgate(root, "keys", "create", "--tenant", "acme", "--env", environment, "--role", role, *more, "--json")
    return str(json.loads(made.stdout)["key"])


class Ran(NamedTuple):
    """One answered run."""

    at: float
    status: int
    version: str
    result: dict[str, Any]


def run(shop: Shop, said: str, agent: str = "clerk") -> Ran:
    request = urllib.request.Request(
        f"{shop.url}/api/v1/agents/{agent}/runs",
        json.dumps({"input": said}).encode(),
        {"authorization": f"Bearer {shop.key}", "content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=100) as answered:
            result, status, headers = json.loads(answered.read()), answered.status, answered.headers
    except urllib.error.HTTPError as error:
        with error:
            result, status, headers = json.loads(error.read()), error.code, error.headers
    return Ran(time.monotonic(), status, headers.get("x-lockgate-version", "").partition("@")[2], result)


class Load:
    """Callers that ask all the time."""

    def __init__(self, shop: Shop) -> None:
        self.ran: list[Ran] = []
        self._shop = shop
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(2)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._stop.wait(0.02):
            self.ran.append(run(self._shop, "hi"))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def serves(self, digest: str) -> Callable[[], bool]:
        """Whether the newest answer came from ``digest``."""
        return lambda: bool(self.ran) and self.ran[-1].version == digest


def waiting(shop: Shop) -> int:
    """How many runs are under way that wait for a file."""
    found = json.loads(lockgate(shop.root, "runs", "list", "--env", "prod", "--status", "running", "--json").stdout)
    return sum(1 for one in found if str(one["input"]).startswith("until "))


def in_background(act: Callable[[], Ran]) -> tuple[threading.Thread, list[Ran]]:
    found: list[Ran] = []
    thread = threading.Thread(target=lambda: found.append(act()))
    thread.start()
    return thread, found


def test_runs_under_way_end_on_their_version_through_a_deploy_and_an_undo_and_no_request_fails(shop: Shop) -> None:
    load = Load(shop)
    try:
        wait_until(load.serves(shop.digests[1]), "version 1 serves")
        hosts = shop.up.pids("host clerk")
        old, of_old = in_background(lambda: run(shop, "until undone"))
        wait_until(lambda: waiting(shop) == 1, "a long run")
        assert lockgate(shop.root, "deploy", "clerk@3", "--env", "prod", "--direct").returncode == 0
        wait_until(load.serves(shop.digests[3]), "version 3 serves")
        assert old.is_alive()  # the long run goes on while another version serves
        new, of_new = in_background(lambda: run(shop, "until undone"))
        wait_until(lambda: waiting(shop) == 2, "another")
        undone = lockgate(shop.root, "rollout", "undo", "clerk", "--env", "prod", "--reason", "wrong answers")
        assert undone.returncode == 0, undone.stderr
        wait_until(load.serves(shop.digests[1]), "version 1 serves again")
        assert new.is_alive()
        (shop.root / "undone").touch()
        old.join()
        new.join()
    finally:
        (shop.root / "undone").touch()
        load.stop()
    assert [(one.version, one.result["status"]) for one in (*of_old, *of_new)] == [
        (shop.digests[1], "completed"),
        (shop.digests[3], "completed"),
    ]
    assert {(one.status, one.result.get("status")) for one in load.ran} == {(200, "completed")}
    assert set(hosts) <= set(shop.up.pids("host clerk"))  # nothing was restarted


def test_of_two_deploys_at_once_one_is_done_and_the_other_is_told(shop: Shop) -> None:
    wait_until(lambda: run(shop, "hi").version == shop.digests[1], "version 1 serves")
    both = [
        subprocess.Popen(
            [*LOCKGATE, "deploy", f"clerk@{version}", "--env", "prod"],
            cwd=shop.root,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for version in (4, 5)
    ]
    said = [one.communicate(timeout=120) for one in both]
    assert sorted(one.returncode for one in both) == [0, 1], said
    loser = next(said[at][1] for at, one in enumerate(both) if one.returncode)
    assert "has a rollout in 'prod' already" in loser
    assert "lockgate rollout status clerk" in loser
    assert lockgate(shop.root, "rollout", "abort", "clerk", "--env", "prod", "--reason", "a test").returncode == 0
    assert run(shop, "hi").version == shop.digests[1]


def test_staging_runs_what_prod_is_asked_as_shadows_that_change_nothing(shop: Shop) -> None:
    noted = shop.root / "noted.txt"
    noted.unlink(missing_ok=True)
    done = run(shop, "note one thing")
    assert done.result["status"] == "completed"
    runs = ("runs", "list", "--env", "staging", "--agent", "clerk", "--limit", "200", "--json")

    def shadow() -> Any:
        found = json.loads(lockgate(shop.root, *runs).stdout)
        return next((one for one in found if one["primary_run"] == done.result["run_id"] and one["ended_at"]), None)

    wait_until(shadow, "the shadow did not end")
    one = shadow()
    assert (one["arm"], one["status"], one["behaviour_digest"]) == ("shadow", "completed", shop.digests[2])
    assert one["rollout_id"] is None
    steps = json.loads(lockgate(shop.root, "runs", "show", one["id"], "--json").stdout)["steps"]
    tools = [(step["name"], step["status"], step["replayed"]) for step in steps if step["kind"] == "tool"]
    assert tools == [("look", "done", True), ("note", "stubbed", True)]
    assert noted.read_text() == "note one thing\n"  # once, by prod
    # It was asked of staging's own model, on staging's own budget.
    balances = json.loads(lockgate(shop.root, "budgets", "--json").stdout)
    spent = {each["account"]: each["settled_usd"] for each in balances if each["unit"] == "usd"}
    assert spent["agent:staging:clerk"] > 0
    assert one["cost_nano"] > 0
    wait_until(lambda: lockgate(shop.root, "trace", one["id"], "--json").returncode == 0, "its trace is written")

    def metrics() -> str:
        with urllib.request.urlopen(f"{shop.url}/metrics", timeout=60) as answered:
            return str(answered.read().decode())

    counted = 'lockgate_shadows_total{environment="staging",outcome="completed"}'
    wait_until(lambda: counted in metrics(), "a worker's figures are with all others a second later")


def test_what_cannot_be_shadowed_safely_is_not_mirrored(shop: Shop) -> None:
    done = run(shop, "hi", agent="sorter")
    assert done.result["output"] == {"said": "hello", "found": "A-1 is on its way"}
    found = json.loads(lockgate(shop.root, "runs", "list", "--env", "staging", "--agent", "sorter", "--json").stdout)
    assert found == []


def test_an_agent_that_others_run_reports_is_told_its_version_and_pulls_it(shop: Shop, tmp_path: Path) -> None:
    key = make_key(shop.root, "prod", "agent", "--agent", "clerk")
    beat = {"agent": "clerk", "instance": "pod-1", "version": "v9", "message": "warming up", "interval": 30}
    status, told = ask(shop.url, "/api/v1/heartbeats", key, beat)
    assert (status, told["up_to_date"], told["config_version"]) == (200, False, shop.digests[1])
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "lockgate.yaml").write_text("project: elsewhere\n")
    pulled = subprocess.run(
        [*LOCKGATE, "pull", told["pull"], "--username", "pod-1", "--output", "code", "--json"],
        cwd=elsewhere,
        input=key + "\n",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert pulled.returncode == 0, pulled.stderr
    assert json.loads(pulled.stdout)["digest"] == shop.digests[1]
    assert (elsewhere / "code/tools/desk.py").read_text() == FILES["tools/desk.py"]
    [listed] = json.loads(lockgate(elsewhere, "versions", "list", "--json").stdout)
    assert (listed["behaviour_digest"], listed["file_version"]) == (shop.digests[1], 1)
    status, told = ask(shop.url, "/api/v1/heartbeats", key, {**beat, "version": shop.digests[1]})
    assert (status, told["up_to_date"], told["lag_seconds"]) == (200, True, 0.0)

    def shown() -> dict[tuple[str, str], Any]:
        fleet = json.loads(lockgate(shop.root, "fleet", "list", "--env", "prod", "--json").stdout)
        return {(one["agent"], one["role"]): one for one in fleet}

    assert shown()["clerk", "reports"]["message"] == "warming up"
    stable = shown()["clerk", "stable"]
    assert stable["runs"] == stable["should_run"] == shop.digests[1]
    event = {"type": "agent.heartbeat", "statusMessage": "Processing task #42"}
    status, told = ask(shop.url, "/api/events/ingest", key, event)
    assert (status, told["config_version"]) == (200, shop.digests[1])


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v2/clerk/manifests/{1}", 200),
        ("/v2/clerk/manifests/v1", 200),
        ("/v2/clerk/manifests/{5}", 404),  # locked, and never deployed in prod
        ("/v2/sorter/manifests/{1}", 403),  # another agent's repository
        ("/v2/clerk/blobs/sha256:{secret}", 404),  # a blob that belongs to no version
        ("/v2/clerk/blobs/..%2F..%2F..%2Fsecret", 404),
        ("/v2/clerk/blobs/../../../../secret", 404),
        ("/v2/nobody/manifests/v1", 404),
    ],
)
def test_only_what_is_deployed_can_be_pulled_and_only_by_whom_it_concerns(shop: Shop, path: str, status: int) -> None:
    key = make_key(shop.root, "prod", "agent", "--agent", "clerk")
    planted = "0" * 64
    (shop.root / ".lockgate/blobs/sha256" / planted).write_bytes(b"a payload")
    path = path.replace("{1}", shop.digests[1]).replace("{5}", shop.digests[5]).replace("{secret}", planted)
    request = urllib.request.Request(shop.url + path, headers={"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as answered:
            got = answered.status
    except urllib.error.HTTPError as error:
        with error:
            got = error.code
    finally:
        (shop.root / ".lockgate/blobs/sha256" / planted).unlink()
    assert got == status


def test_without_the_role_nobody_reports_or_pulls(shop: Shop) -> None:
    caller = make_key(shop.root, "prod", "caller")
    beat = {"agent": "clerk", "instance": "pod-1"}
    assert ask(shop.url, "/api/v1/heartbeats", caller, beat)[0] == 403
    assert ask(shop.url, "/v2/", caller)[0] == 403
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{shop.url}/v2/", timeout=60)
    with refused.value as error:
        assert (error.code, error.headers["www-authenticate"]) == (401, 'Basic realm="lockgate"')
    other = make_key(shop.root, "prod", "agent", "--agent", "sorter")
    assert ask(shop.url, "/api/v1/heartbeats", other, beat)[0] == 403
    assert ask(shop.url, "/api/v1/heartbeats", shop.key, {"agent": "../x", "instance": ""})[0] == 400


@pytest.mark.parametrize("agent", ["clerk", "sorter", "grapher"])
def test_a_run_recorded_through_the_gateway_is_replayed_exactly_without_it(
    shop: Shop, agent: str, tmp_path: Path
) -> None:
    recorded = run(shop, "note another thing", agent=agent).result
    assert recorded["status"] == "completed"
    diary = shop.root / "noted.txt"  # what the live tools of these agents write into
    noted = diary.read_bytes() if diary.exists() else None
    again = lockgate(shop.root, "replay", recorded["run_id"], "--recorded", "--json")
    assert again.returncode == 0, again.stdout + again.stderr
    found = json.loads(again.stdout)
    assert (found["exact"], found["output"]) == (True, recorded["output"])
    assert found["replayed"] == (5 if agent == "clerk" else 2)
    assert (diary.read_bytes() if diary.exists() else None) == noted
