"""A graph's model calls come back as the run's own steps. The graph here is a stand-in with LangGraph's interface, so
that the tests need no LangGraph; one test at the end runs the real one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import aiohttp
import pytest

from lockgate.errors import InputError
from lockgate.results import RunResult, Usage
from lockgate.runtime import current_run
from lockgate.runtime.local import LocalRunner
from lockgate.testing import FakeModel, Reply, failing
from lockgate.versions.model import AgentVersion, Framework, Guardrails

CODE = '''
from openai import AsyncOpenAI
from lockgate.runtime import current_run

class Graph:
    def __init__(self, **options):
        self.options = options

    async def ainvoke(self, state):
        run = current_run()
        async with AsyncOpenAI(base_url=run.base_url, api_key=run.api_key) as client:
            options = {"model": run.model} | self.options
            answer = await client.chat.completions.create(messages=state["messages"], **options)
            if options.get("stream"):
                text = "".join([chunk.choices[0].delta.content or "" async for chunk in answer if chunk.choices])
            else:
                text = answer.choices[0].message.content
        return {"messages": [*state["messages"], {"role": "assistant", "content": text}]}

class WithTool(Graph):
    async def ainvoke(self, state):
        order = await current_run().tool("read_order", {"order_id": "A-1"})
        state = await super().ainvoke(state)
        return {"messages": [], "structured_response": {"item": order["item"]}}

app = Graph()
streaming = Graph(stream=True)
other_model = Graph(model="gpt-99")
several = Graph(n=3)
wordy = Graph(max_completion_tokens=10**9)
with_tool = WithTool()
no_graph = object()

REAL = """
from typing import Annotated, TypedDict
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

class State(TypedDict):
    messages: Annotated[list, add_messages]

async def think(state):
    run = current_run()
    model = ChatOpenAI(base_url=run.base_url, api_key=run.api_key, model=run.model)
    return {"messages": [await model.ainvoke(state["messages"])]}

graph = StateGraph(State)
graph.add_node("think", think)
graph.add_edge(START, "think")
graph.add_edge("think", END)
"""

def __getattr__(name):
    if name == "real":
        exec(REAL, globals())
        return graph.compile()
    raise AttributeError(name)
'''


@pytest.fixture
def run(shop: Any, version: Callable[..., AgentVersion]) -> Callable[..., Any]:
    (shop.folder / "support.py").write_text(CODE)

    async def run(responses: Any, graph: str = "app", **fields: Any) -> RunResult:
        framework = Framework(kind="langgraph", entrypoint=f"support:{graph}")
        defaults: dict[str, Any] = {"handler": None, "guardrails": Guardrails()}
        model = responses if isinstance(responses, FakeModel) else FakeModel(responses)
        return await LocalRunner(version(framework=framework, **(defaults | fields)), model, shop.folder).run("hello")

    return run


async def test_model_calls_of_a_graph_are_steps_of_the_run(run: Any) -> None:
    model = FakeModel([Reply(text="hi", usage=Usage(input_tokens=7, output_tokens=2))])
    result = await run(model)
    assert (result.status, result.output, result.model_calls) == ("completed", "hi", 1)
    assert result.usage.total_tokens == 9
    assert [message["role"] for message in model.requests[0].messages] == ["system", "user"]
    assert model.requests[0].model == "fake/model-1"


async def test_a_graph_that_streams_gets_its_stream(run: Any) -> None:
    assert (await run(["streamed words"], "streaming")).output == "streamed words"


async def test_tools_of_the_version_are_steps_too(run: Any, shop: Any) -> None:
    result = await run(["fine"], "with_tool")
    assert (result.output, shop.calls) == ({"item": "kettle"}, ["read A-1"])
    assert [use.name for use in result.tools_used] == ["read_order"]


@pytest.mark.parametrize(("graph", "said"), [("other_model", "gpt-99"), ("several", "n must be 1")])
async def test_what_the_version_does_not_say_is_refused(run: Any, graph: str, said: str) -> None:
    model = FakeModel("unused")
    result = await run(model, graph)
    assert (result.status, result.error_type, model.requests) == ("failed", "code_error", [])
    assert said in str(result.error)


async def test_a_graph_cannot_ask_for_more_tokens_than_its_version_allows(run: Any) -> None:
    model = FakeModel("short")
    await run(model, "wordy")
    assert model.requests[0].body["max_tokens"] == 1024


async def test_a_failing_model_is_the_runs_typed_error_and_is_asked_once(run: Any) -> None:
    model = FakeModel(lambda request: failing(500))
    result = await run(model)
    assert (result.error_type, len(model.requests)) == ("model_error", 1)


@pytest.mark.parametrize("graph", ["no_graph", "nothing"])
async def test_an_entrypoint_that_is_no_graph_is_named(run: Any, graph: str) -> None:
    result = await run(["unused"], graph)
    assert (result.status, result.error_type) == ("failed", "code_error")
    assert graph in str(result.error)


async def test_runs_at_once_keep_their_addresses_apart(run: Any) -> None:
    results = await asyncio.gather(*(run([f"answer {number}"]) for number in range(5)))
    assert [result.output for result in results] == [f"answer {number}" for number in range(5)]


async def test_an_answer_that_does_not_fit_the_schema_fails(run: Any, version: Any) -> None:
    result = await run(["no json"], guardrails=version().guardrails)
    assert result.error_type == "output_invalid"


async def test_another_key_is_refused() -> None:
    from lockgate.runtime.loopback import model_address

    class Context:
        """Never asked."""

    async with model_address(Context()) as address, aiohttp.ClientSession() as session:  # type: ignore[arg-type]
        for headers in ({}, {"authorization": "Bearer wrong"}):
            async with session.post(f"{address.base_url}/chat/completions", headers=headers) as response:
                assert response.status == 401
                assert response.headers["connection"] == "close"  # nothing stays open when the run has ended


def test_outside_a_run_there_is_no_current_run() -> None:
    with pytest.raises(InputError, match="no run in progress"):
        current_run()


@pytest.mark.integration_only
async def test_a_real_graph_runs(run: Any) -> None:
    pytest.importorskip("langgraph")
    model = FakeModel(["from the graph"])
    result = await run(model, "real")
    assert (result.status, result.output) == ("completed", "from the graph")
