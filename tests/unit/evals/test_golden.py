"""Golden sets are read strictly and appended to gently."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import Conflict, InputError
from lockgate.evals.golden import append_case, dataset_digest, parse_case, read_cases, warnings
from lockgate.evals.model import Case


def parse(**fields: Any) -> Case:
    return parse_case(json.dumps(fields).encode(), path="g.jsonl", line=1)


def test_the_playbooks_names_and_ragas_columns_are_read_as_they_are() -> None:
    playbook = parse(question="Can I return it?", answer="Yes.")
    assert (playbook.input, playbook.expected_output) == ("Can I return it?", "Yes.")
    ragas = parse(
        user_input="q", reference="a", retrieved_contexts=["c"], response="said", reference_tool_calls=[{"name": "t"}]
    )
    assert (ragas.input, ragas.expected_output, ragas.contexts) == ("q", "a", ["c"])
    assert ragas.expected_tools == [{"name": "t"}]
    assert ragas.metadata == {"response": "said"}  # what a system once answered is not what is expected


def test_a_conversation_is_an_input() -> None:
    messages = [{"role": "user", "content": "hello"}]
    assert parse(user_input=messages).input == {"messages": messages}


def test_a_case_without_an_id_gets_the_same_one_every_time() -> None:
    assert parse(input="x").id == parse(question="x", answer="y").id != parse(input="y").id


def test_empty_columns_are_absent() -> None:
    assert parse(id="a", input="x", contexts=None, cluster=None) == Case(id="a", input="x")


@pytest.mark.parametrize(
    ("line", "said", "remedy"),
    [
        ('{"id": "a", "input": ', "not valid JSON at column", "one JSON object a line"),
        ('["a"]', "a list instead of an object", "write"),
        ('{"id": "a"}', "no 'input' (there is 'id')", "add `input`"),
        ('{"id": "a", "input": ""}', "'input' is ''", "give text"),
        ('{"id": "a", "input": "x", "expcted_output": "y"}', "unknown key 'expcted_output'", "'expected_output'"),
        ('{"id": "a", "input": "x", "colour": "y"}', "unknown key 'colour'", "metadata"),
        ('{"id": "a", "input": "x", "question": "y"}', "'question' means 'input'", "keep one"),
        ('{"id": "a", "input": "x", "id": "b"}', "the key 'id' stands twice", "correct"),
        ('{"id": "a", "input": "x", "weight": NaN}', "NaN is not JSON", "correct"),
        ('{"id": "a", "input": "x", "weight": 0}', "'weight' is 0.0", "positive"),
        ('{"id": "a", "input": "x", "tags": [1]}', "tags[0] is [1]", "correct"),
        ('{"id": "a", "input": "x", "must_not": "no"}', "must_not is 'no'", "correct"),
        ('{"id": "a", "input": "x", "must_not": ["re:("]}', "'must_not' has 're:('", "correct"),
        ('{"id": "a", "input": "x", "expected_tools": [3]}', "'expected_tools' has 3", "names"),
        ('{"id": " ", "input": "x"}', "'id' is ' '", "name"),
        ('{"id": "a", "input": "x", "metadata": {"fixtures": [{"tol": "t"}]}}', "unknown field `tol`", "tool"),
        ('{"id": "a", "input": "x", "metadata": {"simulation": {"user": {"goat": "g"}}}}', "simulation: ", "goal"),
    ],
)
def test_a_wrong_line_is_named_with_file_line_value_and_remedy(
    tmp_path: Path, line: str, said: str, remedy: str
) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"id": "first", "input": "x"}\n\n' + line + "\n")
    with pytest.raises(InputError) as wrong:
        read_cases(file, shown_as="evals/golden.jsonl")
    assert wrong.value.message.startswith("evals/golden.jsonl:3: ")
    assert said in wrong.value.message
    assert remedy in (wrong.value.remedy or "")


def test_bytes_that_are_no_text_are_named(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b'{"id": "a", "input": "\xff"}\n')
    with pytest.raises(InputError, match="0xff is not UTF-8"):
        read_cases(file)


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text('{"id": "a", "input": "x"}\n{"id": "b", "input": "x"}\n{"id": "a", "input": "z"}\n')
    with pytest.raises(InputError, match=r"golden\.jsonl:3: the id 'a' stands twice, first on line 1"):
        read_cases(file)


@pytest.mark.parametrize("content", ["", "\n \n"])
def test_a_golden_set_without_cases_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_text(content)
    with pytest.raises(InputError, match="no cases"):
        read_cases(file)


def test_windows_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    file.write_bytes(b'\xef\xbb\xbf{"id": "a", "input": "x"}\r\n{"id": "b", "input": "y"}\r\n')
    assert [case.id for case in read_cases(file)] == ["a", "b"]


def test_fewer_than_forty_cases_are_warned_of() -> None:
    cases = [Case(id=str(number), input="x") for number in range(40)]
    assert warnings(cases) == []
    assert "39 cases" in warnings(cases[1:])[0]


def test_the_dataset_digest_is_of_what_the_cases_say_not_how_they_are_written() -> None:
    one, two = parse(id="a", question="x", answer="y"), parse(answer="y", id="a", input="x")
    other = parse(id="b", input="x")
    assert dataset_digest([one, other]) == dataset_digest([other, two])
    assert dataset_digest([one]) != dataset_digest([parse(id="a", input="x", answer="z")])


def test_an_added_case_leaves_the_rest_of_the_file_byte_for_byte(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    old = b'{ "id":"a",  "question": "x" }\r\n\n{"id": "b", "input": "\xc3\xa9"}'
    file.write_bytes(old)
    append_case(file, Case(id="new", input="z", expected_output={"decision": "deny"}, tags=["triage"]))
    assert file.read_bytes().startswith(old + b"\n")
    assert read_cases(file)[-1].expected_output == {"decision": "deny"}
    assert [path.name for path in tmp_path.iterdir()] == ["golden.jsonl"]


def test_a_case_whose_id_is_there_is_not_added(tmp_path: Path) -> None:
    file = tmp_path / "golden.jsonl"
    append_case(file, Case(id="a", input="x"))
    before = file.read_bytes()
    with pytest.raises(Conflict, match="has a case 'a' already"):
        append_case(file, Case(id="a", input="other"))
    assert file.read_bytes() == before


def test_a_new_label_changes_what_answers_are_held_against_but_not_what_is_run() -> None:
    old, new = Case(id="a", input="x", expected_output="y"), Case(id="a", input="x", expected_output="z", tags=["t"])
    assert old.digest == new.digest
    assert old.expectation_digest != new.expectation_digest
    assert old.digest != Case(id="a", input="x2").digest


texts = st.text(min_size=1).filter(lambda text: text.strip() != "")


@given(texts, texts, st.lists(texts, max_size=3), st.floats(0.01, 100))
def test_a_case_survives_being_written_and_read(id: str, text: str, tags: list[str], weight: float) -> None:
    import msgspec

    case = Case(id=id, input=text, expected_output={"a": [1, None, text]}, tags=tags, weight=weight)
    assert parse_case(msgspec.json.encode(case), path="g", line=1) == case


@given(st.binary(max_size=60))
def test_any_bytes_are_a_case_or_a_named_error(line: bytes) -> None:
    said = ""
    try:
        parse_case(line, path="g.jsonl", line=7)
    except InputError as wrong:
        said = wrong.message
    assert said == "" or said.startswith("g.jsonl:7: ")
