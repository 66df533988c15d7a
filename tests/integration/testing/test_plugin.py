"""The pytest plugin, in a user's project."""

from __future__ import annotations

import json
import subprocess
import sys

import alembic.command  # what runs inside would import these anew for each test
import alembic.runtime.migration  # noqa: F401
import pytest

import lockgate.bootstrap
import lockgate.runtime.direct
import lockgate.runtime.local
import lockgate.storage.migrations.run
import lockgate.subjects
import lockgate.versions.service
import lockgate.versions.store  # noqa: F401
from lockgate.testing import FakeModelServer

pytest_plugins = ["pytester"]

AGENT = """
agent:
  name: greeter
  version: 1
  owner: team
  model: {provider: house, name: model-1, temperature: 0}
  system_prompt: prompts/greeter.md
  tools: [look_up, remember]
"""

TOOLS = """
def look_up(name):
    return {"title": "Dr", "name": name}

def remember(name):
    raise AssertionError("a write is never carried out in a test")
"""


@pytest.fixture
def project(pytester: pytest.Pytester) -> pytest.Pytester:
    root = pytester.path
    files = {
        "lockgate.yaml": "project: demo\nproviders:\n  house: {kind: openai, base_url: http://127.0.0.1:9/v1}\n"
        "prices: prices.yaml\n",
        "prices.yaml": "house:\n  model-1: {input: 1, output: 2}\n",
        "agents/greeter.v1.yaml": AGENT,
        "prompts/greeter.md": "You greet people.\n",
        "tools/look_up.yaml": "tool: {name: look_up, effect: read, python: tools/names.py:look_up, "
        "input: {type: object, properties: {name: {type: string}}}}\n",
        "tools/remember.yaml": "tool: {name: remember, effect: write, python: tools/names.py:remember, "
        "input: {type: object, properties: {name: {type: string}}}}\n",
        "tools/names.py": TOOLS,
        "pytest.ini": "[pytest]\naddopts = -p no:cacheprovider -p no:asyncio --assert=plain\n",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return pytester


def write_test(project: pytest.Pytester, body: str) -> None:
    path = project.path / "tests" / "test_greeter.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text("import pytest\nfrom lockgate.testing import call\n" + body)


def test_a_result_has_what_a_test_asks_for(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
def test_workflow(lockgate_agent, mock_llm):
    agent = lockgate_agent("agents/greeter.v1.yaml")
    with mock_llm(responses=[[call("look_up", name="Ada"), call("remember", name="Ada")], "Hello Dr Ada"]) as llm:
        result = agent.run("greet Ada")
    assert result.status == "completed"
    assert result.deliverable == result.output == "Hello Dr Ada"
    assert [use.name for use in result.tools_used] == ["look_up", "remember"]
    assert result.tools_used[0].result == {"title": "Dr", "name": "Ada"}
    assert result.usage.input_tokens > 0
    assert result.cost_usd == (result.usage.input_tokens + 2 * result.usage.output_tokens) / 1e6
    assert len(result.trace_id) == 32
    assert llm.requests[0].last_user == "greet Ada"
""",
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)
    assert not (project.path / ".lockgate").exists()  # the project's own state is left alone
    assert not (project.path / "lockgate.lock").exists()


def test_mock_llm_is_callable_without_a_block_and_ends_with_the_test(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
import os

def test_called(lockgate_agent, mock_llm):
    mock_llm(responses=lambda request: request.last_user.upper())
    assert lockgate_agent().run("hi").output == "HI"

def test_ended():
    assert "127.0.0.1" not in os.environ.get("OPENAI_BASE_URL", "")

def test_nested(lockgate_agent, mock_llm):
    agent = lockgate_agent()
    mock_llm(responses="outer")
    with mock_llm(responses="inner"):
        assert agent.run("hi").output == "inner"
    assert agent.run("hi").output == "outer"
""",
    )
    project.runpytest_inprocess().assert_outcomes(passed=3)


def test_any_openai_client_is_answered(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
import openai

def test_own_code(mock_llm):
    with mock_llm(responses=["scripted"]) as llm, openai.OpenAI() as client:
        answer = client.chat.completions.create(model="any", messages=[{"role": "user", "content": "hi"}])
    assert answer.choices[0].message.content == "scripted"
    assert llm.requests[0].model == "any"
""",
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_a_scripted_failure_is_the_runs_failure(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
from lockgate.testing import failing

def test_down(lockgate_agent, mock_llm):
    mock_llm(responses=failing(503, "no capacity"))
    result = lockgate_agent().run("hi")
    assert result.status == "failed"
    assert "no capacity" in result.error
""",
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


REAL = """
def test_greets(lockgate_agent):
    agent = lockgate_agent()
    results = [agent.run("greet Ada"), agent.run("greet Ada")]
    assert [result.output for result in results] == ["Hello Ada 1", "Hello Ada 2"]
    assert results[0].cost_usd > 0
"""


def test_what_real_models_answer_is_recorded_and_replayed(project: pytest.Pytester) -> None:
    write_test(project, REAL)
    with FakeModelServer(["Hello Ada 1", "Hello Ada 2"]) as server:
        _point_at(project, server.base_url)
        project.runpytest_inprocess("--real-llm").assert_outcomes(passed=1)
    _point_at(project, "http://127.0.0.1:9/v1")  # nothing listens there
    cassette = project.path / "tests" / "cassettes" / "test_greeter" / "test_greets.json"
    calls = json.loads(cassette.read_text())["calls"]
    assert [call["answer"]["message"]["content"] for call in calls] == ["Hello Ada 1", "Hello Ada 2"]
    assert "127.0.0.1" not in cassette.read_text()
    for option in ("--mock-llm", "-q"):
        project.runpytest_inprocess(option).assert_outcomes(passed=1)


def test_a_changed_prompt_fails_until_it_is_recorded_again(project: pytest.Pytester) -> None:
    write_test(project, REAL)
    with FakeModelServer(["Hello Ada 1", "Hello Ada 2"] * 2) as server:
        _point_at(project, server.base_url)
        project.runpytest_inprocess("--real-llm").assert_outcomes(passed=1)
        (project.path / "prompts" / "greeter.md").write_text("You greet people warmly.\n")
        result = project.runpytest_inprocess("--mock-llm")
        result.assert_outcomes(failed=1)
        result.stdout.fnmatch_lines(["*record it again: pytest --real-llm*"])
        project.runpytest_inprocess("--real-llm").assert_outcomes(passed=1)
    project.runpytest_inprocess("--mock-llm").assert_outcomes(passed=1)


def test_without_a_cassette_a_test_is_skipped_and_with_mock_llm_it_fails(project: pytest.Pytester) -> None:
    write_test(project, REAL)
    project.runpytest_inprocess().assert_outcomes(skipped=1)
    result = project.runpytest_inprocess("--mock-llm")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*no cassette*test_greets.json*pytest --real-llm*"])


def test_a_damaged_cassette_is_named(project: pytest.Pytester) -> None:
    write_test(project, REAL)
    cassette = project.path / "tests" / "cassettes" / "test_greeter" / "test_greets.json"
    cassette.parent.mkdir(parents=True)
    cassette.write_text('{"format": 1, "calls": [{"model": "m"}]}')
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*InputError*test_greets.json: is no cassette*"])


def test_both_options_at_once_are_refused(project: pytest.Pytester) -> None:
    result = project.runpytest_inprocess("--mock-llm", "--real-llm")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*exclude each other*"])


def test_an_agent_that_is_not_named_must_be_the_only_one(project: pytest.Pytester) -> None:
    (project.path / "agents" / "other.v1.yaml").write_text(AGENT.replace("greeter", "other"))
    write_test(project, "def test_it(lockgate_agent):\n    lockgate_agent()\n")
    result = project.runpytest_inprocess()
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*greeter.v1.yaml, other.v1.yaml*"])


def test_async_tests_await_the_run(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
import asyncio

def test_it(lockgate_agent, mock_llm):
    mock_llm(responses="hello")
    async def main():
        with pytest.raises(RuntimeError, match="await agent.arun"):
            lockgate_agent().run("hi")
        return await lockgate_agent().arun("hi")
    assert asyncio.run(main()).output == "hello"
""",
    )
    project.runpytest_inprocess().assert_outcomes(passed=1)


def test_the_plugin_imports_nothing_heavy() -> None:
    script = (
        "import sys, pytest; before = set(sys.modules); import lockgate.testing.plugin;"
        "print(sorted(name for name in set(sys.modules) - before if not name.startswith('lockgate')))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def _point_at(project: pytest.Pytester, base_url: str) -> None:
    (project.path / "lockgate.yaml").write_text(
        f"project: demo\nproviders:\n  house: {{kind: openai, base_url: '{base_url}'}}\nprices: prices.yaml\n"
    )


def test_each_golden_case_is_a_test_held_to_the_agent_files_thresholds(project: pytest.Pytester) -> None:
    agent = project.path / "agents/greeter.v1.yaml"
    agent.write_text(AGENT + "  evals: {dataset: evals/golden/g.jsonl, thresholds: {contains: 1.0}}\n")
    golden = project.path / "evals/golden/g.jsonl"
    golden.parent.mkdir(parents=True)
    golden.write_text(
        '{"id": "one", "input": "greet Ada", "expected_output": "Ada"}\n'
        '{"id": "two", "input": "greet Bob", "expected_output": "Bob"}\n'
    )
    write_test(
        project,
        """
@pytest.mark.golden("agents/greeter.v1.yaml")
def test_golden(golden_case, lockgate_agent, mock_llm):
    mock_llm(responses="Hello Ada")
    golden_case.check(lockgate_agent(golden_case.agent))
""",
    )
    result = project.runpytest_inprocess()
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*case 'two', answer 'Hello Ada'*contains is 0, below 1*"])


def test_a_golden_set_that_cannot_be_read_is_no_success(project: pytest.Pytester) -> None:
    write_test(
        project,
        """
@pytest.mark.golden("agents/greeter.v1.yaml")
def test_golden(golden_case):
    pass
""",
    )
    result = project.runpytest_inprocess()
    assert result.ret != 0
    result.stdout.fnmatch_lines(["*names no golden set*"])
