"""The control plane as a gateway sees it: over its socket, with keys, in one shape of error."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from lockgate.bootstrap import App
from lockgate.control import serve
from lockgate.errors import Conflict
from lockgate.project.service import load_project
from lockgate.runs import control_socket
from lockgate.testing import FakeClock

AGENT = """
agent:
  name: triage
  version: {version}
  model: {{provider: openai, name: gpt-4o-mini-2024-07-18}}
  system_prompt: prompts/triage.md
  rollout: {{phases: [{{weight: 50}}]}}
"""


class Api:
    """The control plane's API, called as an admin of ``dev`` unless told otherwise."""

    def __init__(self, app: App, session: aiohttp.ClientSession) -> None:
        self.app = app
        self._session = session
        self.key = app.keys.create(tenant="acme", environment="dev", roles=["admin"])[0]

    async def __call__(self, method: str, path: str, body: Any = None, *, key: str | None = None) -> tuple[int, Any]:
        headers = {"authorization": f"Bearer {self.key if key is None else key}"} if key != "" else {}
        async with self._session.request(method, f"http://control{path}", json=body, headers=headers) as answer:
            data = await answer.json(content_type=None)
            if answer.status >= 400:
                assert answer.content_type == "application/problem+json"
                assert data["status"] == answer.status
            return answer.status, data


@pytest.fixture
def app(tmp_path: Path) -> App:
    root = tmp_path / "shop"
    for folder in ("agents", "prompts"):
        (root / folder).mkdir(parents=True)
    (root / "lockgate.yaml").write_text("project: shop\n")
    (root / "prompts/triage.md").write_text("You sort mail.\n")
    for version in (1, 2):
        (root / f"agents/triage.v{version}.yaml").write_text(
            AGENT.format(version=version).replace("triage.md", f"triage.{version}.md")
        )
        (root / f"prompts/triage.{version}.md").write_text(f"You sort mail, {version}.\n")
    opened = App(load_project(root))
    opened.versions.lock()
    return opened


@pytest.fixture
async def api(app: App) -> AsyncIterator[Api]:
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(app, stop, ready))
    await asyncio.wait_for(ready.wait(), 60)
    connector = aiohttp.UnixConnector(str(control_socket(app.home)))
    async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:
        yield Api(app, session)
    stop.set()
    await asyncio.wait_for(serving, 60)
    assert not control_socket(app.home).exists()
    app.control.close()


async def test_it_answers_on_a_socket_of_its_owner_alone(api: Api) -> None:
    assert stat.S_IMODE(control_socket(api.app.home).stat().st_mode) == 0o600
    assert await api("GET", "/health", key="") == (200, {"status": "ok", "version": "0.1.0"})
    for _ in range(400):
        if (await api("GET", "/ready", key=""))[1]["leader"]:
            break
        await asyncio.sleep(0.05)  # its first tick takes the lead
    else:
        pytest.fail("nobody leads")


async def test_the_api_describes_itself(api: Api) -> None:
    status, described = await api("GET", "/api/openapi.json")
    assert status == 200
    expected = ("agents", "agents/{agent}/deploy", "rollouts", "rollouts/{rollout}", "runs", "approvals", "alerts")
    assert {f"/api/v1/{path}" for path in expected} <= set(described["paths"])


@pytest.mark.parametrize(
    ("roles", "key", "status", "code"),
    [
        (None, "", 401, "unauthenticated"),
        (None, "lgk_wrong", 401, "unauthenticated"),
        ([], None, 403, "refused"),
        (["admin"], None, 200, None),
    ],
)
async def test_only_admins_may_ask(api: Api, roles: Any, key: str | None, status: int, code: str | None) -> None:
    if roles is not None:
        key = api.app.keys.create(tenant="acme", environment="dev", roles=roles)[0]
    answered, body = await api("GET", "/api/v1/agents", key=key)
    assert answered == status
    if code:
        assert body["code"] == code


async def test_deploying_and_steering_over_http(api: Api) -> None:
    status, done = await api("POST", "/api/v1/agents/triage/deploy", {"version": "1"})
    assert (status, done["outcome"]) == (200, "stable")
    status, done = await api("POST", "/api/v1/agents/triage/deploy", {"version": "2"})
    assert (status, done["outcome"]) == (200, "rollout")
    rollout = done["rollout"]["id"]
    _, shown = await api("GET", f"/api/v1/rollouts/{rollout}")
    assert shown["decision"]["verdict"] == "inconclusive"
    assert "no host serves the candidate yet" in shown["decision"]["reasons"]
    status, problem = await api("POST", f"/api/v1/rollouts/{rollout}/promote", {"reason": "now"})
    assert (status, problem["code"]) == (403, "refused")
    status, done = await api("POST", f"/api/v1/rollouts/{rollout}/abort", {"reason": "no"})
    assert (status, done["status"]) == (200, "aborted")
    status, problem = await api("POST", f"/api/v1/rollouts/{rollout}/abort", {"reason": "no"})
    assert (status, problem["code"]) == (409, "conflict")
    _, listed = await api("GET", "/api/v1/rollouts?agent=triage")
    assert [one["id"] for one in listed] == [rollout]
    _, agents = await api("GET", "/api/v1/agents")
    assert [(one["agent"], one["environment"]) for one in agents] == [("triage", "dev")]


