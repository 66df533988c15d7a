"""A conversation between an agent and a simulated user, as one trial."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from lockgate.errors import LockgateError
from lockgate.evals.simulation.model import UserScript
from lockgate.results import RunResult, Usage

AgentTurn = Callable[[list[dict[str, str]]], Awaitable[RunResult]]
"""Runs the agent once on what was said so far."""
UserTurn = Callable[[list[dict[str, str]]], Awaitable[str]]
"""Asks the user's model: chat messages in, the user's next message out."""

PROMPT = """You play a customer who writes to a support agent. Stay in character and write only what the customer says.
Write one short message at a time. Give away only what is asked or needed; invent nothing that is not below. If you do
not know something, say so. When your goal is met, or the agent says it cannot be, write {stop} and nothing else."""


async def converse(script: UserScript, agent: AgentTurn, ask: UserTurn) -> RunResult:
    """The whole conversation as one result: the last answer, all tool calls, the sums of usage, cost and time.

    A turn of the agent that fails ends it, with that failure. A user whose model cannot be asked is no failure of the
    agent's, nor is one that has nothing to say: the trial is ``model_unavailable`` or ``model_error``, and is tried
    again.
    """
    said: list[dict[str, str]] = []
    turns: list[RunResult] = []
    while len(turns) < script.max_turns:
        try:
            message = await ask(user_messages(script, said))
        except LockgateError as failure:
            reason = "rate_limited" if getattr(failure, "upstream_status", None) == 429 else "model_unavailable"
            error = f"the simulated user: {failure.message}"
            return _whole(RunResult(status="failed", error_type=reason, error=error), turns, said)
        stops = any(word in message for word in script.stop)
        if not message.strip() or (stops and not turns):
            error = f"the simulated user said nothing: {message!r}"
            return _whole(RunResult(status="failed", error_type="model_error", error=error), turns, said)
        said.append({"role": "user", "content": message})
        if stops:
            break
        result = await agent([dict(line) for line in said])
        turns.append(result)
        if result.status != "completed":
            break
        said.append({"role": "assistant", "content": result.deliverable})
    return _whole(turns[-1], turns, said)


def user_messages(script: UserScript, said: list[dict[str, str]]) -> list[dict[str, str]]:
    """What the user's model is asked: the roles are turned round, since to it the agent is the other."""
    parts = [PROMPT.format(stop=script.stop[0] if script.stop else "goodbye")]
    for name, text in (
        ("Who you are", script.persona),
        ("What you want", script.goal),
        ("What you know", script.known),
        ("What you do not know", script.unknown),
    ):
        if text:
            parts.append(f"{name}: {text}")
    turned = [{"role": "assistant" if line["role"] == "user" else "user", "content": line["content"]} for line in said]
    return [
        {"role": "system", "content": "\n\n".join(parts)},
        {"role": "user", "content": script.greeting},
        *turned,
    ]


def _whole(last: RunResult, turns: list[RunResult], said: list[dict[str, str]]) -> RunResult:
    usage = Usage()
    tools: list[Any] = []
    for turn in turns:
        usage += turn.usage
        tools += turn.tools_used
    return msgspec.structs.replace(
        last,
        tools_used=tools,
        usage=usage,
        cost_nano=sum(turn.cost_nano for turn in turns),
        seconds=sum(turn.seconds for turn in turns),
        model_calls=sum(turn.model_calls for turn in turns),
        iterations=sum(turn.iterations for turn in turns),
        transcript=said,
    )
