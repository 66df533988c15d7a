"""Candidates that a model proposes."""

from __future__ import annotations

import json
from typing import Any

from lockgate.evals.golden.draft import Source, draft
from lockgate.evals.model import Case
from lockgate.evals.scorers.judge import JudgeReply

ANSWER = "The lamp was sent on Monday."


async def test_a_candidate_from_a_run_knows_its_run_and_is_kept_at_once() -> None:
    async def ask(messages: Any, schema: Any) -> JudgeReply:
        return JudgeReply(
            text=json.dumps({"cases": [{"input": "Where is it?", "expected_output": "sent", "quote": ANSWER}]})
        )

    kept: list[Case] = []
    await draft(ask, [Source("run_1", ANSWER), Source("faq.md", ANSWER)], 1, kept.extend)
    assert [(case.source_run, case.cluster) for case in kept] == [("run_1", "run_1")]
