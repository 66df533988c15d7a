"""Names of people and places, by spaCy: the extra ``pii``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest

from lockgate.gateway.guardrails.entities import Entities
from lockgate.gateway.guardrails.windows import Window, redacted
from lockgate.testing import FakeModelServer
from lockgate.versions.model import Guardrails

if TYPE_CHECKING:
    from conftest import RunningGateway

pytestmark = pytest.mark.integration_only

TEXT = "Alice Miller from Berlin met Mr. Stone in London last week."


def test_people_and_places_are_found() -> None:
    assert redacted(TEXT, [Entities(("person",))])[0] == "[PERSON] from Berlin met Mr. [PERSON] in London last week."
    assert "Berlin" not in redacted(TEXT, [Entities(("place",))])[0]


def test_a_growing_text_waits_to_its_end() -> None:
    window = Window([Entities(("person",))])
    assert "".join(window.feed(letter) for letter in TEXT) == ""
    assert "Alice" not in window.finish()


def test_the_model_does_not_see_them(gateway: RunningGateway, model: FakeModelServer) -> None:
    guard = {"guard": "pii", "action": "redact", "kinds": ["email", "person"]}
    gateway.version = msgspec.structs.replace(gateway.version, guardrails=Guardrails(input=(guard,)))
    assert gateway.ask(gateway.run_token(), "I am Alice Miller, alice@example.com, and my parcel is late.")[0] == 200
    sent = str(model.requests[0].body)
    assert "[PERSON]" in sent
    assert "[EMAIL]" in sent
    assert "Miller" not in sent
