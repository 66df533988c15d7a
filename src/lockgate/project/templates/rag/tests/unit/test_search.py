"""Search is code: tested like code."""

import pytest
from tools.search import rank, search_policies, words

KB = "kb/policies@1"


def test_the_best_passage_comes_first():
    assert "9.95" in search_policies("What does express delivery cost?", KB)[0]["text"]


def test_another_form_of_a_word_finds_it():
    assert search_policies("returning", KB)[0]["source"] == "returns.md"


def test_nothing_is_found_for_what_no_document_mentions():
    assert search_policies("Is there a discount for students?", KB) == []


def test_no_more_passages_than_asked_for():
    assert len(search_policies("delivery warranty return", KB, limit=3)) == 3


def test_a_knowledge_base_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match="policies@0"):
        search_policies("return", "kb/policies@0")


def test_a_rare_word_counts_more_than_a_common_one():
    common, rare, neither = rank(words("card parcel"), [["card"], ["parcel"], ["card"]])
    assert rare > common == neither > 0
