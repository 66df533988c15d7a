"""The agent: a function of its run and its input. What it asks and does goes through ``ctx``: counted, limited,
ruled on by policy, and recorded."""

import json

TOPICS = ["billing", "delivery", "account", "other"]

FORM = {
    "type": "object",
    "properties": {"topic": {"enum": TOPICS}},
    "required": ["topic"],
    "additionalProperties": False,
}


async def run(ctx, input):
    """Which team a message goes to: the model names the topic, a tool knows the team."""
    completion = await ctx.model(
        [{"role": "system", "content": ctx.version.system_prompt}, *conversation(input)],
        response_format={"type": "json_schema", "json_schema": {"name": "topic", "schema": FORM, "strict": True}},
    )
    topic = topic_in(completion.message["content"])
    found = await ctx.tool("find_team", {"topic": topic})
    return {"topic": topic, "team": found["team"]}


def conversation(input):
    """The caller's messages; an input is text, or {"messages": […]}."""
    return [{"role": "user", "content": input}] if isinstance(input, str) else input["messages"]


def topic_in(answer):
    """The topic in the model's answer; "other" when it names none that there is."""
    try:
        topic = json.loads(answer)["topic"]
    except (ValueError, TypeError, KeyError):
        return "other"
    return topic if topic in TOPICS else "other"
