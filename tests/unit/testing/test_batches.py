"""Files and batches of the fake model server: what OpenAI would refuse is refused, in its words' shape."""

from __future__ import annotations

import json

import pytest

from lockgate.testing import Reply
from lockgate.testing.batches import FakeBatches

FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/files", b"--b--\r\n"),
        ("/v1/uploads", b"{}"),
        ("/v1/uploads/upload_0001/parts", b"--b--\r\n"),
        ("/v1/uploads/upload_0001/complete", b"{}"),
        ("/v1/uploads/upload_0001/complete", b'{"part_ids": ["part_9"]}'),
        ("/v1/uploads/upload_0001/complete", b'{"part_ids": [[]]}'),
        ("/v1/uploads/upload_0001/complete", b'{"part_ids": []}'),
        ("/v1/batches", b'{"input_file_id": "file-1", "endpoint": [], "completion_window": {}}'),
    ],
)
def test_a_request_that_misses_something_is_refused_and_not_left_without_an_answer(path: str, body: bytes) -> None:
    fake = FakeBatches(lambda _: Reply())
    fake.serve("POST", "/v1/uploads", {}, b'{"filename": "a", "purpose": "user_data", "bytes": 7}')
    answer = fake.serve("POST", path, FORM, body)
    assert (answer.status // 100, json.loads(answer.body)["error"]["type"]) == (4, "invalid_request_error")
