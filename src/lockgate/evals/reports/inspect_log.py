"""A log that Inspect reads (``.eval``): ``inspect view`` and its Python API open it. Written without its package."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lockgate.evals.model import Scorecard
from lockgate.evals.reports.cases import CaseView, TrialView, text_of
from lockgate.results import Usage

SHORT = 1000
"""Letters of a text in the list of samples."""


def write_log(path: Path, card: Scorecard, cases: Iterable[CaseView]) -> None:
    """One sample per case and trial (its epoch), one score per metric; sample by sample, so memory stays small."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metrics = [metric for metric in card.metrics if metric.mean is not None]
    summaries: list[dict[str, Any]] = []
    used, cost = Usage(), 0.0
    ids: list[str] = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as log:
        log.writestr("_journal/start.json", _encoded({"version": 2, "eval": _spec(card, []), "plan": _PLAN}))
        for one in cases:
            if one.trials:
                ids.append(one.case.id)
            for trial in one.trials:
                sample = _sample(card, one, trial)
                log.writestr(_member(one.case.id, trial.trial + 1), _encoded(sample))
                summaries.append(_summary(sample))
                used = used + trial.result.usage
                cost += trial.result.cost_usd
        log.writestr("summaries.json", _encoded(summaries))
        log.writestr(
            "header.json",
            _encoded(
                {
                    "version": 2,
                    "status": "success",
                    "eval": _spec(card, ids),
                    "plan": _PLAN,
                    "results": {
                        "total_samples": len(summaries),
                        "completed_samples": len(summaries),
                        "scores": [
                            {
                                "name": metric.name,
                                "scorer": metric.name,
                                "params": {},
                                "scored_samples": metric.scored,
                                "unscored_samples": metric.unscored + metric.skipped + metric.missing,
                                "metrics": {"mean": {"name": "mean", "value": metric.mean, "params": {}}},
                            }
                            for metric in metrics
                        ],
                        "metadata": {"lockgate_verdict": card.verdict, "lockgate_reasons": card.reasons},
                    },
                    "stats": {
                        "started_at": _time(card.started_at),
                        "completed_at": _time(card.started_at + card.seconds),
                        "model_usage": {_model(card): _usage(used, cost)},
                    },
                }
            ),
        )


_PLAN = {"name": "plan", "steps": [], "config": {}}


def _spec(card: Scorecard, ids: list[str]) -> dict[str, Any]:
    return {
        "eval_id": card.id,
        "run_id": card.id,
        "created": _time(card.started_at),
        "task": card.agent,
        "task_id": card.id,
        "task_version": 0,
        "task_attribs": {},
        "task_args": {},
        "dataset": {"name": card.dataset, "samples": len(ids), "sample_ids": ids, "shuffled": False},
        "model": _model(card),
        "model_args": {},
        "config": {"epochs": card.trials},
        "packages": {},
        "metadata": {
            "effective_digest": card.effective_digest,
            "dataset_digest": card.dataset_digest,
            "rubric_digest": card.rubric_digest,
            "verdict": card.verdict,
        },
    }


def _sample(card: Scorecard, one: CaseView, trial: TrialView) -> dict[str, Any]:
    case, result = one.case, trial.result
    answer = text_of(result.output)
    given = case.input
    messages = given["messages"] if isinstance(given, dict) and isinstance(given.get("messages"), list) else None
    asked: Any = (
        [{"role": message.get("role", "user"), "content": text_of(message.get("content"))} for message in messages]
        if messages
        else text_of(given)
    )
    turns = asked if isinstance(asked, list) else [{"role": "user", "content": asked}]
    sample: dict[str, Any] = {
        "id": case.id,
        "epoch": trial.trial + 1,
        "input": asked,
        "target": text_of(case.expected_output),
        "messages": [*turns, {"role": "assistant", "content": answer}],
        "output": {
            "model": _model(card),
            "choices": [{"message": {"role": "assistant", "content": answer}, "stop_reason": "stop"}],
            "time": result.seconds,
        },
        "scores": {
            name: {"value": value, "explanation": reason, "answer": answer[:1000]}
            for name, (value, status, reason) in trial.scores.items()
            if value is not None and status == "scored"
        },
        "metadata": {
            "tags": case.tags,
            "cluster": case.cluster,
            "cost_usd": result.cost_usd,
            "tools": [use.name for use in result.tools_used],
        },
        "store": {},
        "events": [],
        "model_usage": {_model(card): _usage(result.usage, result.cost_usd)},
        "total_time": result.seconds,
    }
    if result.error_type:
        message = f"{result.error_type}: {result.error or ''}"
        sample["error"] = {"message": message, "traceback": "", "traceback_ansi": ""}
    return sample


def _member(id: str, epoch: int) -> str:
    """The sample's place in the log, as Inspect looks for it; never a path that leads out of a folder."""
    if ".." in id or id.startswith("/") or not id.isprintable():
        id = f"case-{hashlib.sha256(id.encode('utf-8', 'replace')).hexdigest()[:16]}"
    return f"samples/{id}_epoch_{epoch}.json"


def _summary(sample: dict[str, Any]) -> dict[str, Any]:
    """What of a sample stands in the list of all; its texts cut, as Inspect cuts them."""
    kept = ("id", "epoch", "input", "target", "metadata", "model_usage", "total_time")
    found = {key: sample[key] for key in kept}
    found["scores"] = {
        name: {**one, "explanation": one["explanation"][:SHORT]} for name, one in sample["scores"].items()
    }
    found["completed"] = True
    if "error" in sample:
        found["error"] = sample["error"]["message"][:SHORT]
    return found


def _model(card: Scorecard) -> str:
    return f"lockgate/{card.label}"


def _usage(usage: Usage, cost_usd: float) -> dict[str, Any]:
    """Tokens in Inspect's words, where input is neither read from a cache nor written to one. ``total_cost`` is USD."""
    return {
        "input_tokens": usage.input_tokens - usage.cached_tokens - usage.cache_write_tokens,
        "input_tokens_cache_write": usage.cache_write_tokens,
        "input_tokens_cache_read": usage.cached_tokens,
        "output_tokens": usage.output_tokens,
        "reasoning_tokens": usage.reasoning_tokens,
        "total_tokens": usage.total_tokens,
        "total_cost": cost_usd,
    }


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _encoded(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, default=str).encode()
