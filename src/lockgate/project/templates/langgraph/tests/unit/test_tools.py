"""Tools are code: tested like code."""

from tools.stores import find_store


def test_a_store_is_found_by_its_city():
    assert find_store("When do you close in ghent?")["closes"] == "18:00"


def test_a_city_is_a_whole_word():
    assert find_store("Is Lillebonne near?") is None


def test_without_a_city_there_is_no_store():
    assert find_store("When do you close?") is None
