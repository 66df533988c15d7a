"""Names that lead into a private network."""

from __future__ import annotations

import pytest

from lockgate.errors import InputError
from lockgate.gateway.names import MOST, Names

BOOK = {
    "public.example": ["93.184.215.14", "2606:2800:21f:cb07:6820:80da:af6b:8b2c"],
    "inside.example": ["93.184.215.14", "10.0.0.1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nowhere.example": [],
}


@pytest.mark.parametrize("name", ["inside.example", "mapped.example"])
async def test_a_name_that_also_leads_inside_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=name):
        await Names(BOOK.__getitem__).check({"public.example", name})


async def test_a_public_name_and_one_that_is_not_found_pass() -> None:
    await Names(BOOK.__getitem__).check({"public.example", "nowhere.example"})


async def test_a_name_is_looked_up_once_in_a_while() -> None:
    asked: list[str] = []

    def resolve(name: str) -> list[str]:
        asked.append(name)
        return BOOK[name]

    names = Names(resolve)
    for _ in range(3):
        with pytest.raises(InputError):
            await names.check({"inside.example"})
    assert asked == ["inside.example"]


async def test_a_request_does_not_have_a_crowd_of_names_looked_up() -> None:
    with pytest.raises(InputError, match="hosts"):
        await Names(lambda name: []).check({f"{number}.example" for number in range(MOST + 1)})
