"""``/v1/uploads``: a large file in parts, which the provider puts together; a tenant's own, as files are.

https://platform.openai.com/docs/api-reference/uploads
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from lockgate.errors import InputError, NotFound, Unavailable, UpstreamError
from lockgate.gateway.batches import store
from lockgate.gateway.batches.asking import PROVIDER, Asking, Reply, pass_on
from lockgate.gateway.batches.desk import Desk, check_printable
from lockgate.gateway.batches.incoming import chunks
from lockgate.gateway.batches.multipart import boundary_of
from lockgate.gateway.batches.store import File, PartedUpload
from lockgate.gateway.batches.upload import BATCH
from lockgate.gateway.exchange import Exchange
from lockgate.gateway.model import Identity
from lockgate.gateway.protocols import fields as f
from lockgate.gateway.providers import Target

MAX_PART = 64 * 1024 * 1024 + 64 * 1024
"""Bytes of a part: OpenAI's largest, and the form around it."""
_MAX_BODY = 64 * 1024


class Uploads:
    """The handlers. ``desk`` says who may do what."""

    def __init__(self, desk: Desk, asking: Asking) -> None:
        self._desk = desk
        self._asking = asking

    async def create(self, exchange: Exchange, who: Identity) -> None:
        """``POST /v1/uploads``. Not for a batch's lines: each is checked on its way in, which takes the whole file."""
        fields = f.take_apart(await exchange.body(_MAX_BODY), "one request for an upload")
        purpose = f.field(fields, "purpose", str, ...)
        check_printable("purpose", purpose)
        if purpose == BATCH:
            raise InputError(
                "'purpose' is 'batch', and a batch's lines are checked as they come",
                remedy="send them to /v1/files, which takes files up to 512 MB",
            )
        self._desk.check_keeping(who)
        provider = exchange.headers.get(PROVIDER) or self._asking.default(who.environment)
        self._desk.permit(who, f"{provider}/")
        target = await self._asking.target(who.environment, provider)
        await self._desk.check_writes()
        reply = await self._asking.ask("POST", target, "/uploads", body=f.encode(fields))
        told = reply.object
        if told.get("id"):
            now = self._desk.clock()
            upload = PartedUpload(
                environment=who.environment,
                provider=provider,
                id=str(told["id"]),
                tenant=who.tenant,
                key_id=who.key_id,
                created_at=now,
                purpose=purpose,
            )
            try:
                await self._desk.write(store.keep_upload, upload)
            except Unavailable:
                await self._asking.undo("POST", target, f"/uploads/{upload.id}/cancel")
                raise
        pass_on(exchange, target, reply)

    async def add_part(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``POST /v1/uploads/{id}/parts``: passed on byte for byte, as it comes."""
        upload, target = await self._find(who, id)
        kind = exchange.headers.get("content-type") or ""
        boundary_of(kind)
        broken: list[BaseException] = []

        async def passing() -> AsyncIterator[bytes]:
            try:
                async for chunk in chunks(exchange, MAX_PART):
                    yield chunk
            except BaseException as error:
                broken.append(error)
                raise

        try:
            reply = await self._asking.ask(
                "POST", target, f"/uploads/{upload.id}/parts", body=passing(), content_type=kind
            )
        except UpstreamError:
            if broken:
                raise broken[0] from None
            raise
        pass_on(exchange, target, reply)

    async def complete(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``POST /v1/uploads/{id}/complete``: what comes of it is the tenant's file."""
        upload, target = await self._find(who, id)
        fields = f.take_apart(await exchange.body(_MAX_BODY), "the list of an upload's parts")
        await self._desk.check_writes()
        reply = await self._asking.ask("POST", target, f"/uploads/{upload.id}/complete", body=f.encode(fields))
        told = reply.object.get("file")
        if isinstance(told, dict) and told.get("id"):
            file = File(
                environment=upload.environment,
                provider=upload.provider,
                id=str(told["id"]),
                tenant=upload.tenant,
                key_id=upload.key_id,
                created_at=self._desk.clock(),
                purpose=upload.purpose,
                object=told,
            )
            try:
                await self._desk.write(store.keep_file, file)
            except Unavailable:
                await self._asking.undo("DELETE", target, f"/files/{file.id}")
                raise
        await self._end(exchange, upload, target, reply)

    async def cancel(self, exchange: Exchange, who: Identity, id: str) -> None:
        """``POST /v1/uploads/{id}/cancel``."""
        upload, target = await self._find(who, id)
        reply = await self._asking.ask("POST", target, f"/uploads/{upload.id}/cancel", body=b"{}")
        await self._end(exchange, upload, target, reply)

    async def _end(self, exchange: Exchange, upload: PartedUpload, target: Target, reply: Reply) -> None:
        if reply.object.get("id"):
            await self._desk.write(store.forget_upload, upload)
        pass_on(exchange, target, reply)

    async def _find(self, who: Identity, id: str) -> tuple[PartedUpload, Target]:
        found: PartedUpload | None = await self._desk.read(store.find_upload, who, id)
        if found is None:
            raise NotFound(f"no upload {id!r} is open", remedy="begin one with POST /v1/uploads")
        self._desk.permit(who, f"{found.provider}/")
        return found, await self._asking.target(found.environment, found.provider)
