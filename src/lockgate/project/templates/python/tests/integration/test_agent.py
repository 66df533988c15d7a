"""The agent on a scripted model: pytest tests/integration --mock-llm"""


def test_a_message_goes_to_the_team_of_its_topic(lockgate_agent, mock_llm):
    with mock_llm(responses=[{"topic": "delivery"}]) as llm:
        result = lockgate_agent().run("Where is my parcel?")
    assert result.status == "completed"
    assert result.output == {"topic": "delivery", "team": "logistics"}
    assert [use.name for use in result.tools_used] == ["find_team"]
    assert llm.requests[0].last_user == "Where is my parcel?"


def test_nonsense_from_the_model_goes_to_the_front_desk(lockgate_agent, mock_llm):
    with mock_llm(responses=["I am a teapot"]):
        result = lockgate_agent().run("hello")
    assert result.output == {"topic": "other", "team": "front-desk"}


def test_a_model_that_fails_is_a_recorded_failure(lockgate_agent, mock_llm):
    with mock_llm(responses=[]):
        result = lockgate_agent().run("hello")
    assert (result.status, result.error_type) == ("failed", "model_error")
