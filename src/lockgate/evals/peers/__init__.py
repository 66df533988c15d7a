"""Metrics of other tools as scorers: ``ragas:faithfulness``, ``deepeval:g_eval``, ``promptfoo:contains-json``,
``inspect:match``.

Their packages are heavy and exclude one another, so each runs in a worker process of its own environment, one an
evaluation, that speaks JSON lines. A worker has no keys and no configured model: when a metric needs a model, its
question comes back over the pipe and is put to the evaluation's own judge, held and accounted like every other.
"""

from __future__ import annotations

from lockgate.evals.peers.catalogue import PEERS, metric_named, split
from lockgate.evals.peers.scorer import kind_named, running, versioned
from lockgate.evals.peers.worker import WorkerFailed

__all__ = ["PEERS", "WorkerFailed", "kind_named", "metric_named", "running", "split", "versioned"]
