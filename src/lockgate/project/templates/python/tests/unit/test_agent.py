"""What the agent's code does by itself, without a model."""

import pytest
from app.agent import TOPICS, conversation, topic_in
from tools.teams import find_team


def test_text_becomes_a_conversation():
    assert conversation("hello") == [{"role": "user", "content": "hello"}]


def test_a_conversation_stays_one():
    messages = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    assert conversation({"messages": messages}) == messages


def test_the_topic_is_read():
    assert topic_in('{"topic": "billing"}') == "billing"


@pytest.mark.parametrize("answer", ["I am a teapot", '{"topic": "teapots"}', '{"subject": "billing"}', "[]"])
def test_what_is_no_topic_goes_to_the_front_desk(answer):
    assert topic_in(answer) == "other"


def test_every_topic_has_a_team():
    assert all(find_team(topic)["team"] for topic in TOPICS)
