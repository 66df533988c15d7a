"""Which metrics of the peers can be named in a rubric, and what each needs. A new one is a row here."""

from __future__ import annotations

from difflib import get_close_matches
from typing import Literal, NamedTuple

from lockgate.errors import InputError
from lockgate.evals.model import Direction

Peer = Literal["ragas", "deepeval", "promptfoo", "inspect"]
Needs = Literal["expected_output", "contexts", "expected_tools", "metadata", "judge", "embeddings"]


class PeerMetric(NamedTuple):
    """One metric: ``symbol`` is what its package calls it, ``needs`` what it cannot do without (a judge, for
    :data:`ASSERTIONS`, only where one of the cases' asks one)."""

    peer: Peer
    name: str
    symbol: str
    needs: tuple[Needs, ...] = ()
    direction: Direction = "higher"
    note: str = ""


class PeerPackage(NamedTuple):
    """One peer: what it is, and its metrics by the name a rubric gives them after the colon."""

    title: str
    metrics: dict[str, PeerMetric]


EXPECTED: tuple[Needs, ...] = ("expected_output",)
JUDGED: tuple[Needs, ...] = ("judge",)


def _ragas() -> dict[str, PeerMetric]:
    rows: list[tuple[str, str, tuple[Needs, ...]]] = [
        ("exact_match", "ExactMatch", EXPECTED),
        ("string_presence", "StringPresence", EXPECTED),
        ("non_llm_string_similarity", "NonLLMStringSimilarity", EXPECTED),
        ("bleu_score", "BleuScore", EXPECTED),
        ("rouge_score", "RougeScore", EXPECTED),
        ("chrf_score", "CHRFScore", EXPECTED),
        ("tool_call_accuracy", "ToolCallAccuracy", ("expected_tools",)),
        ("tool_call_f1", "ToolCallF1", ("expected_tools",)),
        ("semantic_similarity", "SemanticSimilarity", ("expected_output", "embeddings")),
        ("faithfulness", "Faithfulness", ("judge", "contexts")),
        ("response_groundedness", "ResponseGroundedness", ("judge", "contexts")),
        ("context_relevance", "ContextRelevance", ("judge", "contexts")),
        ("context_utilization", "ContextUtilization", ("judge", "contexts")),
        ("context_precision", "ContextPrecisionWithReference", ("judge", "contexts", "expected_output")),
        ("context_precision_without_reference", "ContextPrecisionWithoutReference", ("judge", "contexts")),
        ("context_recall", "ContextRecall", ("judge", "contexts", "expected_output")),
        ("context_entity_recall", "ContextEntityRecall", ("judge", "contexts", "expected_output")),
        ("answer_accuracy", "AnswerAccuracy", ("judge", "expected_output")),
        ("factual_correctness", "FactualCorrectness", ("judge", "expected_output")),
        ("answer_relevancy", "AnswerRelevancy", ("judge", "embeddings")),
        ("answer_correctness", "AnswerCorrectness", ("judge", "expected_output", "embeddings")),
        ("summary_score", "SummaryScore", ("judge", "contexts")),
        ("agent_goal_accuracy", "AgentGoalAccuracyWithReference", ("judge", "expected_output")),
        ("agent_goal_accuracy_without_reference", "AgentGoalAccuracyWithoutReference", JUDGED),
        ("topic_adherence", "TopicAdherence", JUDGED),
    ]
    found = {name: PeerMetric("ragas", name, symbol, needs) for name, symbol, needs in rows}
    noise: tuple[Needs, ...] = ("judge", "contexts", "expected_output")
    found["noise_sensitivity"] = PeerMetric("ragas", "noise_sensitivity", "NoiseSensitivity", noise, "lower")
    return found


def _deepeval() -> dict[str, PeerMetric]:
    rows: list[tuple[str, str, tuple[Needs, ...]]] = [
        ("exact_match", "ExactMatchMetric", EXPECTED),
        ("pattern_match", "PatternMatchMetric", ()),
        ("tool_correctness", "ToolCorrectnessMetric", ("expected_tools",)),
        ("tool_permission", "ToolPermissionMetric", ()),
        ("answer_relevancy", "AnswerRelevancyMetric", JUDGED),
        ("faithfulness", "FaithfulnessMetric", ("judge", "contexts")),
        ("contextual_precision", "ContextualPrecisionMetric", ("judge", "contexts", "expected_output")),
        ("contextual_recall", "ContextualRecallMetric", ("judge", "contexts", "expected_output")),
        ("contextual_relevancy", "ContextualRelevancyMetric", ("judge", "contexts")),
        ("hallucination", "HallucinationMetric", ("judge", "contexts")),
        ("bias", "BiasMetric", JUDGED),
        ("toxicity", "ToxicityMetric", JUDGED),
        ("pii_leakage", "PIILeakageMetric", JUDGED),
        ("role_violation", "RoleViolationMetric", JUDGED),
        ("misuse", "MisuseMetric", JUDGED),
        ("non_advice", "NonAdviceMetric", JUDGED),
        ("summarization", "SummarizationMetric", JUDGED),
        ("prompt_alignment", "PromptAlignmentMetric", JUDGED),
        ("task_completion", "TaskCompletionMetric", JUDGED),
        ("argument_correctness", "ArgumentCorrectnessMetric", JUDGED),
        ("g_eval", "GEval", JUDGED),
    ]
    return {name: PeerMetric("deepeval", name, symbol, needs) for name, symbol, needs in rows}


