"""The agent: a graph that finds the store a customer means, and answers from what is known of it.

Its model calls are the run's own steps, recorded and limited, because the client takes address, key and model name from
``current_run()``; its tool calls likewise, under policy.
"""

import json
from typing import Annotated, TypedDict

from langchain_core.messages import SystemMessage
from langchain_openai import ChatOpenAI
from langgraph.graph import END, START, StateGraph
from langgraph.graph.message import add_messages

from lockgate.runtime import current_run

ANSWER = {
    "title": "answer",
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
WHICH = "Which of our stores do you mean?"


class State(TypedDict):
    messages: Annotated[list, add_messages]
    store: dict | None
    structured_response: dict  # the agent's answer


async def look_up(state: State) -> dict:
    question = state["messages"][-1].text
    return {"store": await current_run().tool("find_store", {"question": question})}


async def answer(state: State) -> dict:
    run = current_run()
    model = ChatOpenAI(base_url=run.base_url, api_key=run.api_key, model=run.model)
    facts = SystemMessage(f"What is known of the store:\n{json.dumps(state['store'])}")
    *before, question = state["messages"]
    said = await model.with_structured_output(ANSWER, method="json_schema").ainvoke([*before, facts, question])
    return {"structured_response": {"answer": said["answer"], "store": state["store"]["city"]}}


async def ask_back(state: State) -> dict:
    return {"structured_response": {"answer": WHICH, "store": None}}


def known(state: State) -> str:
    return "answer" if state["store"] else "ask_back"


graph = StateGraph(State)
graph.add_node(look_up)
graph.add_node(answer)
graph.add_node(ask_back)
graph.add_edge(START, "look_up")
graph.add_conditional_edges("look_up", known, ["answer", "ask_back"])
graph.add_edge("answer", END)
graph.add_edge("ask_back", END)
app = graph.compile()
