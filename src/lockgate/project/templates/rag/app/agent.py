"""The agent: finds passages of the knowledge base, and has the model answer from them alone."""

import json

NOT_FOUND = "That is not in our policies. A colleague will answer you."

FORM = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}


async def run(ctx, input):
    """The answer to a question, with the passages that it was given."""
    before, question = split(input)
    passages = await ctx.tool(
        "search_policies", {"query": question, "knowledge_base": ctx.version.retrieval["knowledge_base"]}
    )
    if not passages:  # nothing to answer from: the model is not asked, so it cannot make something up
        return {"answer": NOT_FOUND, "sources": []}
    completion = await ctx.model(
        [
            {"role": "system", "content": ctx.version.system_prompt},
            *before,
            {"role": "user", "content": f"{quoted(passages)}\n\nQuestion: {question}"},
        ],
        response_format={"type": "json_schema", "json_schema": {"name": "answer", "schema": FORM, "strict": True}},
    )
    return {
        "answer": answer_in(completion.message["content"]),
        "sources": list(dict.fromkeys(passage["source"] for passage in passages)),
    }


def split(input):
    """The conversation so far, and the question; an input is text, or {"messages": […]}."""
    messages = [{"role": "user", "content": input}] if isinstance(input, str) else input["messages"]
    return messages[:-1], messages[-1]["content"]


def quoted(passages):
    """Passages as the model sees them: marked as quotations, which they cannot break out of."""
    return "\n".join(
        f'<passage source="{passage["source"]}">\n{passage["text"].replace("<", "‹").replace(">", "›")}\n</passage>'
        for passage in passages
    )


def answer_in(text):
    """The text in the model's JSON answer. Raises ValueError when there is none, which fails the run."""
    answer = json.loads(text)["answer"].strip()
    if not answer:
        raise ValueError("the model's answer is empty")
    return answer
