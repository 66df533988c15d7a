"""The OpenAPI document tells of the data plane too."""

from __future__ import annotations

from typing import Any

import pytest
from openai import types
from openai.types import uploads
from pydantic import BaseModel

from lockgate.gateway.openapi import data_plane
from lockgate.gateway.protocols.passages import DIALECTS


def test_every_protocol_is_in_it_with_what_is_read_of_it() -> None:
    paths = data_plane()
    for dialect in DIALECTS:
        content = paths[dialect.path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert "model" in content["required"], dialect.path
    assert {"/v1/models", "/v1/holds", "/api/v1/agents/{agent}/runs"} <= paths.keys()


@pytest.mark.parametrize(
    ("path", "method", "taken", "given"),
    [
        ("/v1/files", "post", types.FileCreateParams, types.FileObject),
        ("/v1/files/{file_id}", "delete", None, types.FileDeleted),
        ("/v1/uploads", "post", types.UploadCreateParams, types.Upload),
        ("/v1/uploads/{upload_id}/parts", "post", uploads.PartCreateParams, uploads.UploadPart),
        ("/v1/uploads/{upload_id}/complete", "post", types.UploadCompleteParams, types.Upload),
        ("/v1/batches", "post", types.BatchCreateParams, types.Batch),
    ],
)
def test_files_and_batches_have_the_shapes_of_openais_client(
    path: str, method: str, taken: Any, given: type[BaseModel]
) -> None:
    operation = data_plane()[path][method]
    told = operation["responses"]["200"]["content"]["application/json"]["schema"]["properties"]
    needed = {name for name, field in given.model_fields.items() if field.is_required()}
    assert needed <= told.keys() <= given.model_fields.keys()
    if taken is not None:
        (content,) = operation["requestBody"]["content"].values()
        asked = content["schema"]
        assert asked["properties"].keys() == taken.__annotations__.keys()
        assert set(asked["required"]) == {
            name for name, kind in taken.__annotations__.items() if "Required[" in kind.__forward_arg__
        }


@pytest.mark.parametrize(
    ("path", "params"), [("/v1/files", types.FileListParams), ("/v1/batches", types.BatchListParams)]
)
def test_lists_of_files_and_batches_are_asked_for_as_openais_client_does(path: str, params: Any) -> None:
    assert {one["name"] for one in data_plane()[path]["get"]["parameters"]} == params.__annotations__.keys()
