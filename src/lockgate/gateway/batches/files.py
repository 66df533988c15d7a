"""``/v1/files``: a tenant's own, each at the provider that it was uploaded to."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from lockgate.errors import Conflict, InputError, LockgateError, NotFound, Unavailable, UpstreamError
from lockgate.gateway.batches import store
from lockgate.gateway.batches.asking import MAX_ANSWER, Asking, Reply, pass_on
from lockgate.gateway.batches.desk import Desk, parameters, whole_number
from lockgate.gateway.batches.guarding import AnswerLines, error_line
from lockgate.gateway.batches.store import File
from lockgate.gateway.batches.upload import Upload
from lockgate.gateway.calls.stream import passed_headers
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.upstream import Answer

MAX_LISTED = 10_000


class Files:
    """The handlers. ``desk`` says who may do what."""

    def __init__(self, desk: Desk, asking: Asking) -> None:
        self._desk = desk
        self._asking = asking

    async def upload(self, exchange: Exchange, who: Identity) -> None:
        """``POST /v1/files``: passed through as it comes. A batch's lines are checked and counted on the way."""
        desk = self._desk
        desk.check_keeping(who)
        guard = desk.request_lines(who)
        upload = Upload(exchange, who.environment, self._asking, desk.checks(who), guard)
        try:
            await self._upload(exchange, who, upload)
        finally:
            if guard is not None and guard.requests:
                desk.note(exchange, who, "batch input", guard)

    async def _upload(self, exchange: Exchange, who: Identity, upload: Upload) -> None:
        desk = self._desk
        await upload.begin()
        desk.permit(who, f"{upload.provider}/")
        target = await self._asking.target(who.environment, upload.provider)
        await desk.check_writes()
        try:
            with exchange.watch():
                reply = await self._asking.ask(
                    "POST", target, "/files", body=upload.parts(), content_type=upload.content_type
                )
        except UpstreamError:
            if upload.error is not None:
                raise upload.error from None
            raise
        told = reply.object
        if upload.error is not None and isinstance(upload.error, LockgateError):
            raise upload.error
        if told.get("id"):
            counted = None if upload.counted is None else msgspec.to_builtins(upload.counted)
            file = File(
                environment=who.environment,
                provider=upload.provider,
                id=str(told["id"]),
                tenant=who.tenant,
                key_id=who.key_id,
                created_at=desk.clock(),
                purpose=upload.purpose or "",
                object=told,
                counted=counted,
            )
            try:
                await desk.write(store.keep_file, file)
            except Unavailable:
                await self._asking.undo("DELETE", target, f"/files/{file.id}")
                raise
        pass_on(exchange, target, reply)

    async def list(self, exchange: Exchange, who: Identity) -> None:
        """``GET /v1/files``: from what is known here, so that nobody sees another's."""
        given = parameters(exchange)
        limit = whole_number(given, "limit", MAX_LISTED, MAX_LISTED)
        order = given.get("order", "desc")
        if order not in ("asc", "desc"):
            raise InputError(f"'order' is {order[:40]!r}", remedy="send asc or desc")
        page = await self._desk.read(
            store.list_files, who,
            purpose=given.get("purpose"), after=given.get("after"), limit=limit, ascending=order == "asc",
        )  # fmt: skip
        exchange.respond_json(200, listed([file.object for file in page], limit))

    async def retrieve(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``GET /v1/files/{id}``."""
        file = await self._find(who, id)
        target = await self._asking.target(file.environment, file.provider)
        reply = await self._asking.ask("GET", target, f"/files/{file.id}")
        if reply.object:
            await self._desk.write(store.see_file, file, reply.object)
        pass_on(exchange, target, reply)

    async def content(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``GET /v1/files/{id}/content``: as it comes. A batch's answers are checked on the way."""
        file = await self._find(who, id)
        guard = await self._desk.answer_lines(file)
        target = await self._asking.target(file.environment, file.provider)
        with exchange.watch():
            answer = await self._asking.open("GET", target, f"/files/{file.id}/content", stream=True)
            try:
                if answer.status != 200:
                    body = await answer.read(MAX_ANSWER)
                    pass_on(exchange, target, Reply(answer.status, passed_headers(answer), body))
                    return
                headers = passed_headers(answer)
                named = answer.header("content-disposition")
                if named is not None:
                    headers.append(("content-disposition", named))
                exchange.stream(200, headers)
                if guard is None:
                    while chunk := await answer.piece():
                        await exchange.send(chunk)
                else:
                    await self._send_checked(exchange, answer, guard)
            finally:
                answer.close()
                if guard is not None:
                    self._desk.note(exchange, who, "batch output", guard, **{"lockgate.batch.id": file.batch_id})

    async def _send_checked(self, exchange: Exchange, answer: Answer, guard: AnswerLines) -> None:
        try:
            while chunk := await answer.piece():
                if checked := await asyncio.to_thread(guard.feed, chunk):  # it takes long: other calls go on
                    await exchange.send(checked)
            rest = await asyncio.to_thread(guard.finish)
        except LockgateError as broken:  # the status has gone out: the last line says why the file is not whole
            await exchange.send(error_line(broken, {}))
            raise
        if rest:
            await exchange.send(rest)

    async def delete(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``DELETE /v1/files/{id}``; not what a batch made before its cost was read from it."""
        file = await self._find(who, id)
        batch = await self._desk.read(store.open_batch_of, file)
        if batch is not None:
            raise Conflict(
                f"what the batch {batch!r} cost is not known yet, and stands in this file",
                remedy="delete it when the batch is settled, which takes moments after its end",
            )
        target = await self._asking.target(file.environment, file.provider)
        reply = await self._asking.ask("DELETE", target, f"/files/{file.id}")
        if reply.status in (200, 204, 404):
            await self._desk.write(store.forget_file, file)
        if reply.status == 204:  # as Azure's earlier versions answer
            exchange.respond_json(200, {"id": file.id, "object": "file", "deleted": True})
        else:
            pass_on(exchange, target, reply)

    async def _find(self, who: Identity, id: str) -> File:
        found: File | None = await self._desk.read(store.find_file, who, id)
        if found is None:
            raise NotFound(f"no file {id!r}", remedy="GET /v1/files lists this tenant's, as uploaded through here")
        self._desk.permit(who, f"{found.provider}/")
        return found


def listed(found: list[dict[str, Any]], limit: int) -> dict[str, Any]:
    """A page as OpenAI has it, of at most ``limit`` objects; one more says that there are further ones."""
    page = found[:limit]
    first, last = (page[0].get("id"), page[-1].get("id")) if page else (None, None)
    return {"object": "list", "data": page, "first_id": first, "last_id": last, "has_more": len(found) > limit}