async def test_a_key_sees_its_own_environment_only(api: Api) -> None:
    await api("POST", "/api/v1/agents/triage/deploy", {"version": "1"})
    _, done = await api("POST", "/api/v1/agents/triage/deploy", {"version": "2"})
    other = api.app.keys.create(tenant="acme", environment="staging", roles=["admin"])[0]
    assert await api("GET", "/api/v1/agents", key=other) == (200, [])
    status, _ = await api("GET", f"/api/v1/rollouts/{done['rollout']['id']}", key=other)
    assert status == 403


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "said"),
    [
        ("GET", "/api/v1/rollouts/nobody", None, 404, "no rollout of 'nobody'"),
        ("GET", "/api/v1/runs/run_x", None, 404, "run_x"),
        ("GET", "/api/v1/nothing", None, 404, "Not Found"),
        ("DELETE", "/api/v1/agents", None, 405, "Method Not Allowed"),
        ("GET", "/api/v1/runs?limit=0", None, 400, "query.limit"),
        ("POST", "/api/v1/agents/triage/undo", {}, 400, "body.reason"),
        ("POST", "/api/v1/agents/triage/deploy", {"version": "9"}, 404, "9"),
        ("POST", "/api/v1/agents/triage/undo", {"reason": "x" * 300_000}, 413, "3000"),
    ],
)
async def test_errors_are_problem_details_that_name_what_is_wrong(
    api: Api, method: str, path: str, body: Any, status: int, said: str
) -> None:
    answered, problem = await api(method, path, body)
    assert answered == status
    assert said in problem["detail"]


async def test_runs_approvals_and_alerts_are_listed(api: Api) -> None:
    api.app.alerts.raise_alert("k", "drift", "warning", "agent:dev:triage", "70 %")  # a kind no tick closes
    assert await api("GET", "/api/v1/runs") == (200, [])
    assert await api("GET", "/api/v1/approvals") == (200, [])
    _, (alert,) = await api("GET", "/api/v1/alerts")
    status, closed = await api("POST", f"/api/v1/alerts/{alert['id']}/resolve")
    assert (status, closed["key"]) == (200, "k")
    assert await api("GET", "/api/v1/alerts") == (200, [])


async def test_settings_are_changed_over_http_in_the_keys_environment_alone(api: Api) -> None:
    put = {"value": True, "agent": "triage", "reason": "pays twice"}
    status, one = await api("PUT", "/api/v1/settings/kill", put)
    assert (status, one["scope"]["environment"], one["actor"][:4]) == (200, "dev", "key_")
    assert [each["name"] for each in (await api("GET", "/api/v1/settings"))[1]] == ["kill"]
    prod = api.app.keys.create(tenant="acme", environment="prod", roles=["admin"])[0]
    assert (await api("GET", "/api/v1/settings", key=prod))[1] == []
    assert (await api("GET", "/api/v1/settings/history", key=prod))[1] == []
    assert (await api("DELETE", "/api/v1/settings/kill?agent=triage", key=prod))[0] == 404
    assert (await api("DELETE", "/api/v1/settings/kill?agent=triage&reason=mended"))[0] == 200
    assert [each["reason"] for each in (await api("GET", "/api/v1/settings/history"))[1]] == ["mended", "pays twice"]
    assert (await api("PUT", "/api/v1/settings/alert.mute", {"value": ["budget"]}))[0] == 400  # holds in all of them
    status, problem = await api("PUT", "/api/v1/settings/model", {"value": 1})
    assert (status, "only through a new digest" in problem["detail"]) == (403, True)
    assert "kill" in [each["name"] for each in (await api("GET", "/api/v1/settings/catalogue"))[1]]


async def test_a_webhook_wakes_for_a_good_signature_alone(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK", "s3cret")
    (app.project.root / "lockgate.yaml").write_text(
        "project: shop\ngitops: {repository: nowhere, poll: 3600, webhook_secret: '${env:HOOK}'}\n"
    )
    app.control.close()
    followed = App(load_project(app.project.root))
    body = b'{"ref": "refs/heads/main"}'
    good = "sha256=" + hmac.new(b"s3cret", body, hashlib.sha256).hexdigest()
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(followed, stop, ready))
    await asyncio.wait_for(ready.wait(), 60)
    connector = aiohttp.UnixConnector(str(control_socket(followed.home)))
    try:
        async with aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=30)) as session:

            async def push(signature: str | None, sent: bytes = body) -> int:
                headers = {} if signature is None else {"x-hub-signature-256": signature}
                async with session.post("http://control/api/v1/gitops/webhook", data=sent, headers=headers) as answer:
                    return answer.status

            before = followed.gitops.source().woken_at
            assert [await push(None), await push("sha256=00"), await push(good, body + b" ")] == [401, 401, 401]
            assert followed.gitops.source().woken_at == before
            assert await push(good) == 202
            assert followed.gitops.source().woken_at > before
    finally:
        stop.set()
        await asyncio.wait_for(serving, 60)
        followed.control.close()


async def test_a_second_control_plane_does_not_take_the_socket(api: Api) -> None:
    with pytest.raises(Conflict, match="listens on"):
        await serve(App(api.app.project, FakeClock()))


async def test_a_leftover_socket_is_taken_over(app: App) -> None:
    import socket

    path = control_socket(app.home)
    path.parent.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    stop, ready = asyncio.Event(), asyncio.Event()
    serving = asyncio.create_task(serve(app, stop, ready))
    await asyncio.wait_for(ready.wait(), 60)
    stop.set()
    await asyncio.wait_for(serving, 60)
    app.control.close()


async def test_a_body_as_curl_sends_it_is_read_as_the_json_it_is(api: Api) -> None:
    headers = {"authorization": f"Bearer {api.key}", "content-type": "application/x-www-form-urlencoded"}
    body = b'{"value": 2, "agent": "triage", "reason": "campaign"}'
    url = "http://control/api/v1/settings/limit.daily_usd"
    async with api._session.put(url, data=body, headers=headers) as answer:
        told = await answer.json()
    assert (answer.status, told["value"], told["reason"]) == (200, 2, "campaign")
