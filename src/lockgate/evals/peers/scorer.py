"""Makes scorers of the peers' metrics, and runs their workers for as long as an evaluation lasts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError, LockgateError
from lockgate.evals.model import Metric
from lockgate.evals.peers.catalogue import PeerMetric, metric_named, split
from lockgate.evals.peers.environments import command
from lockgate.evals.peers.worker import Worker, WorkerFailed
from lockgate.evals.scorers.judge import Ask, sources_of, unscored
from lockgate.evals.scorers.making import embeds_by
from lockgate.evals.scorers.sample import Mark, Sample, Scorer, as_text, input_text, skip

if TYPE_CHECKING:
    from lockgate.evals.embeddings import Embed


class Workers:
    """The workers of one evaluation, one a peer, each started when first asked."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._workers: dict[str, Worker] = {}

    def of(self, peer: str) -> Worker:
        if peer not in self._workers:
            self._workers[peer] = Worker(peer, command(peer, self._root, _configured(self._root)))
        return self._workers[peer]

    async def close(self) -> None:
        await asyncio.gather(*(worker.close() for worker in self._workers.values()))


_CURRENT: ContextVar[Workers | None] = ContextVar("lockgate_peer_workers", default=None)


@asynccontextmanager
async def running(metrics: Sequence[Metric], root: Path) -> AsyncIterator[dict[str, str]]:
    """Keep the workers that these metrics need, and check that each metric can be made there.

    Gives the version of each metric's package by the metric's name, for what its scores are kept under. Raises
    :class:`InputError` when a package is not there, or an option is wrong: before any trial is paid for.
    """
    wanted = [(metric, found) for metric in metrics if split(metric.scorer) and (found := metric_named(metric.scorer))]
    if not wanted:
        yield {}
        return
    workers = Workers(root)
    token = _CURRENT.set(workers)
    try:
        versions = {}
        for metric, found in wanted:
            if "embeddings" in found.needs and embeds_by(metric) is None:
                _check_embeddings(metric.name)
            worker = workers.of(found.peer)
            reply = await worker.ask(
                {"op": "check", **_named(found), "options": own_options(metric.options)}, _no_questions
            )
            if "error" in reply:
                raise InputError(f"metric {metric.name!r}: {reply['error']}", remedy=f"see {found.peer}'s own manual")
            versions[metric.name] = f"{found.peer} {worker.version}"
        yield versions
    finally:
        _CURRENT.reset(token)
        await workers.close()


def versioned(metrics: Sequence[Metric], versions: dict[str, str]) -> tuple[Metric, ...]:
    """The metrics, those of peers with their package's version: another version's scores are other scores."""
    return tuple(
        msgspec.structs.replace(metric, version=versions[metric.name]) if metric.name in versions else metric
        for metric in metrics
    )


def kind_named(name: str) -> Any:
    """The scorer of a peer's metric, as a :class:`~lockgate.evals.scorers.Kind`; None when it names no peer."""
    found = metric_named(name)
    if found is None:
        return None
    from lockgate.evals.scorers import Kind

    judged = "judge" in found.needs
    return Kind(
        _maker(found),
        needs=found.needs,
        family="peer",
        direction=found.direction,
        runs="judge" if judged else "process",
    )


def _maker(found: PeerMetric) -> Any:
    def make(
        *, ask: Ask | None = None, prompt: str | None = None, embed: Embed | None = None, **options: Any
    ) -> Scorer:
        """A metric of another tool, run by that tool itself."""

        async def score(sample: Sample) -> Mark:
            lacking = _lacking(found, sample)
            if lacking is not None:
                return lacking
            workers = _CURRENT.get()
            if workers is None:
                raise WorkerFailed(f"{found.peer}:{found.name} is scored only where an evaluation runs")
            desk = _Desk(ask, embed)
            request = {"op": "score", **_named(found), "options": own_options(options), "sample": payload(sample)}
            reply = await workers.of(found.peer).ask(request, desk.answer)
            return _mark(reply, desk.failure)

        return score

    return make


