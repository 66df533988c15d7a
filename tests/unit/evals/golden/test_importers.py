"""Golden sets of other tools become cases, all of them or none."""

from __future__ import annotations

import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from lockgate.errors import InputError
from lockgate.evals.golden.importers import import_cases
from lockgate.evals.model import Case
from lockgate.evals.simulation.model import UserScript, simulation_of

TAU2 = Path(__file__).parents[5] / "shared/data/tau2-retail/tasks.json"


def imported(folder: Path, name: str, content: Any, **options: Any) -> list[Case]:
    text = content if isinstance(content, str) else json.dumps(content, indent=1)
    (folder / name).write_text(text)
    return import_cases(folder / name, **options).cases


def test_a_table_with_other_column_names_is_mapped_and_keeps_the_rest(tmp_path: Path) -> None:
    text = 'utterance,gold,tags,colour\n"Hello,\nthere",hi,a;b,red\nBye,,"c, d",\n'
    first, second = imported(tmp_path, "t.csv", text, columns={"utterance": "input", "gold": "expected_output"})
    assert (first.input, first.expected_output, first.tags) == ("Hello,\nthere", "hi", ["a", "b"])
    assert first.metadata == {"colour": "red"}
    assert (second.input, second.expected_output, second.tags) == ("Bye", None, ["c", "d"])


@pytest.mark.parametrize(
    ("name", "text", "line", "said"),
    [
        ("t.csv", 'input,answer\n"a\nb",x\nc\n', 4, "1 cells"),
        ("t.csv", "id,utterance\n1,a\n", 2, "no column is the input; there is 'id', 'utterance'"),
        ("t.csv", "input,input\na,b\n", 1, "'input' stands twice"),
        ("t.jsonl", '{"input": "a"}\n' * 0 + "".join(f'{{"input": "{n}"}}\n' for n in range(40)) + '{"inp', 41, "JSON"),
        ("t.json", '[\n{"input": "a"},\n{"input": }]', 3, "not valid JSON"),
        ("t.json", '[\n{"id": 1, "input": "a"},\n{"id": 1, "input": "b"}]', 3, "'1' stands twice, first on line 2"),
        ("t.json", '[\n{"input": "a"},\n{"input": "b", "weight": -1}]', 3, "'weight' is -1"),
        ("t.json", "[]", None, "no records"),
        ("t.json", "3", 1, "neither a list nor an object"),
        ("p.yaml", "tests:\n- vars: {q: a}\n- vars: {x: 1, y: 2}\n", 3, "which variable"),
        ("l.eval", "not a zip", None, "not an Inspect log"),
    ],
)
def test_what_is_broken_names_file_line_and_remedy(
    tmp_path: Path, name: str, text: str, line: int | None, said: str
) -> None:
    with pytest.raises(InputError) as wrong:
        imported(tmp_path, name, text)
    assert wrong.value.line == line
    assert said in wrong.value.message
    assert str(tmp_path / name) in wrong.value.message
    assert wrong.value.remedy


def test_ragas_answers_are_what_a_system_said(tmp_path: Path) -> None:
    old = {"question": "q", "answer": "said", "ground_truth": "right", "contexts": ["c"]}
    (case,) = imported(tmp_path, "r.json", [old])
    assert (case.expected_output, case.contexts, case.metadata) == ("right", ["c"], {"response": "said"})


def test_a_ragas_conversation_ends_with_the_user(tmp_path: Path) -> None:
    sample = {
        "user_input": [
            {"type": "human", "content": "weather?"},
            {"type": "ai", "content": "where?"},
            {"type": "human", "content": "Paris"},
            {"type": "ai", "content": "sunny"},
        ],
        "reference_tool_calls": [{"name": "weather", "args": {"city": "Paris"}}],
    }
    (case,) = imported(tmp_path, "r.jsonl", sample if False else json.dumps(sample))
    assert [message["role"] for message in case.input["messages"]] == ["user", "assistant", "user"]
    assert case.expected_tools == [{"name": "weather", "arguments": {"city": "Paris"}}]
    assert case.metadata["response"] == [{"role": "assistant", "content": "sunny"}]


def test_pandas_lists_in_a_csv_are_read(tmp_path: Path) -> None:
    text = 'user_input,reference,retrieved_contexts\nq,a,"[\'one\', ""it\'s""]"\n'
    (case,) = imported(tmp_path, "r.csv", text)
    assert case.contexts == ["one", "it's"]


def test_deepeval_goldens(tmp_path: Path) -> None:
    golden = {
        "input": "q",
        "actual_output": "said",
        "expected_output": "right",
        "retrieval_context": ["got"],
        "context": ["truth"],
        "expected_tools": [{"name": "look", "input_parameters": {"id": 1}}],
        "name": None,
        "additional_metadata": {"k": "v"},
    }
    talk = {"scenario": "wants a refund", "expected_outcome": "is refused", "user_description": "angry", "turns": None}
    case, conversation = imported(tmp_path, "d.json", [golden, talk])
    assert (case.expected_output, case.contexts, case.reference_contexts) == ("right", ["got"], ["truth"])
    assert case.expected_tools == [{"name": "look", "arguments": {"id": 1}}]
    assert case.metadata == {"additional_metadata": {"k": "v"}, "response": "said"}
    simulation = simulation_of(conversation)
    assert simulation is not None
    assert simulation.user == UserScript(goal="wants a refund", persona="angry")


