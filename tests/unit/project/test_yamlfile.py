"""Files in, data or one good error out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import Field

from lockgate.errors import InputError
from lockgate.project.model import Strict
from lockgate.project.yamlfile import MAX_YAML_BYTES, parse_yaml, read_json, read_text, read_yaml, validate


class Wheel(Strict):
    size: float
    kind: str = "round"


class Cart(Strict):
    name: str
    wheels: list[Wheel] = Field(default=[])
    spare: str | Wheel | None = None
    speed: int = Field(default=1, gt=0)


def problem(text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        validate(parse_yaml(text, "cart.yaml"), Cart)
    return caught.value


def test_good_data_becomes_the_model() -> None:
    cart = validate(parse_yaml("name: c\nwheels: [{size: 2}]\nspare: {size: 1.5}\n", "cart.yaml"), Cart)
    assert (cart.wheels[0].size, cart.spare) == (2.0, Wheel(size=1.5))


@pytest.mark.parametrize(
    ("text", "line", "message", "remedy"),
    [
        ("name: c\nspede: 2\n", 2, "unknown key 'spede'", "did you mean 'speed'?"),
        ("nmae: c\n", 1, "unknown key 'nmae'", "did you mean 'name'?"),
        ("wheels: []\n", 1, "the key 'name' is missing (it has 'wheels')", "add `name: …`"),
        ("name: c\nwheels:\n  - size: 1\n    sise: 2\n", 4, "unknown key 'sise' in wheels[0]", "'size'"),
        ("name: c\nwheels:\n  - {kind: x}\n", 3, "'size' is missing in wheels[0]", "add `size: …`"),
        ("name: 3\n", 1, "name is 3, not text", 'put it in quotes: "3"'),
        ("name: c\nspeed: fast\n", 2, "speed is 'fast', not a whole number", "without quotes"),
        ("name: c\nspeed: 0\n", 2, "speed is 0: Input should be greater than 0", "must satisfy"),
        ("name: c\nspeed: true\n", 2, "speed is True, not a whole number", ""),
        ("name: c\nwheels: {size: 1}\n", 2, "not a list", "give a list"),
        ("name: c\nspare: {size: big}\n", 2, "spare.size is 'big', not a number", ""),
        ("- name\n", 1, "not a mapping", ""),
    ],
)
def test_bad_data_is_one_error_with_line_value_and_remedy(text: str, line: int, message: str, remedy: str) -> None:
    wrong = problem(text)
    assert (wrong.path, wrong.line) == ("cart.yaml", line)
    assert message in wrong.message
    assert remedy in (wrong.remedy or "")


def test_several_problems_are_counted_and_the_first_is_told() -> None:
    assert "(and 1 more to correct)" in problem("name: c\nspede: 2\nweels: 3\n").message


def test_text_is_the_same_whatever_editor_wrote_it(tmp_path: Path) -> None:
    for number, raw in enumerate((b"a\nb\n", b"a\r\nb\r\n", b"a\rb\r", b"\xef\xbb\xbfa\nb\n")):
        path = tmp_path / str(number)
        path.write_bytes(raw)
        assert read_text(path) == "a\nb\n"


def test_bytes_that_are_not_utf8_are_named_with_their_line(tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(InputError, match=r"x.yaml:2: byte 0xff"):
        read_yaml(tmp_path / "x.yaml")


def test_what_is_no_ordinary_file_of_sensible_size_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with open(tmp_path / "huge.yaml", "wb") as file:
        file.truncate(MAX_YAML_BYTES + 1)
    for name, words in (
        ("pipe", "not a regular file"),
        ("huge.yaml", "more than such a file may have"),
        ("gone.yaml", "no such file"),
        (".", "cannot be read"),
    ):
        with pytest.raises(InputError, match=words):
            read_yaml(tmp_path / name)


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ('{\n"a": 1,\n"a": 2}', 3, "'a' stands twice"),
        ('{"a":\n NaN}', 2, "NaN is not JSON"),
        ('{"a": 1,\n}', 2, "not valid JSON"),
        ('{"a": 1,\n"b": "\\ud800"}', 2, "half a Unicode character"),
        ("[" * 5000, 1, "too deep"),
        ("[" * 100 + "]" * 100, 1, "too deep"),
    ],
)
def test_bad_json_is_an_error_with_its_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_json(tmp_path / "x.json", shown_as="x.json")
    assert caught.value.line == line


def test_json_keeps_the_order_of_its_keys(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"z": 1, "a": {"y": 1, "b": 2}}')
    data = read_json(tmp_path / "x.json")
    assert (list(data), list(data["a"])) == (["z", "a"], ["y", "b"])