class _Desk:
    """Answers what a worker asks for one score: the judge's word, or embeddings, by default this machine's."""

    def __init__(self, ask: Ask | None, embed: Embed | None) -> None:
        self._ask = ask
        self._embed = embed
        self.failure: LockgateError | None = None

    async def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        try:
            if "embed" in question:
                from lockgate.evals.scorers.embedding import embedder

                vectors = await (self._embed or embedder(None, Path()))(question["texts"])
                return {"vectors": vectors.tolist()}
            if self._ask is None:
                raise InputError("the metric asked for a model, and was said to need none")
            reply = await self._ask(question["messages"], question.get("schema") or {})
        except LockgateError as failure:
            self.failure = failure
            return {"error": failure.message}
        return {"text": reply.text}


def _mark(reply: dict[str, Any], judge_failure: LockgateError | None) -> Mark:
    reason = str(reply.get("reason") or "")[:500]
    if judge_failure is not None:  # whatever the tool made of it: the judge's trouble is not the agent's
        return unscored(judge_failure.message)
    if "skip" in reply:
        return skip(str(reply["skip"]))
    if "unscored" in reply:
        return unscored(str(reply["unscored"])[:500])
    if "value" not in reply or reply["value"] is None:
        raise WorkerFailed(str(reply.get("error") or "no value")[:500])
    return Mark(float(reply["value"]), reason)


def own_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """A metric's options as its package is given them; those that a rubric's own words hide stand in ``options``.
    Who gives it embeddings is no option of its own."""
    found = {name: value for name, value in options.items() if name != "embeddings"}
    return found | dict(found.pop("options", None) or {})


def payload(sample: Sample) -> dict[str, Any]:
    """What a worker is told of a sample: plain JSON, under names of our own."""
    case, result = sample.case, sample.result
    messages = sample.input.get("messages") if isinstance(sample.input, dict) else None
    return {
        "input": input_text(sample.input),
        "messages": messages,
        "transcript": result.transcript or None,
        "output": as_text(sample.output),
        "tools_called": msgspec.to_builtins(result.tools_used),
        "contexts": sources_of(sample) or None,
        "expected": None if case is None or case.expected_output is None else _expected(case.expected_output),
        "expected_tools": None if case is None else case.expected_tools,
        "reference_contexts": None if case is None else case.reference_contexts,
        "metadata": {} if case is None else case.metadata,
        "seconds": result.seconds,
        "cost_usd": result.cost_usd,
    }


def _expected(value: Any) -> Any:
    return [as_text(one) for one in value] if isinstance(value, list) else as_text(value)


def _lacking(found: PeerMetric, sample: Sample) -> Mark | None:
    case = sample.case
    if "expected_output" in found.needs and (case is None or case.expected_output is None):
        return skip("the case has no expected_output")
    if "expected_tools" in found.needs and (case is None or case.expected_tools is None):
        return skip("the case has no expected_tools")
    if "contexts" in found.needs and not sources_of(sample):
        return unscored("there are no contexts, and no tool returned anything")
    return None


def _named(found: PeerMetric) -> dict[str, str]:
    return {"metric": found.name, "symbol": found.symbol}


def _configured(root: Path) -> dict[str, str]:
    """The project's own word on where peers are."""
    from lockgate.project.service import load_project

    if not (root / "lockgate.yaml").is_file():
        return {}
    return {str(name): place for name, place in load_project(root).config.peers.items()}


def _check_embeddings(name: str) -> None:
    from lockgate.evals.embeddings import check_installed

    try:
        check_installed()
    except InputError as missing:
        raise InputError(f"metric {name!r}: {missing.message}", remedy=missing.remedy) from None


async def _no_questions(question: dict[str, Any]) -> dict[str, Any]:
    return {"error": "nothing is asked while a metric is checked"}
