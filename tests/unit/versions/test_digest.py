"""Bytes that become digests."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lockgate.errors import InputError
from lockgate.versions.digest import canonical, effective_digest, nfc, ordered, tree_digest

_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53) + 1, 2**53 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.text(max_size=4), _values, max_size=5), st.randoms(use_true_random=False))
def test_canonical_json_does_not_depend_on_the_order_of_keys(value: dict[str, Any], random: Any) -> None:
    keys = list(value)
    random.shuffle(keys)
    assert canonical({key: value[key] for key in keys}) == canonical(value)


def test_canonical_json_is_rfc_8785() -> None:
    assert canonical({"b": [1e21, 0.1, 1.0, "é\n"], "a": None}) == '{"a":null,"b":[1e+21,0.1,1,"é\\n"]}'.encode()


@pytest.mark.parametrize("value", [float("nan"), 2**53])
def test_what_json_cannot_carry_exactly_is_refused(value: object) -> None:
    with pytest.raises(InputError):
        canonical({"a": value})


@given(_values)
def test_ordered_json_keeps_order_and_meaning(value: object) -> None:
    assert json.loads(ordered(value)) == value


def test_ordered_json_tells_orders_apart_and_writes_numbers_one_way() -> None:
    assert ordered({"b": 1.0, "a": 2}) == b'{"b":1,"a":2}' != ordered({"a": 2, "b": 1.0})


def test_paths_are_nfc_whatever_the_disk_keeps() -> None:
    apart = unicodedata.normalize("NFD", "prompts/café.md")
    assert nfc(apart) == "prompts/café.md" != apart
    assert tree_digest({apart: "x"}) == tree_digest({"prompts/café.md": "x"})


def test_an_effective_digest_changes_with_what_an_environment_resolves_and_not_with_its_name() -> None:
    provider = {"kind": "openai", "base_url": "http://a/v1", "weights": None}
    one = effective_digest("sha256:x", {"m": provider}, {})
    assert one == effective_digest("sha256:x", {"m": dict(reversed(provider.items()))}, {})
    others = [
        effective_digest("sha256:y", {"m": provider}, {}),
        effective_digest("sha256:x", {"m": {**provider, "base_url": "http://b/v1"}}, {}),
        effective_digest("sha256:x", {"m": provider}, {"temperature": 0}),
    ]
    assert len({one, *others}) == 4
