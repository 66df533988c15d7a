"""The agent on a scripted model: pytest tests/integration --mock-llm"""


def test_a_refund_is_proposed_and_not_paid_without_a_person(lockgate_agent, mock_llm):
    with mock_llm(responses=[{"order": "44120", "wants": "refund"}]):
        result = lockgate_agent().run("The kettle from order 44120 leaks. I want my money back.")
    assert result.status == "completed"
    assert [use.name for use in result.tools_used] == ["read_orders", "issue_refund"]
    assert result.output["decision"] == "approve"


def test_nonsense_from_the_model_is_a_recorded_failure(lockgate_agent, mock_llm):
    with mock_llm(responses=["I am a teapot"] * 5):
        result = lockgate_agent().run("hello")
    assert result.status == "failed"