ASSERTIONS = "promptfoo:assertions"
"""Holds an answer against the case's own assertions, of which some may ask a model."""
_PLAIN = (
    "equals",
    "contains",
    "icontains",
    "contains-any",
    "contains-all",
    "icontains-any",
    "icontains-all",
    "starts-with",
    "regex",
    "is-json",
    "contains-json",
    "is-html",
    "contains-html",
    "is-sql",
    "contains-sql",
    "is-xml",
    "contains-xml",
    "is-valid-openai-tools-call",
    "is-valid-function-call",
    "javascript",
    "levenshtein",
    "rouge-n",
    "bleu",
    "gleu",
    "meteor",
    "is-refusal",
    "word-count",
    "latency",
    "cost",
)
_RUN_BY_NONE = ("python", "ruby", "webhook")


def asks_model(assertions: object) -> bool:
    """Whether one of a case's own promptfoo assertions, or of a set among them, asks a model for its opinion."""
    return isinstance(assertions, list) and any(
        asks_model(one.get("assert"))
        if one.get("type") == "assert-set"
        else str(one.get("type")).removeprefix("not-") not in (*_PLAIN, *_RUN_BY_NONE, "similar")
        for one in assertions
        if isinstance(one, dict)
    )


def _promptfoo() -> dict[str, PeerMetric]:
    judged = [
        "llm-rubric",
        "model-graded-closedqa",
        "factuality",
        "g-eval",
        "context-recall",
        "context-relevance",
        "context-faithfulness",
    ]
    found = {name: PeerMetric("promptfoo", name, name) for name in _PLAIN}
    found |= {name: PeerMetric("promptfoo", name, name, JUDGED) for name in judged}
    found["similar"] = PeerMetric("promptfoo", "similar", "similar", ("embeddings",))
    found["answer-relevance"] = PeerMetric("promptfoo", "answer-relevance", "answer-relevance", ("judge", "embeddings"))
    for name, metric in list(found.items()):
        found[f"not-{name}"] = metric._replace(name=f"not-{name}", symbol=f"not-{name}")
    found["assertions"] = PeerMetric("promptfoo", "assertions", "assertions", ("judge", "metadata"))
    return found


def _inspect() -> dict[str, PeerMetric]:
    found = {name: PeerMetric("inspect", name, name, EXPECTED) for name in ("match", "includes", "exact", "f1", "math")}
    found["pattern"] = PeerMetric("inspect", "pattern", "pattern", EXPECTED)
    found["answer"] = PeerMetric("inspect", "answer", "answer", EXPECTED)
    for name in ("model_graded_qa", "model_graded_fact"):
        found[name] = PeerMetric("inspect", name, name, ("judge", "expected_output"))
    return found


PEERS: dict[str, PeerPackage] = {
    "ragas": PeerPackage("RAGAS metrics (ragas 0.4 or newer: `ragas.metrics.collections`)", _ragas()),
    "deepeval": PeerPackage("DeepEval metrics (deepeval 4 or newer: higher is better in all of them)", _deepeval()),
    "promptfoo": PeerPackage("promptfoo assertions, each also as `not-…`", _promptfoo()),
    "inspect": PeerPackage("Inspect scorers (inspect-ai)", _inspect()),
}


def split(name: str) -> tuple[str, str] | None:
    """``ragas:faithfulness`` → its two parts; None when it names no peer."""
    peer, colon, metric = name.partition(":")
    return (peer, metric) if colon and peer in PEERS else None


def metric_named(name: str) -> PeerMetric | None:
    """The metric of a peer by its full name; None when it names no peer at all.

    Raises :class:`InputError` when the peer has no such metric.
    """
    parts = split(name)
    if parts is None:
        return None
    peer, metric = parts
    known = PEERS[peer].metrics
    if metric not in known:
        close = get_close_matches(metric, known, n=1)
        raise InputError(
            f"no metric {metric!r} of {peer} that Lockgate can run",
            remedy=f"did you mean {peer}:{close[0]}?" if close else f"known: {', '.join(known)}",
        )
    return known[metric]
