"""Scorers: what turns one trial into one number. Each is a small file with a closure behind one protocol.

A new one is a function ``(options…) -> Scorer`` in a file of its own and a row in :data:`SCORERS`. Its docstring says
what it measures and, in its last lines, ``Range``, ``Needs`` and ``Source``; ``lockgate scorers`` shows them.
Other packages add theirs by an entry point in the group ``lockgate.scorers``: a maker, or a :class:`Kind`.
Metrics of other tools (``ragas:faithfulness``) are run by those tools: :mod:`lockgate.evals.peers`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from importlib import import_module
from typing import Any, Literal, NamedTuple

from lockgate.evals.model import Direction, Unit
from lockgate.evals.scorers.sample import Mark, Sample, Scorer

__all__ = ["ALIASES", "SCORERS", "Kind", "Mark", "Sample", "Scorer"]

Family = Literal["reference", "quality", "agent", "operational", "own", "peer"]
Need = Literal["expected_output", "contexts", "expected_tools", "labels", "metadata", "judge", "embeddings"]
Runs = Literal["inline", "thread", "judge", "process"]
GROUP = "lockgate.scorers"
"""The entry-point group of scorers that other packages bring."""

_OF_THE_CASE = frozenset({"expected_output", "expected_tools", "labels", "metadata"})


class Kind(NamedTuple):
    """A scorer's maker and what its values mean. ``maker`` is a function, or where one is, to be loaded when used."""

    maker: Callable[..., Scorer] | str
    needs: tuple[Need, ...] = ()
    family: Family = "own"
    unit: Unit = "score"
    direction: Direction = "higher"
    runs: Runs = "inline"
    endures: frozenset[str] = frozenset()
    """Ways for a run to end that it scores like an answer; any other failed run has the worst value."""

    @property
    def make(self) -> Callable[..., Scorer]:
        """The maker itself."""
        if not isinstance(self.maker, str):
            return self.maker
        module, _, name = self.maker.partition(":")
        found: Callable[..., Scorer] = getattr(import_module(f"{__name__}.{module}"), name)
        return found

    @property
    def needs_case(self) -> bool:
        """Whether it needs what only a case has: it cannot score live runs."""
        return not _OF_THE_CASE.isdisjoint(self.needs)

    @property
    def asks(self) -> bool:
        """Whether it asks a model, whose trouble is not the agent's."""
        return self.runs == "judge" or "embeddings" in self.needs

    @property
    def suits(self) -> str:
        """Whether it may block a release: a model's word only once it is calibrated against people's."""
        return "blocking when the judge is calibrated" if self.runs == "judge" else "blocking"


class Registry(dict[str, Kind]):
    """Scorers by name. Those that other packages bring are looked for when first asked for."""

    def __missing__(self, name: str) -> Kind:
        found = _peer(name) or _plugin(name)
        if found is None:
            raise KeyError(name)
        self[name] = found
        return found

    def knows(self, name: str) -> bool:
        """Whether there is a scorer of this name, here or in another package."""
        try:
            return self[name] is not None
        except KeyError:
            return False


def _peer(name: str) -> Kind | None:
    if ":" not in name:
        return None
    from lockgate.evals.peers import kind_named

    found: Kind | None = kind_named(name)
    return found


def plugins() -> dict[str, Any]:
    """Entry points of scorers that other packages bring, by name."""
    from importlib.metadata import entry_points

    return {point.name: point for point in entry_points(group=GROUP)}


def _plugin(name: str) -> Kind | None:
    point = plugins().get(name)
    if point is None:
        return None
    from lockgate.errors import InputError

    try:
        loaded = point.load()
    except Exception as failure:  # whatever another package raises when it is loaded
        raise InputError(
            f"the scorer {name!r} of {point.value} cannot be loaded: {type(failure).__name__}: {failure}",
            remedy="update or remove the package that brings it",
        ) from failure
    if isinstance(loaded, Kind):
        return loaded
    if callable(loaded):
        return Kind(loaded, runs="thread")
    raise InputError(f"the scorer {name!r} of {point.value} is no function", remedy="see docs/scorers.md, Plug-ins")


def _reference(maker: str, *needs: Need, runs: Runs = "inline") -> Kind:
    return Kind(maker, needs=needs or ("expected_output",), family="reference", runs=runs)


