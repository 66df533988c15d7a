"""YAML 1.2, core schema: one meaning on every machine, and a line for everything."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.project.yamlcore import MAX_DEPTH, parse


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("no", "no"),
        ("on", "on"),
        ("2026-05-21", "2026-05-21"),
        ("12:30:45", "12:30:45"),
        ("1_000", "1_000"),
        ("1e3", 1000.0),
        ("-.5", -0.5),
        ("010", 10),
        ("0o17", 15),
        ("0x1F", 31),
        ("+7", 7),
        ("true", True),
        ("False", False),
        ("~", None),
        ("Null", None),
        ("'1'", "1"),
        ('"true"', "true"),
        ("!!str 1", "1"),
        ("!!float 3", 3.0),
        ("!!int 3", 3),
        ("<<", "<<"),
    ],
)
def test_plain_values_mean_what_the_core_schema_says(written: str, meant: object) -> None:
    value = parse(f"key: {written}\n", "f.yaml")[0]["key"]
    assert (value, type(value)) == (meant, type(meant))


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "'a' stands twice, first on line 1"),
        ("a: {b: 1, b: 2}\n", 1, "'b' stands twice"),
        ("a: 1\n---\nb: 2\n", 2, "second YAML document"),
        ("", 1, "empty"),
        ("# only a comment\n", 1, "empty"),
        ("a: 1\n2: b\n", 2, "key 2 is not text"),
        ("? [a]\n: b\n", 1, "not text"),
        ("a: 1\nb: !!python/object:os.system x\n", 2, "tag"),
        ("a: !!int x\n", 1, "tag '!!int'"),
        ("a: !custom {b: 1}\n", 1, "tag '!custom'"),
        ("a: .nan\n", 1, ".nan is not a finite number"),
        ("a: -.inf\n", 1, "not a finite number"),
        ("a: 1e999\n", 1, "too large"),
        ("a: 9007199254740992\n", 1, "too large"),
        ('a: "\\ud800"\n', 1, "half a Unicode character"),
        ("a: 1\nb: *nowhere\n", 2, "no anchor 'nowhere'"),
        ("a: [1,\n", None, "not valid YAML"),
        ("a: b: c\n", 1, "'a: b: c'"),
        ("a: \x00\n", None, "not valid YAML"),
        ("a: " + "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), 1, "too deep"),
    ],
)
def test_what_would_be_lost_or_misread_is_an_error_with_its_line(text: str, line: int | None, words: str) -> None:
    with pytest.raises(InputError) as caught:
        parse(text, "f.yaml")
    assert words in caught.value.message
    assert caught.value.message.startswith("f.yaml")
    assert line is None or caught.value.line == line


def test_every_key_and_item_has_its_line() -> None:
    _, lines = parse("a:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n", "f.yaml")
    assert {("a",): 1, ("a", "b"): 2, ("a", "c"): 3, ("a", "c", 0): 4, ("a", "c", 1, "d"): 5}.items() <= lines.items()


def test_an_alias_repeats_its_anchor_and_a_bomb_of_them_is_refused() -> None:
    assert parse("a: &x {k: 1}\nb: *x\n", "f.yaml")[0]["b"] == {"k": 1}
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    with pytest.raises(InputError, match="aliases"):
        parse(bomb, "f.yaml")


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    # JSON may hold characters that YAML never may, and ruamel folds line ends inside quotes
    | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text("abcdefg", min_size=1, max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(_json)
def test_json_is_read_as_json_reads_it(value: object) -> None:
    assert parse(json.dumps({"v": value}), "f.yaml")[0] == {"v": value}
