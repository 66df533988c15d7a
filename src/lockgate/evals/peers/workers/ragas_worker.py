"""RAGAS metrics (``ragas.metrics.collections``). What a metric is given follows from the names of its parameters."""

from __future__ import annotations

import asyncio
import inspect
from importlib import import_module
from typing import Any

WAITING = frozenset({"SemanticSimilarity"})
"""Metrics that ask for embeddings without awaiting them: they need a thread of their own to wait in."""

collections: Any = None
messages: Any = None
llm: Any = None
embeddings: Any = None
Skipped: Any = None


def load(pipe: Any, main: Any) -> str:
    """Import the package; gives its version."""
    global collections, messages, llm, embeddings, Skipped
    import ragas
    from ragas.embeddings.base import BaseRagasEmbedding
    from ragas.llms.base import InstructorBaseRagasLLM

    collections, messages = import_module("ragas.metrics.collections"), import_module("ragas.messages")
    Skipped = main.Skipped

    class Judge(InstructorBaseRagasLLM):  # type: ignore[misc]
        """The evaluation's judge, as RAGAS asks a model."""

        async def agenerate(self, prompt: str, response_model: Any) -> Any:
            text = await pipe.ask([{"role": "user", "content": prompt}], response_model.model_json_schema())
            return main.parsed(text, response_model)

        def generate(self, prompt: str, response_model: Any) -> Any:
            return pipe.wait(self.agenerate(prompt, response_model))

    class Embeddings(BaseRagasEmbedding):  # type: ignore[misc]
        """The embeddings that the evaluation names, as RAGAS asks for them."""

        async def aembed_text(self, text: str, **kwargs: Any) -> Any:
            return (await pipe.embed([text]))[0]

        async def aembed_texts(self, texts: list[str], **kwargs: Any) -> Any:
            return await pipe.embed(list(texts))

        def embed_text(self, text: str, **kwargs: Any) -> Any:
            return pipe.wait(self.aembed_text(text))

        def embed_texts(self, texts: list[str], **kwargs: Any) -> Any:
            return pipe.wait(self.aembed_texts(texts))

    llm, embeddings = Judge(), Embeddings()
    return str(ragas.__version__)


def make(symbol: str, options: dict[str, Any]) -> Any:
    """The metric, new for each score: some keep state."""
    kind = getattr(collections, symbol)
    given = dict(options)
    named = inspect.signature(kind.__init__).parameters
    if "llm" in named:
        given["llm"] = llm
    if "embeddings" in named:
        given["embeddings"] = embeddings
    if "distance_measure" in given:
        given["distance_measure"] = collections.DistanceMeasure(given["distance_measure"])
    unknown = [name for name in options if name not in named]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: {', '.join(name for name in named if name != 'self')}")
    return kind(**given)


async def score(metric: Any, symbol: str, sample: dict[str, Any]) -> tuple[float, str]:
    """RAGAS's own word on the sample."""
    parameters = inspect.signature(metric.ascore).parameters
    talk = symbol.startswith(("ToolCall", "AgentGoal", "TopicAdherence"))
    expected = sample["expected"]
    known = {
        "user_input": _messages(sample) if talk else sample["input"],
        "response": sample["output"],
        "reference": expected[0] if isinstance(expected, list) else expected,
        "retrieved_contexts": sample["contexts"],
        "reference_contexts": sample["reference_contexts"] or sample["contexts"],
        "reference_tool_calls": [_call(one) for one in sample["expected_tools"] or []],
        "reference_topics": sample["metadata"].get("topics"),
    }
    given = {}
    for name, parameter in parameters.items():
        if known.get(name) is not None:
            given[name] = known[name]
        elif parameter.default is parameter.empty:
            raise Skipped(f"there is no {name}")
    if symbol in WAITING:
        found = await asyncio.to_thread(asyncio.run, metric.ascore(**given))
    else:
        found = await metric.ascore(**given)
    return float(found.value), str(found.reason or "")


def _messages(sample: dict[str, Any]) -> list[Any]:
    calls = [messages.ToolCall(name=one["name"], args=one["arguments"]) for one in sample["tools_called"]]
    said: list[Any] = [messages.HumanMessage(content=sample["input"])]
    if calls:
        said.append(messages.AIMessage(content="", tool_calls=calls))
        said += [messages.ToolMessage(content=str(one["result"])) for one in sample["tools_called"]]
    said.append(messages.AIMessage(content=sample["output"]))
    return said


def _call(wanted: Any) -> Any:
    if isinstance(wanted, str):
        return messages.ToolCall(name=wanted, args={})
    return messages.ToolCall(name=wanted["name"], args=wanted.get("arguments") or wanted.get("args") or {})
