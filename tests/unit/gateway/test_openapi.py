"""The OpenAPI document tells of the data plane too."""

from __future__ import annotations

from lockgate.gateway.openapi import data_plane
from lockgate.gateway.protocols.passages import DIALECTS


def test_every_protocol_is_in_it_with_what_is_read_of_it() -> None:
    paths = data_plane()
    for dialect in DIALECTS:
        content = paths[dialect.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "model" in content["required"], dialect.path
    assert {"/v1/models", "/v1/holds", "/api/v1/agents/{agent}/runs"} <= paths.keys()
