"""The official Node clients of OpenAI and Anthropic, unmodified, through the gateway."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, ToolCall

if TYPE_CHECKING:
    from conftest import RunningGateway

pytestmark = pytest.mark.integration_only
ROOT = Path(__file__).parents[3]
LOCKED = ROOT / "constraints" / "node-clients"
SCRIPT = """
import OpenAI from "openai";
import Anthropic from "@anthropic-ai/sdk";
const { URL_, KEY } = process.env;
const openai = new OpenAI({ baseURL: URL_ + "/v1", apiKey: KEY, maxRetries: 0, timeout: 10000 });
const anthropic = new Anthropic({ baseURL: URL_, apiKey: KEY, maxRetries: 0, timeout: 10000 });
const ask = [{ role: "user", content: "hi" }];
const told = {};
for (const model of ["fake/fake-model", "claude/fake-model"]) {
  const completion = await openai.chat.completions.create({ model, messages: ask });
  told[model + " chat"] = completion.choices[0].message.content;
  told[model + " tool"] = completion.choices[0].message.tool_calls[0].function;
  let text = "";
  const stream = await openai.chat.completions.create({ model, messages: ask, stream: true });
  for await (const chunk of stream) text += chunk.choices[0]?.delta?.content ?? "";
  told[model + " chat stream"] = text;
  const message = await anthropic.messages.create({ model, max_tokens: 50, messages: ask });
  told[model + " message"] = message.content[0].text;
  const final = await anthropic.messages.stream({ model, max_tokens: 50, messages: ask }).finalMessage();
  told[model + " message stream"] = final.content[0].text;
  told[model + " message tool"] = final.content[1].input;
}
const response = await openai.responses.create({ model: "fake/fake-model", input: "hi" });
told["response"] = response.output_text;
const vectors = await openai.embeddings.create({ model: "fake/fake-model", input: ["a", "b"] });
told["embeddings"] = vectors.data.length;
told["models"] = (await openai.models.list()).data.map((model) => model.id);
try {
  await openai.chat.completions.create({ model: "nope/x", messages: ask });
} catch (error) { told["error"] = [error.status, error.constructor.name]; }
try {
  await anthropic.messages.create({ model: "nope/x", max_tokens: 5, messages: ask });
} catch (error) { told["anthropic error"] = [error.status, error.constructor.name]; }
const line = JSON.stringify({ custom_id: "a", method: "POST", url: "/v1/chat/completions",
  body: { model: "fake/fake-model", messages: ask, max_tokens: 9 } });
const file = await openai.files.create({ file: new File([line], "in.jsonl"), purpose: "batch" });
const batch = await openai.batches.create({ input_file_id: file.id, endpoint: "/v1/chat/completions",
  completion_window: "24h" });
const content = await openai.files.content(file.id);
told["batch"] = [batch.status, (await openai.batches.list()).data.length, await content.text()];
console.log(JSON.stringify(told));
"""


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the locked clients."""
    folder = tmp_path_factory.mktemp("node")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(LOCKED / name, folder)
    subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"],
        cwd=folder, check=True, timeout=300,
    )  # fmt: skip
    return folder


def test_the_node_clients_work_unmodified(gateway: RunningGateway, model: FakeModelServer, modules: Path) -> None:
    model.respond = lambda _: Reply(
        text="good day",
        tool_calls=(ToolCall(name="w", arguments={"a": 1}),),
        usage=Usage(input_tokens=3, output_tokens=2),
    )
    (modules / "try.mjs").write_text(SCRIPT)
    ran = subprocess.run(
        ["node", "try.mjs"],
        cwd=modules,
        env={**os.environ, "URL_": gateway.url, "KEY": gateway.key()},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ran.returncode == 0, ran.stderr
    told = json.loads(ran.stdout)
    for name in ("fake/fake-model", "claude/fake-model"):
        for kind in ("chat", "chat stream", "message", "message stream"):
            assert told[f"{name} {kind}"] == "good day", (name, kind)
        assert told[f"{name} message tool"] == {"a": 1}
        assert told[f"{name} tool"]["name"] == "w"
        assert json.loads(told[f"{name} tool"]["arguments"]) == {"a": 1}
    assert told["response"] == "good day"
    assert told["embeddings"] == 2
    assert "fake/fake-model" in told["models"]
    assert told["error"] == [400, "BadRequestError"]
    assert told["anthropic error"] == [400, "BadRequestError"]
    assert told["batch"][:2] == ["validating", 1]
    assert json.loads(told["batch"][2])["body"]["model"] == "fake-model"