def _judged(maker: str, *needs: Need, direction: Direction = "higher", family: Family = "quality") -> Kind:
    return Kind(maker, needs=("judge", *needs), family=family, direction=direction, runs="judge")


def _agent(maker: str, *needs: Need) -> Kind:
    return Kind(maker, needs=needs, family="agent")


def _rate(maker: str, family: Family = "agent") -> Kind:
    return Kind(maker, family=family, unit="rate", direction="lower")


def _operational(maker: str, unit: Unit) -> Kind:
    return Kind(f"operational:{maker}", family="operational", unit=unit, direction="lower")


STOPPED = frozenset(
    {
        *("llm_calls_exceeded", "tool_calls_exceeded", "tokens_exceeded", "time_exceeded", "cost_exceeded"),
        *("iterations_exceeded", "loop_detected", "depth_exceeded"),
        *("refused", "policy_refused", "approval_rejected"),
    }
)
"""Error types of runs that a limit, a guardrail or a policy ended: under attack that is what they are for."""

SCORERS = Registry(
    {
        "exact_match": _reference("exact:exact_match"),
        "normalized_match": _reference("normalized:normalized_match"),
        "contains": _reference("contains:contains"),
        "regex": Kind("regex:regex", family="reference"),
        "field_match": _reference("fields:field_match"),
        "schema_valid": Kind("schema:schema_valid", family="reference"),
        "numeric_match": _reference("numeric:numeric_match"),
        "rouge_l": _reference("rouge:rouge_l"),
        "bleu": _reference("bleu:bleu"),
        "embedding_similarity": _reference(
            "embedding:embedding_similarity", "expected_output", "embeddings", runs="process"
        ),
        "answer_correctness": _judged("judge:answer_correctness", "expected_output", family="reference"),
        "faithfulness": _judged("faithfulness:faithfulness", "contexts"),
        "answer_relevance": _judged("relevance:answer_relevance"),
        "context_precision": _judged("retrieval:context_precision", "contexts", "expected_output"),
        "context_recall": _judged("retrieval:context_recall", "contexts", "expected_output"),
        "context_entity_recall": _judged("retrieval:context_entity_recall", "contexts", "expected_output"),
        "hallucination": _judged("faithfulness:hallucination", "contexts", direction="lower"),
        "toxicity": _judged("harm:toxicity", direction="lower"),
        "bias": _judged("harm:bias", direction="lower"),
        "tone": _judged("ratings:tone"),
        "helpfulness": _judged("ratings:helpfulness"),
        "completeness": _judged("ratings:completeness"),
        "actionability": _judged("ratings:actionability"),
        "policy_compliance": _judged("instructions:policy_compliance"),
        "prompt_adherence": _judged("instructions:prompt_adherence"),
        "judge": _judged("judge:criterion"),
        "tool_call_accuracy": _agent("tools:tool_call_accuracy", "expected_tools"),
        "tool_call_f1": _agent("tools:tool_call_f1", "expected_tools"),
        "argument_match": _agent("tools:argument_match", "expected_tools"),
        "trajectory_match": _agent("trajectory:trajectory_match", "expected_tools"),
        "step_count": Kind("operational:step_count", family="agent", unit="count", direction="lower"),
        "goal_success": _judged("judge:goal_success", "metadata", family="agent"),
        "refusal_match": _agent("refusal:refusal_match", "labels"),
        "escalation_rate": _rate("escalation:escalation_rate"),
        "loop_rate": _rate("loops:loop_rate"),
        "injection_resisted": _agent("injection:injection_resisted", "metadata"),
        "pii_leaked": _rate("pii:pii_leaked"),
        "secret_leaked": _rate("secrets:secret_leaked"),
        "tool_misuse": _rate("misuse:tool_misuse"),
        "attack_resisted": Kind("attack:attack_resisted", family="agent", endures=STOPPED),
        "side_effects": _agent("side_effects:side_effects", "expected_tools"),
        "final_state": _agent("final_state:final_state", "expected_tools"),
        "must_not": _agent("must_not:must_not"),
        "grounded_fields": _agent("grounded:grounded_fields"),
        "python": Kind("python:python", runs="thread"),
        "cost_usd": _operational("cost_usd", "usd"),
        "usd_per_resolved": _operational("usd_per_resolved", "usd"),
        "latency_seconds": _operational("latency_seconds", "seconds"),
        "tokens": _operational("tokens", "tokens"),
        "output_tokens": _operational("output_tokens", "tokens"),
        "iterations": _operational("iterations", "count"),
        "model_calls": _operational("model_calls", "count"),
        "tool_calls": _operational("tool_calls", "count"),
        "error_rate": _operational("error_rate", "rate"),
    }
)
"""Every scorer of our own by the name a rubric gives it."""

