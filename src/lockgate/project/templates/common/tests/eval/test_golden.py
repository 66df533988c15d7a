"""Golden cases as tests. `pytest tests/eval --real-llm` asks the configured model and keeps its answers as cassettes.

How good the answers are is for the gate to say: `lockgate eval`.
"""

from pathlib import Path

import pytest
from lockgate.evals.golden import read_cases

GOLDEN = Path(__file__).parents[2] / "evals/golden/__AGENT__.jsonl"


@pytest.mark.parametrize("case", read_cases(GOLDEN), ids=lambda case: case.id)
def test_the_run_completes(case, lockgate_agent, request):
    if request.config.getoption("--mock-llm"):
        pytest.skip("about real answers")
    assert lockgate_agent().run(case.input).status == "completed"
