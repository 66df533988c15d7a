"""DeepEval metrics of single answers (``deepeval.metrics``)."""

from __future__ import annotations

import asyncio
import inspect
from importlib import import_module
from typing import Any

metrics: Any = None
cases: Any = None
judge: Any = None
Skipped: Any = None
Unscored: Any = None


def load(pipe: Any, main: Any) -> str:
    """Import the package; gives its version."""
    global metrics, cases, judge, Skipped, Unscored
    import deepeval
    from deepeval.models import DeepEvalBaseLLM

    metrics, cases = import_module("deepeval.metrics"), import_module("deepeval.test_case")
    Skipped, Unscored = main.Skipped, main.Unscored
    if int(str(deepeval.__version__).partition(".")[0]) < 4:
        raise ImportError(f"deepeval {deepeval.__version__}: 4 or newer is needed, where higher is always better")

    class Judge(DeepEvalBaseLLM):  # type: ignore[misc]
        """The evaluation's judge, as DeepEval asks a model."""

        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            return self

        async def a_generate(self, prompt: str, schema: Any = None, **kwargs: Any) -> Any:
            messages = [{"role": "user", "content": str(prompt)}]
            text = await pipe.ask(messages, None if schema is None else schema.model_json_schema())
            return text if schema is None else main.parsed(text, schema)

        def generate(self, prompt: str, schema: Any = None, **kwargs: Any) -> Any:
            return pipe.wait(self.a_generate(prompt, schema))

        def get_model_name(self, *args: Any, **kwargs: Any) -> str:
            return "lockgate-judge"

    judge = Judge("lockgate-judge")
    return str(deepeval.__version__)


def make(symbol: str, options: dict[str, Any]) -> Any:
    """The metric, new for each score: it keeps its last one's state."""
    kind = getattr(metrics, symbol)
    named = inspect.signature(kind.__init__).parameters
    unknown = [name for name in options if name not in named]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: {', '.join(name for name in named if name != 'self')}")
    given = dict(options)
    if symbol == "GEval":
        given.setdefault("name", "g_eval")
        names = given.get("evaluation_params") or ["input", "actual_output"]
        given["evaluation_params"] = [cases.SingleTurnParams(name) for name in names]
    if symbol == "ToolCorrectnessMetric" and "evaluation_params" in given:
        given["evaluation_params"] = [cases.ToolCallParams(name) for name in given["evaluation_params"]]
    if "model" in named:
        given["model"] = judge
    if "async_mode" in named:
        given["async_mode"] = True
    return kind(**given)


async def score(metric: Any, symbol: str, sample: dict[str, Any]) -> tuple[float, str]:
    """DeepEval's own word on the sample."""
    from deepeval.errors import MissingTestCaseParamsError

    expected = sample["expected"]
    case = cases.LLMTestCase(
        input=sample["input"],
        actual_output=sample["output"],
        expected_output=expected[0] if isinstance(expected, list) else expected,
        context=sample["contexts"],
        retrieval_context=sample["contexts"],
        tools_called=[_call(one) for one in sample["tools_called"]],
        expected_tools=None if sample["expected_tools"] is None else [_call(one) for one in sample["expected_tools"]],
    )
    try:
        await metric.a_measure(case, _show_indicator=False)
    except MissingTestCaseParamsError as missing:
        raise Skipped(str(missing)) from None
    except (asyncio.CancelledError, Unscored):
        raise
    except Exception as failure:
        if "invalid JSON" in str(failure):
            raise Unscored(str(failure)[:300]) from None
        raise
    return float(metric.score), str(metric.reason or "")


def _call(one: Any) -> Any:
    if isinstance(one, str):
        return cases.ToolCall(name=one)
    arguments = one.get("arguments") or one.get("args") or {}
    return cases.ToolCall(name=one["name"], input_parameters=arguments, output=one.get("result"))
