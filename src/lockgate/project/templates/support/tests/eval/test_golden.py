"""Golden cases as tests, on the configured model: pytest tests/eval --real-llm"""

import json
from pathlib import Path

import pytest

CASES = [json.loads(line) for line in Path("evals/golden/__AGENT__.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_the_run_completes_with_an_answer(case, lockgate_agent, request):
    if not request.config.getoption("--real-llm"):
        pytest.skip("needs --real-llm; the gate over all cases is `lockgate eval`")
    result = lockgate_agent().run(case["input"])
    assert result.status == "completed"
    assert set(case["expected_output"]) <= set(result.output)
