"""Golden sets: what is expected of an agent, as JSONL files of cases that people own and grow."""

from __future__ import annotations

from lockgate.evals.golden.jsonl import (
    FEW,
    MANY,
    append_case,
    append_cases,
    case_of,
    check_lines,
    dataset_digest,
    parse_case,
    read_cases,
    unreviewed,
    warnings,
    write_cases,
)
from lockgate.evals.golden.large import digest_of, open_cases, outlines

__all__ = [
    "FEW",
    "MANY",
    "append_case",
    "append_cases",
    "case_of",
    "check_lines",
    "dataset_digest",
    "digest_of",
    "open_cases",
    "outlines",
    "parse_case",
    "read_cases",
    "unreviewed",
    "warnings",
    "write_cases",
]