PROMPTFOO = """\
prompts: ["Translate {{text}} to {{language}}"]
defaultTest:
  assert: [{type: not-contains, value: "As an AI"}]
assertionTemplates:
  short: {type: javascript, value: "output.length < 99"}
tests:
  - description: greeting
    vars: {text: hello, language: [French, German]}
    assert:
      - {type: equals, value: "{{text}} in {{language}}"}
      - {$ref: "#/assertionTemplates/short"}
  - vars: {text: bye}
  - file://more.csv
scenarios:
  - config: [{vars: {text: one}}]
    tests: [{vars: {language: Dutch}, assert: [{type: not-regex, value: "\\\\d"}]}]
"""


def test_promptfoo_tests_with_their_assertions(tmp_path: Path) -> None:
    (tmp_path / "more.csv").write_text("text,__expected\nthree,contains: drei\nfour,vier\n")
    cases = imported(tmp_path, "promptfooconfig.yaml", PROMPTFOO)
    assert [case.input for case in cases] == ["hello", "hello", "bye", "three", "four", "one"]
    first, second, bye, three, four, one = cases
    assert (first.id, second.id) == ("greeting #1", "greeting #2")
    assert second.expected_output == "hello in German"
    assert bye.must_not == ["As an AI"]
    assert [check["type"] for check in first.metadata["assert"]] == ["not-contains", "equals", "javascript"]
    assert three.metadata["assert"][-1] == {"type": "contains", "value": "drei"}
    assert four.expected_output == "vier"
    assert one.must_not == ["As an AI", "re:\\d"]


def test_the_only_prompt_is_filled_in_when_no_variable_is_the_message(tmp_path: Path) -> None:
    text = 'prompts: ["{{a}} and {{ b }}"]\ntests:\n- vars: {a: x, b: y}\n'
    assert imported(tmp_path, "p.yaml", text)[0].input == "x and y"
    assert imported(tmp_path, "p.yaml", text, input_var="b")[0].input == "y"


def test_inspect_samples_and_choices(tmp_path: Path) -> None:
    samples = [{"id": 1, "input": "Pick", "choices": ["x", "y"], "target": "B", "metadata": {"m": 1}}]
    (case,) = imported(tmp_path, "s.json", samples)
    assert case.id == "1"
    assert case.input == "Pick\n\nA) x\nB) y"
    assert case.expected_output == "B"


def test_an_inspect_log_gives_each_sample_once(tmp_path: Path) -> None:
    path = tmp_path / "log.eval"
    with zipfile.ZipFile(path, "w") as log:
        log.writestr("header.json", "{}")
        for epoch in (1, 2):
            sample = {
                "id": "a",
                "epoch": epoch,
                "input": [{"role": "user", "content": "hi"}],
                "target": ["yes"],
                "output": {"completion": "no"},
                "scores": {"match": {"value": "I"}},
            }
            log.writestr(f"samples/a_epoch_{epoch}.json", json.dumps(sample))
    (case,) = import_cases(path).cases
    assert case.input == {"messages": [{"role": "user", "content": "hi"}]}
    assert case.expected_output == "yes"
    assert case.metadata == {"response": "no", "scores": {"match": "I"}}


@pytest.mark.skipif(not TAU2.exists(), reason=f"left out: {TAU2} is not here")
def test_tau2_retail_becomes_114_cases_with_their_calls_customers_and_splits() -> None:
    found = import_cases(TAU2)
    assert found.format == "tau2"
    assert len(found.cases) == 114
    assert {case.split for case in found.cases} == {"train", "test"}
    assert len({case.cluster for case in found.cases if case.cluster}) > 20
    first = found.cases[0]
    assert first.expected_tools is not None
    assert first.expected_tools[-1]["name"] == "exchange_delivered_order_items"
    simulations = [simulation_of(case) for case in found.cases]  # each can be driven
    assert simulations[0] is not None
    assert simulations[0].user is not None
    assert "Yusuf Rossi" in simulations[0].user.known


def test_deepevals_other_spelling_is_read_and_no_column_is_lost(tmp_path: Path) -> None:
    row = {
        "input": "refund A-2",
        "expectedOutput": "no",
        "retrievalContext": ["policy"],
        "expectedTools": [{"name": "look_up", "inputParameters": {"id": "A-2"}}],
        "reviewer": "ana",
        "toolsCalled": None,
    }
    file = tmp_path / "goldens.json"
    file.write_text(json.dumps([row]))
    found = import_cases(file)
    [case] = found.cases
    assert found.format == "deepeval"
    assert (case.expected_output, case.contexts) == ("no", ["policy"])
    assert case.expected_tools == [{"name": "look_up", "arguments": {"id": "A-2"}}]
    assert case.metadata == {"reviewer": "ana"}


def test_an_inspect_log_of_today_is_compressed_with_zstandard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import zstandard

    file = tmp_path / "run.eval"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as log:
        for epoch in (1, 2):
            sample = {"id": "s1", "epoch": epoch, "input": "1+1?", "target": "2"}
            packed = zstandard.ZstdCompressor().compress(json.dumps(sample).encode())
            log.writestr(f"samples/s1_epoch_{epoch}.json", packed)
    raw = bytearray(file.read_bytes())
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):  # where a ZIP's headers say how it is compressed
        at = raw.find(mark)
        while at >= 0:
            raw[at + offset : at + offset + 2] = (93).to_bytes(2, "little")
            at = raw.find(mark, at + 4)
    file.write_bytes(raw)
    [case] = import_cases(file).cases
    assert (case.id, case.expected_output) == ("s1", "2")
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(InputError, match="Zstandard") as refused:
        import_cases(file)
    assert "lockgate[inspect]" in (refused.value.remedy or "")
