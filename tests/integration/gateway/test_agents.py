"""Running agents through the gateway: routes, arms, hosts that are away, approvals, shadows, and callers that leave."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import openai
import pytest
from anthropic import Anthropic
from openai import OpenAI
from sqlalchemy import insert, update

from lockgate.gateway.model import RunClaims
from lockgate.gateway.tokens import sign, verify
from lockgate.project.limits import LimitSpec
from lockgate.results import RunResult, ToolUse, Usage
from lockgate.runs import host_socket
from lockgate.storage.schema import hosts as hosts_table
from lockgate.storage.schema import runs as runs_table
from lockgate.versions.model import ActionLimits

if TYPE_CHECKING:
    from conftest import FakeHost, RunningGateway

    Hosts = Callable[[str], FakeHost]

MESSAGES: Any = [{"role": "user", "content": "hi"}]
STABLE, CANDIDATE = "b", "d"
CANARY = {
    "candidate_behaviour": "sha256:" + "c" * 64,
    "candidate_effective": "sha256:" + "d" * 64,
    "rollout_id": "ro_1",
}


@pytest.fixture
def caller(gateway: RunningGateway) -> Iterator[OpenAI]:
    with OpenAI(base_url=gateway.url + "/v1", api_key=gateway.key(), max_retries=0, timeout=60) as client:
        yield client


def ask(caller: OpenAI, **options: Any) -> Any:
    """A run over chat completions: the parsed answer and the headers."""
    raw = caller.chat.completions.with_raw_response.create(model="agent:triage", messages=MESSAGES, **options)
    return raw.parse(), raw.headers


def run(gateway: RunningGateway, body: Any, *, key: str | None = None, agent: str = "triage") -> Any:
    """``(status, body)`` of a run over the API."""
    request = urllib.request.Request(
        f"{gateway.url}/api/v1/agents/{agent}/runs",
        body if isinstance(body, bytes) else json.dumps(body).encode(),
        {"content-type": "application/json", "authorization": f"Bearer {key or gateway.key()}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def wait_until(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def lease() -> dict[str, Any]:
    return {**CANARY, "lease_until": time.time() + 3600}


def test_a_runs_calls_count_for_what_its_caller_said_and_for_the_callers_key(
    gateway: RunningGateway, hosts: Hosts
) -> None:
    gateway.route()
    host = hosts(STABLE)
    key, secret = gateway.app.keys.create(tenant="acme", environment="dev", limits={"daily_usd": 0.003})[::-1]
    said = {
        "x-lockgate-session": "s1",
        "x-lockgate-task": "sort",
        "x-lockgate-labels": "beta",
        "x-lockgate-tags": "legal",
    }
    assert gateway.ask(secret, model="agent:triage", headers=said)[0] == 200
    token = host.requests[0].token
    origin = verify(token, gateway.app.secret, now=gateway.app.clock()).origin
    assert (origin.session, origin.task, origin.labels, origin.tags) == ("s1", "sort", ("beta",), ("legal",))
    spec = {"usd": 1.0}
    config = gateway.app.project.config
    limits = LimitSpec.model_validate({"sessions": {"*": spec}, "tasks": {"*": spec}, "labels": {"*": spec}})
    gateway.app.project.config = config.model_copy(update={"limits": limits})
    escape = {"x-lockgate-session": "other", "x-lockgate-task": "other", "x-lockgate-labels": "more"}
    assert gateway.ask(token, max_tokens=10, headers=escape)[0] == 200
    paid = {one.account for one in gateway.balances() if one.unit == "usd" and one.settled and one.cap is not None}
    assert paid == {
        f"key:dev:{key.id}", "label:dev:beta", "label:dev:more", "session:dev:acme/s1", "task:dev:sort"
    }  # fmt: skip
    status, _, body = gateway.ask(token, max_tokens=1500)  # more than its key has left
    assert (status, json.loads(body)["error"]["limit"]) == (429, f"key:dev:{key.id}")
    assert gateway.spans()
    assert all(line.agrees for line in gateway.app.accounting.reconcile())


@pytest.mark.parametrize(("kind", "wait"), [("rate_limited", 14.2), ("budget_exceeded", 5000.0)])
def test_a_run_that_a_limit_stopped_says_when_another_may_pass(
    gateway: RunningGateway, hosts: Hosts, kind: str, wait: float
) -> None:
    gateway.route()
    hosts(STABLE).respond = lambda _: RunResult(status="failed", error_type=kind, error="no", retry_after=wait)
    status, headers, _ = gateway.ask(gateway.key(), model="agent:triage")
    assert (status, headers["retry-after"]) == (429, "15" if wait == 14.2 else "5000")


# --- the run itself -------------------------------------------------------------------------------------------


def test_a_run_over_chat_completions_is_a_completion(gateway: RunningGateway, hosts: Hosts, caller: OpenAI) -> None:
    gateway.route()
    host = hosts(STABLE)
    host.respond = lambda _: RunResult(
        status="completed",
        output={"decision": "approve"},
        usage=Usage(input_tokens=30, output_tokens=12),
        cost_nano=1_500_000,
    )
    completion, headers = ask(caller)
    assert json.loads(completion.choices[0].message.content) == {"decision": "approve"}
    assert (completion.usage.prompt_tokens, completion.usage.completion_tokens) == (30, 12)
    assert completion.id == headers["x-lockgate-run-id"] == host.requests[0].run_id
    assert headers["x-lockgate-cost-usd"] == "0.001500000"
    assert host.requests[0].input == {"messages": MESSAGES}


def test_a_client_that_only_streams_gets_a_stream(gateway: RunningGateway, hosts: Hosts, caller: OpenAI) -> None:
    gateway.route()
    hosts(STABLE)
    chunks = list(
        caller.chat.completions.create(
            model="agent:triage", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == "done"
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices] == [None, "stop"]
    assert chunks[-1].usage is not None


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_answers_anthropics_client(gateway: RunningGateway, hosts: Hosts, stream: bool) -> None:
    gateway.route()
    host = hosts(STABLE)
    host.respond = lambda _: RunResult(
        status="completed", output="done", usage=Usage(input_tokens=30, output_tokens=12)
    )
    said: Any = [{"role": "user", "content": [{"type": "text", "text": "hi"}]}]
    asked: Any = {"model": "agent:triage", "max_tokens": 9, "messages": said, "metadata": {"user_id": "u1"}}
    with Anthropic(base_url=gateway.url, api_key=gateway.key(), max_retries=0, timeout=60) as client:
        if stream:
            with client.messages.stream(**asked) as running:
                message = running.get_final_message()
        else:
            message = client.messages.create(**asked)
    assert [part.text for part in message.content if part.type == "text"] == ["done"]
    assert (message.stop_reason, message.usage.input_tokens, message.usage.output_tokens) == ("end_turn", 30, 12)
    assert (host.requests[0].input, host.requests[0].assignment_key) == ({"messages": MESSAGES}, "u1")


@pytest.mark.parametrize("stream", [False, True])
def test_an_agent_answers_the_responses_api(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI, stream: bool
) -> None:
    gateway.route()
    host = hosts(STABLE)
    host.respond = lambda _: RunResult(
        status="completed", output="done", usage=Usage(input_tokens=30, output_tokens=12)
    )
    item: Any = {"role": "user", "content": [{"type": "input_text", "text": "hi"}]}
    if stream:
        with caller.responses.stream(model="agent:triage", input="hi") as running:
            response: Any = running.get_final_response()
    else:
        response = caller.responses.create(model="agent:triage", input=[item])
    assert (response.output_text, response.usage.total_tokens) == ("done", 42)
    [message] = host.requests[0].input["messages"]
    assert message["content"] == ("hi" if stream else [{"type": "text", "text": "hi"}])


def test_what_an_agent_cannot_be_asked_is_refused_in_words(gateway: RunningGateway, caller: OpenAI) -> None:
    gateway.route()
    with pytest.raises(openai.BadRequestError, match="agents are not served at /v1/embeddings"):
        caller.embeddings.create(model="agent:triage", input="hi")
    with pytest.raises(openai.BadRequestError, match="previous_response_id"):
        caller.responses.create(model="agent:triage", input="hi", previous_response_id="resp_1")
    output: Any = [{"type": "function_call_output", "call_id": "c", "output": "x"}]
    with pytest.raises(openai.BadRequestError, match="its tools are its own"):
        caller.responses.create(model="agent:triage", input=output)


def test_a_run_over_the_api_is_the_whole_result(gateway: RunningGateway, hosts: Hosts) -> None:
    gateway.route()
    host = hosts(STABLE)
    host.respond = lambda _: RunResult(
        status="completed", output="ok", tools_used=[ToolUse(name="read_orders", arguments={"order_id": "A-1"})]
    )
    status, result = run(gateway, {"input": "where is A-1?", "session": "s-9"})
    assert (status, result["status"], result["output"]) == (200, "completed", "ok")
    assert result["tools_used"][0]["name"] == "read_orders"
    assert (host.requests[0].input, host.requests[0].assignment_key) == ("where is A-1?", "s-9")


def test_the_host_is_told_who_and_gets_a_token_that_says_no_more_than_the_limits(
    gateway: RunningGateway, hosts: Hosts
) -> None:
    gateway.route()
    host = hosts(STABLE)
    run(gateway, {"input": "x"}, key=gateway.key(tenant="globex"))
    asked = host.requests[0]
    claims = verify(asked.token, gateway.app.secret, now=time.time())
    assert (claims.run_id, claims.tenant, claims.effective_digest) == (asked.run_id, "globex", "sha256:" + "b" * 64)
    assert (claims.max_llm_calls, claims.max_tokens, claims.depth) == (10, 50_000, 0)
    assert claims.trace_id == asked.trace_id


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"extra_headers": {"x-lockgate-session": "s-1"}, "user": "u-1"}, "s-1"),
        ({"user": "u-1"}, "u-1"),
        ({}, None),
    ],
)
def test_the_assignment_key_is_the_session_else_the_user_else_the_run(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI, options: dict[str, Any], expected: str | None
) -> None:
    gateway.route()
    host = hosts(STABLE)
    ask(caller, **options)
    assert host.requests[0].assignment_key == (expected or host.requests[0].run_id)


def test_the_gateways_span_is_above_the_runs(gateway: RunningGateway, hosts: Hosts, caller: OpenAI) -> None:
    gateway.route()
    host = hosts(STABLE)
    ask(caller, extra_headers={"traceparent": f"00-{'ab' * 16}-{'12' * 8}-01"})
    (span,) = gateway.spans()
    assert (span.trace_id.hex(), span.parent_id.hex()) == ("ab" * 16, "12" * 8)
    assert (host.requests[0].trace_id, host.requests[0].parent_span) == ("ab" * 16, span.span_id.hex())
    assert (span.run_id, span.input_tokens, span.cost_nano) == (host.requests[0].run_id, 0, 0)


# --- what is refused ------------------------------------------------------------------------------------------


def test_an_agent_that_is_not_deployed_is_not_found(gateway: RunningGateway, caller: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no agent 'triage' is deployed in 'dev'"):
        ask(caller)
    assert run(gateway, {"input": "x"})[0] == 404


def test_a_key_for_other_agents_is_refused(gateway: RunningGateway, hosts: Hosts) -> None:
    gateway.route()
    host = hosts(STABLE)
    status, problem = run(gateway, {"input": "x"}, key=gateway.key(agents=["other"]))
    assert (status, problem["code"]) == (403, "refused")
    assert host.requests == []


@pytest.mark.parametrize("body", [b"{", {"inptu": "x"}, {}, {"input": "x", "session": 5}])
def test_a_wrong_body_is_refused(gateway: RunningGateway, body: Any) -> None:
    gateway.route()
    status, problem = run(gateway, body)
    assert (status, problem["status"], problem["code"]) == (400, 400, "invalid_request")


def test_a_session_too_long_to_store_is_refused(gateway: RunningGateway) -> None:
    gateway.route()
    status, problem = run(gateway, {"input": "x", "session": "s" * 257})
    assert (status, problem["detail"]) == (400, "the session has 257 characters (use at most 256)")


def test_a_failed_run_is_a_result_over_the_api_and_an_error_over_chat_completions(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route()
    hosts(STABLE).respond = lambda _: RunResult(status="failed", error_type="output_invalid", error="not the schema")
    assert run(gateway, {"input": "x"})[1]["error_type"] == "output_invalid"
    with pytest.raises(openai.UnprocessableEntityError, match="not the schema") as raised:
        ask(caller)
    body: Any = raised.value.body
    assert body["error_type"] == "output_invalid"
    assert body["run_id"].startswith("run_")


def test_a_run_that_a_limit_stopped_is_429_and_not_worth_a_retry(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route()
    told = "it is too dear\n  → raise it"
    hosts(STABLE).respond = lambda _: RunResult(status="failed", error_type="cost_exceeded", error=told)
    with pytest.raises(openai.RateLimitError, match=r"too dear \(raise it\)") as raised:
        ask(caller)
    assert isinstance(raised.value.body, dict)
    assert raised.value.body["reason"] == "cost_exceeded"
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_run_that_waits_for_an_approval_is_told_with_its_id(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route()
    hosts(STABLE).respond = lambda _: RunResult(status="suspended", approval_id="apr_7")
    status, result = run(gateway, {"input": "x"})
    assert (status, result["status"], result["approval_id"]) == (202, "suspended", "apr_7")
    with pytest.raises(openai.ConflictError) as raised:
        ask(caller)
    body: Any = raised.value.body
    assert (body["type"], body["approval_id"]) == ("approval_pending", "apr_7")
    assert body["run_id"].startswith("run_")
    assert raised.value.response.headers["x-should-retry"] == "false"


def test_a_run_that_starts_runs_too_deep_is_stopped(gateway: RunningGateway, hosts: Hosts) -> None:
    gateway.route()
    host = hosts(STABLE)
    claims = RunClaims(
        run_id="run_1", agent="other", environment="dev", tenant="acme", behaviour_digest="a", effective_digest="b",
        arm="stable", trace_id="ab" * 16, depth=1, expires_at=time.time() + 3600, max_usd_nano=None, max_llm_calls=1,
        max_tokens=1,
    )  # fmt: skip
    assert run(gateway, {"input": "x"}, key=sign(claims, gateway.app.secret))[0] == 200
    assert (host.requests[0].depth, host.requests[0].trace_id) == (2, "ab" * 16)
    deeper = RunClaims(**{name: getattr(claims, name) for name in claims.__struct_fields__} | {"depth": 2})
    status, problem = run(gateway, {"input": "x"}, key=sign(deeper, gateway.app.secret))
    assert (status, problem["limit"], problem["reason"]) == (429, "max_depth", "depth_exceeded")


# --- arms -----------------------------------------------------------------------------------------------------


def test_at_full_weight_the_candidate_serves_and_a_session_keeps_its_arm(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route(**lease(), weight=50.0)
    stable, candidate = hosts(STABLE), hosts(CANDIDATE)
    arms = {}
    for _ in range(2):
        for number in range(20):
            _, headers = ask(caller, user=f"user-{number}")
            assert arms.setdefault(number, headers["x-lockgate-arm"]) == headers["x-lockgate-arm"]
    assert set(arms.values()) == {"stable", "candidate"}
    assert {asked.arm for asked in candidate.requests} == {"candidate"}
    assert {asked.arm for asked in stable.requests} == {"stable"}
    assert {asked.rollout_id for asked in (*stable.requests, *candidate.requests)} == {"ro_1"}


def test_a_lapsed_lease_serves_the_stable_version_only(gateway: RunningGateway, hosts: Hosts, caller: OpenAI) -> None:
    gateway.route(**CANARY, lease_until=time.time() - 1, weight=100.0, mirror=100.0)
    stable, candidate = hosts(STABLE), hosts(CANDIDATE)
    for number in range(5):
        ask(caller, user=f"user-{number}")
    assert len(stable.requests) == 5
    assert candidate.requests == []
    assert stable.requests[0].rollout_id is None


@pytest.mark.parametrize("answer", [None, 503])
def test_a_candidates_host_that_does_not_take_the_run_leaves_it_to_the_stable_one(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI, answer: int | None
) -> None:
    gateway.route(**lease(), weight=100.0)
    stable = hosts(STABLE)
    if answer is not None:
        hosts(CANDIDATE).respond = lambda _: answer
    _, headers = ask(caller)
    assert headers["x-lockgate-arm"] == "stable"
    assert [asked.arm for asked in stable.requests] == ["stable"]


def test_a_candidates_host_that_dies_while_it_runs_is_not_run_again_elsewhere(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route(**lease(), weight=100.0)
    stable = hosts(STABLE)
    hosts(CANDIDATE).respond = lambda _: "die"
    with pytest.raises(openai.InternalServerError, match="went away while it ran"):
        ask(caller)
    assert stable.requests == []


def test_a_stable_host_that_is_just_starting_is_waited_for(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route()
    import threading

    starting = threading.Timer(0.4, lambda: hosts(STABLE))
    starting.start()
    assert ask(caller)[0].choices[0].message.content == "done"
    starting.join()


def test_no_host_at_all_is_unavailable(gateway: RunningGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lockgate.gateway.agents.HOST_WAIT", 0.1)
    gateway.route()
    status, problem = run(gateway, {"input": "x"})
    assert (status, problem["code"]) == (503, "unavailable")
    assert "no host serves 'triage'" in problem["detail"]


def test_when_no_arm_can_be_written_down_the_stable_version_serves(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route(**lease(), weight=100.0)
    stable = hosts(STABLE)
    hosts(CANDIDATE)
    with gateway.app.control.write() as connection:
        connection.exec_driver_sql("drop table assignments")
    assert ask(caller)[1]["x-lockgate-arm"] == "stable"
    assert len(stable.requests) == 1


# --- shadows --------------------------------------------------------------------------------------------------


def test_a_mirrored_run_is_shadowed_by_the_candidate_after_it_ended(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI
) -> None:
    gateway.route(**lease(), mirror=100.0)
    stable, candidate = hosts(STABLE), hosts(CANDIDATE)
    ask(caller, user="u-1")
    wait_until(lambda: candidate.requests, "no shadow came")
    primary, shadow = stable.requests[0], candidate.requests[0]
    assert (shadow.mode, shadow.arm, shadow.primary_run) == ("shadow", "shadow", primary.run_id)
    assert (shadow.input, shadow.assignment_key) == (primary.input, "u-1")
    assert shadow.run_id != primary.run_id
    assert shadow.trace_id != primary.trace_id
    claims = verify(shadow.token, gateway.app.secret, now=time.time())
    assert (claims.run_id, claims.arm) == (shadow.run_id, "shadow")


def test_without_mirroring_nothing_is_shadowed(gateway: RunningGateway, hosts: Hosts, caller: OpenAI) -> None:
    gateway.route(**lease(), mirror=0.0)
    hosts(STABLE)
    candidate = hosts(CANDIDATE)
    ask(caller)
    gateway.rest()
    assert gateway.worker is not None
    assert gateway.worker._agents._shadows._workers == []  # the first shadow starts them
    assert candidate.requests == []


def test_a_slow_candidate_slows_no_live_run_and_fills_no_memory(
    gateway: RunningGateway, hosts: Hosts, caller: OpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert gateway.worker is not None
    agents = gateway.worker._agents
    monkeypatch.setattr(agents._shadows._waiting, "_maxsize", 3)
    gateway.route(**lease(), mirror=100.0)
    hosts(STABLE)
    hosts(CANDIDATE).respond = lambda _: "hang"
    for _ in range(10):
        ask(caller)
    gateway.rest()
    assert agents._shadows._waiting.qsize() == 3
    assert agents.shadows_dropped == 10 - 3 - 2


# --- callers that leave ---------------------------------------------------------------------------------------


def test_a_caller_that_leaves_cancels_the_run(gateway: RunningGateway, hosts: Hosts) -> None:
    gateway.route()
    host = hosts(STABLE)
    host.respond = lambda _: "hang"
    body = json.dumps({"input": "x"}).encode()
    connection = socket.create_connection(("127.0.0.1", gateway.listener_port), timeout=60)
    with contextlib.closing(connection):
        connection.sendall(
            b"POST /api/v1/agents/triage/runs HTTP/1.1\r\nhost: x\r\nauthorization: Bearer %s\r\n"
            b"content-length: %d\r\n\r\n%s" % (gateway.key().encode(), len(body), body)
        )
        wait_until(lambda: host.requests, "the run did not start")
    wait_until(lambda: host.cancelled == 1, "the run was not cancelled")


def test_a_host_that_never_answers_is_given_up(
    gateway: RunningGateway, hosts: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.agents.GRACE", 0.0)
    gateway.limits = ActionLimits(max_seconds=2.0)
    gateway.route()
    hosts(STABLE).respond = lambda _: "hang"
    status, problem = run(gateway, {"input": "x"})
    assert (status, problem["sent"]) == (502, True)


# --- a stop ---------------------------------------------------------------------------------------------------


def test_a_stop_serves_the_calls_of_a_run_that_went_on_after_an_approval_until_it_ends(gateway: RunningGateway) -> None:
    address = str(host_socket(gateway.app.home, "sha256:" + STABLE * 64))
    run_1 = {
        "id": "run_1", "agent": "triage", "environment": "dev", "behaviour_digest": "b", "effective_digest": "b",
        "arm": "stable", "assignment_key": "k", "tenant": "acme", "input": "x", "trace_id": "1" * 32, "attempt": 2,
        "status": "running", "host": "host_1", "started_at": time.time(),
    }  # fmt: skip
    with gateway.app.control.write() as connection:
        connection.execute(
            insert(hosts_table).values(
                id="host_1", effective_digest="b", pid=os.getpid(), address=address, ready_at=0.0, heartbeat_at=0.0
            )
        )
        connection.execute(insert(runs_table).values(**run_1))
    worker = gateway.worker
    assert worker is not None
    stop = threading.Thread(target=lambda: asyncio.run(worker.end_runs(60)))
    stop.start()
    key = gateway.key()
    wait_until(lambda: gateway.ask(key)[0] == 503, "new calls are served")
    assert gateway.ask(gateway.run_token())[0] == 200
    assert stop.is_alive()
    with gateway.app.control.write() as connection:
        connection.execute(update(runs_table).values(status="completed"))
    stop.join(30)
    assert not stop.is_alive()


def test_a_worker_that_stops_with_no_runs_under_way_serves_calls_that_were_on_their_way_but_begins_no_run(
    gateway: RunningGateway,
) -> None:
    gateway.route()
    worker = gateway.worker
    assert worker is not None
    asyncio.run(worker.end_runs(60))
    assert gateway.ask(gateway.key())[0] == 200
    status, problem = run(gateway, {"input": "x"})
    assert (status, problem["title"]) == (503, "Unavailable")
