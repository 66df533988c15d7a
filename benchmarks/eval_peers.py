"""The same work in Lockgate and in its peers: 2,000 cases, a model that answers after 100 ms, 100 calls at a time.

    make peers
    python benchmarks/eval_peers.py [--cases 2000] [--latency 0.1] [--concurrency 100] [--only lockgate,inspect]

Each is the tool's own command or function, from the start of its process to its end, over HTTP to one stand-in model in
a process of its own; one deterministic score a case, every result kept where the tool keeps it. DeepEval and RAGAS run
no agent: there the call is the judge's, one a case. The ideal is cases × latency / concurrency.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).parents[1]
PEERS = ROOT / ".venv-peers"
QUIET = {
    "DEEPEVAL_TELEMETRY_OPT_OUT": "1",
    "RAGAS_DO_NOT_TRACK": "true",
    "PROMPTFOO_DISABLE_TELEMETRY": "1",
    "PROMPTFOO_DISABLE_UPDATE": "1",
    "OPENAI_API_KEY": "none",
    "HF_HUB_OFFLINE": "1",
}
ANSWER = json.dumps({"score": 10, "reason": "so", "verdict": 1})


# --- the model --------------------------------------------------------------------------------------------------


class Connection(asyncio.Protocol):
    """Chat completions, each after its latency; ``GET /seen`` says what came in, and forgets it."""

    latency = 0.1
    seen: ClassVar[list[float]] = []
    open = 0
    most = 0

    def connection_made(self, transport: Any) -> None:
        self.transport, self.buffer = transport, b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end].lower()
            at = head.find(b"content-length:")
            size = int(head[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + size:
                return
            self.buffer = self.buffer[end + 4 + size :]
            if head.startswith(b"get"):
                first, last = min(self.seen, default=0.0), max(self.seen, default=0.0) + self.latency
                seen = {"calls": len(self.seen), "first": first, "last": last, "most": Connection.most}
                self.write(json.dumps(seen).encode())
                Connection.seen, Connection.most = [], 0
                continue
            self.seen.append(time.time())
            Connection.open += 1
            Connection.most = max(Connection.most, Connection.open)
            asyncio.get_running_loop().call_later(self.latency, self.answer)

    def answer(self) -> None:
        Connection.open -= 1
        self.write(COMPLETION)

    def write(self, body: bytes) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(head + body)


COMPLETION = json.dumps(
    {
        "id": "c",
        "object": "chat.completion",
        "created": 1,
        "model": "stand-in",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": ANSWER}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 60, "completion_tokens": 20, "total_tokens": 80},
    }
).encode()


async def serve(latency: float) -> None:
    Connection.latency = latency
    server = await asyncio.get_running_loop().create_server(Connection, "127.0.0.1", 0, backlog=1000)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until whoever started it is gone


# --- the tools --------------------------------------------------------------------------------------------------


def questions(count: int) -> list[str]:
    return [f"My order {number} arrived broken. Please refund it." for number in range(count)]


def lockgate(folder: Path, url: str, count: int, concurrency: int) -> list[str]:
    files = {
        "lockgate.yaml": f"project: p\nprices: prices.yaml\nproviders: {{m: {{kind: openai, base_url: '{url}'}}}}\n",
        "prices.yaml": "m: {stand-in-2026-01-01: {input: 1.0, output: 2.0}}\n",
        "prompt.md": "Answer in JSON.\n",
        "agent.yaml": "agent:\n  name: a\n  version: 1\n  owner: me\n  system_prompt: prompt.md\n"
        "  model: {provider: m, name: stand-in-2026-01-01}\n"
        f"  evals: {{dataset: g.jsonl, concurrency: {concurrency}, thresholds: {{exact_match: 0.9}}}}\n",
        "g.jsonl": "".join(
            json.dumps({"id": f"c{n}", "input": text, "expected_output": ANSWER}) + "\n"
            for n, text in enumerate(questions(count))
        ),
    }
    for name, text in files.items():
        (folder / name).write_text(text)
    command = [sys.executable, "-m", "lockgate"]
    subprocess.run([*command, "lock", "agent.yaml"], cwd=folder, check=True, capture_output=True)
    whole = "--whole"  # without it the verdict is settled by fewer calls than the peers make
    return [*command, "eval", "--agent", "agent.yaml", whole, "--json"]


def promptfoo(folder: Path, url: str, count: int, concurrency: int) -> list[str]:
    provider = {"id": "openai:chat:stand-in", "config": {"apiBaseUrl": url, "apiKey": "none"}}
    tests = [{"vars": {"q": text}, "assert": [{"type": "equals", "value": ANSWER}]} for text in questions(count)]
    config = {"prompts": ["Answer in JSON. {{q}}"], "providers": [provider], "tests": tests}
    (folder / "config.json").write_text(json.dumps(config))
    command = PEERS / "promptfoo" / "node_modules" / ".bin" / "promptfoo"
    options = ["--no-cache", "--no-progress-bar", "--no-table", "-o", "out.json", "-j", str(concurrency)]
    return [str(command), "eval", "-c", "config.json", *options]


def python_peer(name: str, folder: Path, url: str, count: int, concurrency: int) -> list[str]:
    python = PEERS / name / "bin" / "python"
    return [
        str(python),
        __file__,
        "--within",
        name,
        "--url",
        url,
        "--cases",
        str(count),
        "--concurrency",
        f"{concurrency}",
    ]


def within_inspect(url: str, count: int, concurrency: int) -> None:
    import httpx
    from inspect_ai import Task, eval
    from inspect_ai.dataset import MemoryDataset, Sample
    from inspect_ai.model import ModelAPI, ModelOutput, get_model, modelapi
    from inspect_ai.scorer import exact
    from inspect_ai.solver import generate

    @modelapi(name="standin")
    def standin() -> Any:
        class StandIn(ModelAPI):
            client: Any = None

            def max_connections(self) -> int:
                return concurrency

            async def generate(self, input: Any, tools: Any, tool_choice: Any, config: Any) -> Any:
                if self.client is None:
                    self.client = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=concurrency))
                body = {"model": "m", "messages": [{"role": one.role, "content": one.text} for one in input]}
                reply = await self.client.post(f"{url}/chat/completions", json=body)
                return ModelOutput.from_content("m", reply.json()["choices"][0]["message"]["content"])

        return StandIn

    samples = [Sample(id=n, input=text, target=ANSWER) for n, text in enumerate(questions(count))]
    task = Task(dataset=MemoryDataset(samples), solver=generate(), scorer=exact())
    (log,) = eval(
        task,
        model=get_model("standin/m"),
        max_connections=concurrency,
        max_samples=concurrency,
        display="none",
        log_dir=str(Path.cwd()),
    )
    assert log.results.completed_samples == count


def within_deepeval(url: str, count: int, concurrency: int) -> None:
    import aiohttp
    from deepeval import evaluate
    from deepeval.evaluate.configs import AsyncConfig, CacheConfig, DisplayConfig
    from deepeval.metrics import GEval
    from deepeval.models import DeepEvalBaseLLM
    from deepeval.test_case import LLMTestCase, SingleTurnParams

    class StandIn(DeepEvalBaseLLM):
        client: Any = None

        def load_model(self, *args: Any, **kwargs: Any) -> Any:
            return self

        async def a_generate(self, prompt: str, schema: Any = None, **kwargs: Any) -> Any:
            if self.client is None:
                self.client = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=concurrency))
            body = {"model": "m", "messages": [{"role": "user", "content": prompt}]}
            async with self.client.post(f"{url}/chat/completions", json=body) as reply:
                text = (await reply.json())["choices"][0]["message"]["content"]
            return text if schema is None else schema.model_validate_json(text)

        def generate(self, prompt: str, schema: Any = None, **kwargs: Any) -> Any:
            raise NotImplementedError

        def get_model_name(self, *args: Any, **kwargs: Any) -> str:
            return "stand-in"

    given = [SingleTurnParams.INPUT, SingleTurnParams.ACTUAL_OUTPUT]
    metric = GEval(name="g", evaluation_steps=["Is it right?"], evaluation_params=given, model=StandIn("stand-in"))
    found = evaluate(
        test_cases=[LLMTestCase(input=text, actual_output=ANSWER) for text in questions(count)],
        metrics=[metric],
        async_config=AsyncConfig(run_async=True, max_concurrent=concurrency, throttle_value=0),
        display_config=DisplayConfig(show_indicator=False, print_results=False),
        cache_config=CacheConfig(write_cache=False, use_cache=False),
    )
    assert len(found.test_results) == count


def within_ragas(url: str, count: int, concurrency: int) -> None:
    import httpx
    from langchain_core.outputs import Generation, LLMResult
    from ragas import EvaluationDataset, RunConfig, SingleTurnSample, evaluate
    from ragas.llms.base import BaseRagasLLM
    from ragas.metrics import AspectCritic

    class StandIn(BaseRagasLLM):
        client: Any = None

        def is_finished(self, response: Any) -> bool:
            return True

        def generate_text(self, *args: Any, **kwargs: Any) -> Any:
            raise NotImplementedError

        async def agenerate_text(self, prompt: Any, *args: Any, **kwargs: Any) -> Any:
            if self.client is None:
                self.client = httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=concurrency))
            body = {"model": "m", "messages": [{"role": "user", "content": prompt.to_string()}]}
            reply = await self.client.post(f"{url}/chat/completions", json=body)
            return LLMResult(generations=[[Generation(text=reply.json()["choices"][0]["message"]["content"])]])

    llm = StandIn(run_config=RunConfig())
    samples = [SingleTurnSample(user_input=text, response=ANSWER) for text in questions(count)]
    found = evaluate(
        EvaluationDataset(samples=samples),
        metrics=[AspectCritic(name="right", definition="Is it right?", llm=llm)],
        llm=llm,
        run_config=RunConfig(max_workers=concurrency, timeout=60),
        show_progress=False,
    )
    assert len(found.scores) == count


# --- measuring --------------------------------------------------------------------------------------------------


def seen(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url.removesuffix('/v1')}/seen", timeout=10) as answer:
        return dict(json.loads(answer.read()))


def measured(name: str, url: str, options: argparse.Namespace) -> dict[str, float] | str:
    """Wall seconds, CPU seconds and peak memory of a tool's process and its children, and its first call's time."""
    maker: Any = {"lockgate": lockgate, "promptfoo": promptfoo}.get(name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        given = (folder, url, options.cases, options.concurrency)
        command = maker(*given) if maker else python_peer(name, *given)
        if not Path(command[0]).exists():
            return "not installed: make peers"
        kept = {key: value for key, value in os.environ.items() if not key.startswith("LOCKGATE")}
        environment = kept | QUIET | {"HOME": temporary, "PROMPTFOO_CONFIG_DIR": temporary}
        seen(url)
        began, before = time.time(), resource.getrusage(resource.RUSAGE_CHILDREN)
        with (folder / "said").open("wb") as said:
            process = subprocess.Popen(command, cwd=folder, env=environment, stdout=said, stderr=said)
            try:
                _, status, usage = os.wait4(process.pid, 0)
            except BaseException:
                process.kill()
                raise
            process.returncode = os.waitstatus_to_exitcode(status)
        took = time.time() - began
        model = seen(url)
        if model["calls"] < options.cases:
            tail = (folder / "said").read_text(errors="replace")[-600:]
            return f"made {model['calls']} calls of {options.cases}, exit code {process.returncode}: {tail}"
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {
            "seconds": took,
            "cpu_ms": 1000 * max(cpu, usage.ru_utime + usage.ru_stime) / options.cases,
            "first_call": model["first"] - began,
            "calling": model["last"] - model["first"],
            "megabytes": usage.ru_maxrss / 1024,
            "calls": model["calls"],
            "most": model["most"],
        }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--latency", type=float, default=0.1)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--only", default="lockgate,promptfoo,inspect,deepeval,ragas")
    parser.add_argument("--within")
    parser.add_argument("--serve", action="store_true")
    parser.add_argument("--url", default="")
    options = parser.parse_args()
    if options.serve:
        asyncio.run(serve(options.latency))
        return
    if options.within:
        runs = {"inspect": within_inspect, "deepeval": within_deepeval, "ragas": within_ragas}
        runs[options.within](options.url, options.cases, options.concurrency)
        return
    ideal = options.cases * options.latency / options.concurrency
    what = f"{options.cases} cases, {options.latency * 1000:g} ms a call, {options.concurrency} at a time"
    print(f"{what}; ideal {ideal:.1f} s")
    server = [sys.executable, __file__, "--serve", "--latency", str(options.latency)]
    model = subprocess.Popen(server, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert model.stdout is not None
        url = f"http://127.0.0.1:{model.stdout.readline().strip()}/v1"
        ours: float | None = None
        for name in options.only.split(","):
            found = measured(name, url, options)
            if isinstance(found, str):
                print(f"{name:10} {found}")
                continue
            if name == "lockgate":
                ours = found["seconds"]
            against = f", {found['seconds'] / ours:5.1f}× Lockgate's time" if ours and name != "lockgate" else ""
            print(
                f"{name:10} {found['seconds']:6.2f} s: {found['seconds'] / ideal:5.2f}× ideal{against}; "
                f"CPU {found['cpu_ms']:5.2f} ms a case, first call after {found['first_call']:.2f} s, "
                f"all answered {found['calling']:.2f} s later, "
                f"{found['megabytes']:.0f} MB, {found['calls']:.0f} calls, {found['most']:.0f} at once",
                flush=True,
            )
    finally:
        with contextlib.suppress(Exception):
            model.stdin.close()  # type: ignore[union-attr]
        model.kill()
        model.wait()


if __name__ == "__main__":
    main()
