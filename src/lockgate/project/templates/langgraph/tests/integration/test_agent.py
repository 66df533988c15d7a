"""The graph on a scripted model: pytest tests/integration --mock-llm"""


def test_the_model_is_told_what_is_known_of_the_store(lockgate_agent, mock_llm):
    with mock_llm(responses=[{"answer": "We close at 18:00."}]) as llm:
        result = lockgate_agent().run("When do you close in Ghent?")
    assert result.status == "completed"
    assert result.output == {"answer": "We close at 18:00.", "store": "Ghent"}
    assert [use.name for use in result.tools_used] == ["find_store"]
    assert any('"closes": "18:00"' in message["content"] for message in llm.requests[0].messages)


def test_without_a_store_the_graph_asks_back_and_no_model_is_needed(lockgate_agent, mock_llm):
    with mock_llm(responses=[]) as llm:
        result = lockgate_agent().run("When do you close?")
    assert result.output["answer"].startswith("Which of our stores")
    assert llm.requests == []


def test_a_model_that_fails_is_a_recorded_failure(lockgate_agent, mock_llm):
    with mock_llm(responses=[]):
        result = lockgate_agent().run("When do you close in Ghent?")
    assert (result.status, result.error_type) == ("failed", "model_error")