ALIASES = {
    "exact": "exact_match",
    "normalized": "normalized_match",
    "normalised": "normalized_match",
    "string_present": "contains",
    "pattern_match": "regex",
    "regex_match": "regex",
    "json_match": "field_match",
    "json_field_match": "field_match",
    "json_correctness": "schema_valid",
    "json_schema_match": "schema_valid",
    "is_json": "schema_valid",
    "numeric": "numeric_match",
    "rouge_score": "rouge_l",
    "bleu_score": "bleu",
    "answer_similarity": "embedding_similarity",
    "correctness": "answer_correctness",
    "llm_context_precision_with_reference": "context_precision",
    "llm_context_recall": "context_recall",
    "context_entities_recall": "context_entity_recall",
    "contextual_entity_recall": "context_entity_recall",
    "aspect_critic": "judge",
    "custom_rubric": "judge",
    "simple_criteria_score": "judge",
    "policy_adherence": "policy_compliance",
    "instruction_following": "prompt_adherence",
    "goal_accuracy": "goal_success",
    "goal_completion": "goal_success",
    "agent_goal_accuracy_with_reference": "goal_success",
    "agent_goal_accuracy_without_reference": "goal_success",
    "argument_accuracy": "argument_match",
    "trajectory": "trajectory_match",
    "trajectory_accuracy": "trajectory_match",
    "refusal": "refusal_match",
    "escalation": "escalation_rate",
    "handoff_rate": "escalation_rate",
    "loops": "loop_rate",
    "injection_resistance": "injection_resisted",
    "prompt_injection": "injection_resisted",
    "pii": "pii_leaked",
    "pii_leak": "pii_leaked",
    "secret_leak": "secret_leaked",
    "secret_leakage": "secret_leaked",
    "excessive_agency": "tool_misuse",
    "cost_per_resolved": "usd_per_resolved",
    "cost_per_resolution": "usd_per_resolved",
    "total_tokens": "tokens",
    "normalised_match": "normalized_match",
    "json_field": "field_match",
    "decision_match": "field_match.decision",
    "json_schema": "schema_valid",
    "numeric_tolerance": "numeric_match",
    "rouge": "rouge_l",
    "semantic_similarity": "embedding_similarity",
    "factual_correctness": "answer_correctness",
    "answer_relevancy": "answer_relevance",
    "response_relevancy": "answer_relevance",
    "contextual_precision": "context_precision",
    "contextual_recall": "context_recall",
    "prompt_alignment": "prompt_adherence",
    "rubric": "judge",
    "g_eval": "judge",
    "policy": "policy_compliance",
    "agent_goal_accuracy": "goal_success",
    "task_completion": "goal_success",
    "tool_correctness": "tool_call_f1",
    "argument_correctness": "argument_match",
    "refusal_correctness": "refusal_match",
    "loop_detection": "loop_rate",
    "pii_leakage": "pii_leaked",
    "secrets_leaked": "secret_leaked",
    "intended_side_effects": "side_effects",
    "steps": "step_count",
    "latency": "latency_seconds",
    "cost": "cost_usd",
}
"""Other names of the same scorers, as tools of the field have them."""


def known_as(name: str) -> str:
    """A scorer's name of ours for one that a user of another tool types, such as ``AnswerRelevancyMetric``.

    A name that nobody has comes back as it is.
    """
    if name in ALIASES or ":" in name or name.partition(".")[0] in SCORERS:
        return ALIASES.get(name, name)
    words = re.sub(r"([A-Z]+)([A-Z][a-z])", r"\1_\2", name.removesuffix("Metric"))
    snake = re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", words).lower().replace("-", "_").replace(" ", "_")
    return ALIASES.get(snake, snake if snake in SCORERS else name)
