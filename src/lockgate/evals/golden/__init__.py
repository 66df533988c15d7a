"""Golden sets: what is expected of an agent, as JSONL files of cases that people own and grow."""

from __future__ import annotations

from lockgate.evals.golden.jsonl import FEW, MANY, append_case, dataset_digest, parse_case, read_cases, warnings

__all__ = ["FEW", "MANY", "append_case", "dataset_digest", "parse_case", "read_cases", "warnings"]
