"""OpenAI's files, uploads and batches, as the fake model server has them. A batch ends with :meth:`FakeBatches.finish`.

https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.parser import BytesParser
from email.policy import HTTP
from itertools import count
from typing import Any, NamedTuple

from lockgate.testing.protocols import WIRES
from lockgate.testing.replies import ModelRequest, Reply, error_of

PATHS = ("/v1/files", "/v1/uploads", "/v1/batches")
ENDPOINTS = ("/v1/responses", "/v1/chat/completions", "/v1/embeddings", "/v1/completions")


class Answer(NamedTuple):
    """What goes back over HTTP."""

    status: int
    body: bytes
    content_type: str = "application/json"


class _Problem(Exception):
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class FakeBatches:
    """Files and batches of one account. ``answer`` gives a request's reply, as the server's paths would."""

    def __init__(self, answer: Callable[[ModelRequest], Reply]) -> None:
        self.files: dict[str, dict[str, Any]] = {}
        self.contents: dict[str, bytes] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.batches: dict[str, dict[str, Any]] = {}
        self.asked: list[tuple[str, str]] = []
        """Method and path of each request, oldest first."""
        self._answer = answer
        self._numbers = count(1)

    def serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Answer:
        """One request below :data:`PATHS`."""
        self.asked.append((method, path))
        try:
            found = self._serve(method, path, headers, body)
        except _Problem as problem:
            told = {"message": problem.message, "type": "invalid_request_error", "param": None, "code": None}
            return Answer(problem.status, json.dumps({"error": told}).encode())
        return found if isinstance(found, Answer) else Answer(200, json.dumps(found).encode())

    def finish(self, batch_id: str, status: str = "completed", *, only: int | None = None) -> None:
        """Answer the batch's requests (the first ``only`` of them), and give it this status."""
        batch = self.batches[batch_id]
        good: list[dict[str, Any]] = []
        bad: list[dict[str, Any]] = []
        lines = self.contents[batch["input_file_id"]].splitlines()
        for line in lines[:only]:
            asked = json.loads(line)
            request = ModelRequest(path=asked["url"], headers={}, body=asked["body"])
            reply = self._answer(request)
            failed = reply.status >= 400
            body = error_of(request, reply) if failed else WIRES[asked["url"]].answer(request, reply)
            response = {"status_code": reply.status, "request_id": f"req_{next(self._numbers)}", "body": body}
            (bad if failed else good).append(
                {"id": f"batch_req_{next(self._numbers)}", "custom_id": asked["custom_id"], "response": response,
                 "error": None}
            )  # fmt: skip
        for name, answers in (("output_file_id", good), ("error_file_id", bad)):
            if answers:
                content = b"".join(json.dumps(one).encode() + b"\n" for one in answers)
                batch[name] = self._keep(f"{batch_id}_{name[:6]}.jsonl", "batch_output", content)["id"]
        batch["request_counts"] = {"total": len(lines), "completed": len(good), "failed": len(bad)}
        batch["status"], batch[f"{status}_at"] = status, int(time.time())

    def _serve(self, method: str, path: str, headers: dict[str, str], body: bytes) -> Any:
        match method, path.removeprefix("/v1/").split("/"):
            case "POST", ["files"]:
                return self._upload(headers, body)
            case "GET", ["files"]:
                return {"object": "list", "data": list(self.files.values()), "has_more": False}
            case "GET", ["files", id]:
                return self._file(id)
            case "GET", ["files", id, "content"]:
                self._file(id)
                return Answer(200, self.contents[id], "application/octet-stream")
            case "DELETE", ["files", id]:
                self._file(id)
                del self.files[id], self.contents[id]
                return {"id": id, "object": "file", "deleted": True}
            case "POST", ["uploads"]:
                return self._begin(json.loads(body))
            case "POST", ["uploads", id, "parts"]:
                return self._add_part(self._open(id), headers, body)
            case "POST", ["uploads", id, "complete"]:
                return self._complete(self._open(id), json.loads(body).get("part_ids"))
            case "POST", ["uploads", id, "cancel"]:
                return {**self._open(id), "status": "cancelled"}
            case "POST", ["batches"]:
                return self._create(json.loads(body))
            case "GET", ["batches"]:
                return {"object": "list", "data": list(self.batches.values()), "has_more": False}
            case "GET", ["batches", id]:
                return self._batch(id)
            case "POST", ["batches", id, "cancel"]:
                batch = self._batch(id)
                batch["status"], batch["cancelling_at"] = "cancelling", int(time.time())
                return batch
            case _:
                raise _Problem(404, f"no {method} {path}")

    def _upload(self, headers: dict[str, str], body: bytes) -> dict[str, Any]:
        given = _having(_form(headers, body), "file", "purpose")
        content, purpose = (given[name].get_payload(decode=True) for name in ("file", "purpose"))
        assert isinstance(content, bytes)
        assert isinstance(purpose, bytes)
        return self._keep(given["file"].get_filename() or "upload", purpose.decode(), content)

    def _begin(self, asked: dict[str, Any]) -> dict[str, Any]:
        names = ("filename", "purpose", "bytes")
        given = {name: _having(asked, *names)[name] for name in names}
        id = f"upload_{next(self._numbers):04}"
        now = int(time.time())
        self.uploads[id] = {
            "id": id, "object": "upload", "created_at": now, "expires_at": now + 3600, "status": "pending", **given
        }  # fmt: skip
        return self.uploads[id]

    def _add_part(self, upload: dict[str, Any], headers: dict[str, str], body: bytes) -> dict[str, Any]:
        id = f"part_{next(self._numbers):04}"
        self.contents[id] = _having(_form(headers, body), "data")["data"].get_payload(decode=True)
        return {"id": id, "object": "upload.part", "created_at": int(time.time()), "upload_id": upload["id"]}

    def _complete(self, upload: dict[str, Any], part_ids: Any) -> dict[str, Any]:
        try:
            content = b"".join(self.contents[id] for id in part_ids)
        except (LookupError, TypeError):
            raise _Problem(400, "'part_ids' is no list of the upload's parts") from None
        if len(content) != upload["bytes"]:
            raise _Problem(400, f"{len(content)} bytes came, and {upload['bytes']} were told")
        file = self._keep(upload["filename"], upload["purpose"], content)
        self.uploads[upload["id"]]["status"] = "completed"
        return {**self.uploads[upload["id"]], "file": file}

    def _open(self, id: str) -> dict[str, Any]:
        if self.uploads.get(id, {}).get("status") != "pending":
            raise _Problem(404, f"no upload {id} is open")
        return self.uploads[id]

    def _keep(self, filename: str, purpose: str, content: bytes) -> dict[str, Any]:
        id = f"file-{next(self._numbers):04}"
        self.contents[id] = content
        self.files[id] = {
            "id": id, "object": "file", "bytes": len(content), "created_at": int(time.time()), "filename": filename,
            "purpose": purpose, "status": "processed", "status_details": None, "expires_at": None,
        }  # fmt: skip
        return self.files[id]

    def _create(self, asked: dict[str, Any]) -> dict[str, Any]:
        file = self._file(str(asked.get("input_file_id")))
        if file["purpose"] != "batch":
            raise _Problem(400, f"the purpose of {file['id']} is {file['purpose']!r}, not 'batch'")
        if asked.get("endpoint") not in ENDPOINTS or asked.get("completion_window") != "24h":
            raise _Problem(400, "a wrong endpoint or completion_window")
        id = f"batch_{next(self._numbers):04}"
        moments = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
        self.batches[id] = {
            "id": id, "object": "batch", "endpoint": asked["endpoint"], "errors": None,
            "input_file_id": file["id"], "completion_window": "24h", "status": "validating", "output_file_id": None,
            "error_file_id": None, "created_at": int(time.time()), "expires_at": int(time.time()) + 86400,
            "request_counts": {"total": 0, "completed": 0, "failed": 0}, "metadata": asked.get("metadata"),
            **{f"{moment}_at": None for moment in moments},
        }  # fmt: skip
        return self.batches[id]

    def _file(self, id: str) -> dict[str, Any]:
        if id not in self.files:
            raise _Problem(404, f"No such File object: {id}")
        return self.files[id]

    def _batch(self, id: str) -> dict[str, Any]:
        if id not in self.batches:
            raise _Problem(404, f"No batch found with id '{id}'.")
        return self.batches[id]


def _having(given: dict[Any, Any], *names: str) -> dict[Any, Any]:
    if missing := [name for name in names if name not in given]:
        raise _Problem(400, f"Missing required parameter: '{missing[0]}'.")
    return given


def _form(headers: dict[str, str], body: bytes) -> dict[Any, Any]:
    """A form's parts by name."""
    form = BytesParser(policy=HTTP).parsebytes(b"content-type: %s\r\n\r\n" % headers["content-type"].encode() + body)
    return {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}
