"""Inspect scorers (``inspect_ai.scorer``), called outside an Inspect task with a state made of the sample."""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

scorers: Any = None
models: Any = None
TaskState: Any = None
grader: Any = None
Unscored: Any = None


def load(pipe: Any, main: Any) -> str:
    """Import the package; gives its version."""
    global scorers, models, TaskState, grader, Unscored
    import inspect_ai

    models, scorers = import_module("inspect_ai.model"), import_module("inspect_ai.scorer")
    TaskState = import_module("inspect_ai.solver").TaskState
    Unscored = main.Unscored

    @models.modelapi(name="lockgate")  # type: ignore[untyped-decorator]
    def lockgate() -> Any:
        class Judge(models.ModelAPI):  # type: ignore[misc]
            """The evaluation's judge, as Inspect asks a model."""

            async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
                said = [{"role": one.role, "content": one.text} for one in input]
                return models.ModelOutput.from_content("lockgate/judge", await pipe.ask(said))

        return Judge

    grader = models.get_model("lockgate/judge", memoize=False)
    return str(inspect_ai.__version__)


def make(symbol: str, options: dict[str, Any]) -> Any:
    """The scorer."""
    kind = getattr(scorers, symbol)
    named = inspect.signature(kind).parameters
    unknown = [name for name in options if name not in named]
    if unknown:
        raise ValueError(f"unknown option {unknown[0]!r}: {', '.join(named)}")
    given = dict(options)
    if "model" in named:
        given["model"] = grader
    return kind(**given)


async def score(metric: Any, symbol: str, sample: dict[str, Any]) -> tuple[float, str]:
    """Inspect's own word on the sample; C, P, I and N are 1, 0.5, 0 and 0."""
    target = scorers.Target(sample["expected"] if sample["expected"] is not None else "")
    state = TaskState(
        model=models.ModelName("lockgate/agent"),
        sample_id="sample",
        epoch=1,
        input=sample["input"],
        messages=[models.ChatMessageUser(content=sample["input"])],
        target=target,
        output=models.ModelOutput.from_content("lockgate/agent", sample["output"]),
        metadata=sample["metadata"],
    )
    found = await metric(state, target)
    if found is None:
        raise Unscored("the scorer gave no score")
    reason = str(found.explanation or "")
    if symbol.startswith("model_graded") and reason.startswith("Grade not found"):
        raise Unscored(reason[:300])
    return float(scorers.value_to_float()(found.value)), "" if reason == sample["output"] else reason
