"""A model server for tests: real HTTP on loopback, scripted answers and failures. It speaks OpenAI's chat completions,
responses, embeddings, files and batches, reranking, and Anthropic's messages.

    with FakeModelServer(["first answer", call("read_orders", order_id="A-17"), rate_limited()]) as server:
        client = OpenAI(base_url=server.base_url, api_key="any")

It runs in a thread of its own, so it serves synchronous and asynchronous tests alike. It speaks HTTP/1.1 itself:
hanging before headers, cutting a stream and noticing that a client left need the bare connection.
"""

from __future__ import annotations

import asyncio
import json
import threading
from types import TracebackType
from typing import Any, Self

from lockgate.testing.batches import PATHS, FakeBatches
from lockgate.testing.protocols import WIRES, Wire
from lockgate.testing.replies import (
    ModelRequest,
    Reply,
    chunks,
    error_of,
    failing,
    reply_of,
    responder_of,
)

START_SECONDS = 60.0
CHAT = "/v1/chat/completions"
_NONSENSE = b"\x00\xff\x13 this is no HTTP \xfe\r\n\r\n"
_MISSHAPEN = (AttributeError, LookupError, TypeError, ValueError)


class FakeModelServer:
    """Serves the paths of :data:`~lockgate.testing.protocols.WIRES`, and ``/v1/models``, on ``127.0.0.1`` at a port of
    its own.

    ``responses`` is a callable(:class:`ModelRequest`) -> answer, one answer for every request, or a list of answers
    given in turn. ``latency`` is seconds before each answer. What came in is in ``requests``, oldest first.
    """

    def __init__(
        self,
        responses: Any = "ok",
        *,
        latency: float = 0.0,
        models: tuple[str, ...] = ("fake-model",),
        api_key: str | None = None,
    ) -> None:
        self.respond = responder_of(responses)
        self.latency = latency
        self.models = models
        self.api_key = api_key
        self.requests: list[ModelRequest] = []
        self.batches = FakeBatches(lambda request: reply_of(self.respond(request)))
        self.port = 0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._stopping = asyncio.Event()
        self._going = asyncio.Event()
        self._going.set()
        self._thread = threading.Thread(target=self._run, name="fake-model-server", daemon=True)
        self._connections: set[_Connection] = set()
        self._changed = threading.Condition()

    @property
    def base_url(self) -> str:
        """The API's root, as an OpenAI client wants it."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def disconnects(self) -> list[ModelRequest]:
        """The requests whose client left before it had the whole answer."""
        return [request for request in self.requests if request.disconnected]

    def wait_for_requests(self, count: int, *, timeout: float = 30.0) -> None:
        """Block until ``count`` requests have come in; TimeoutError after ``timeout`` seconds."""
        self._wait(lambda: len(self.requests) >= count, f"{count} requests", timeout)

    def wait_for_disconnects(self, count: int, *, timeout: float = 30.0) -> None:
        """Block until ``count`` clients have left early; TimeoutError after ``timeout`` seconds."""
        self._wait(lambda: len(self.disconnects) >= count, f"{count} disconnects", timeout)

    def pause(self) -> None:
        """Take requests, and answer none until :meth:`resume`: what happens meanwhile needs no luck with time."""
        self._going.clear()

    def resume(self) -> None:
        """Answer again, also those who wait."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._going.set)

    def start(self) -> Self:
        self._thread.start()
        if not self._ready.wait(START_SECONDS):
            raise TimeoutError(f"the fake model server did not start in {START_SECONDS:g} seconds")
        return self

    def stop(self) -> None:
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(START_SECONDS)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    async def __aenter__(self) -> Self:
        return await asyncio.to_thread(self.start)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self.stop)

    def _wait(self, condition: Any, what: str, timeout: float) -> None:
        with self._changed:
            if not self._changed.wait_for(condition, timeout):
                raise TimeoutError(f"the fake model server did not see {what} in {timeout:g} seconds")

    def _notify(self) -> None:
        with self._changed:
            self._changed.notify_all()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: _Connection(self), "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stopping.wait()
        server.close()
        for connection in list(self._connections):
            connection.abort()


class _Connection(asyncio.Protocol):
    """One client: requests are read one after the other and answered by a task each."""

    def __init__(self, server: FakeModelServer) -> None:
        self.server = server
        self.received = bytearray()
        self.transport: asyncio.Transport | None = None
        self.answering: asyncio.Task[None] | None = None
        self.request: ModelRequest | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.server._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.server._connections.discard(self)
        if self.answering is not None and self.request is not None and not self.request.answered:
            self.request.disconnected = True
            self.answering.cancel()
            self.server._notify()

    def abort(self) -> None:
        if self.request is not None:
            self.request.answered = True  # the server leaves, not the client
        if self.answering is not None:
            self.answering.cancel()
        if self.transport is not None:
            self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.received += data
        if self.answering is None:
            self._take_request()

    def _take_request(self) -> None:
        end = self.received.find(b"\r\n\r\n")
        if end < 0:
            return
        first, *lines = self.received[:end].decode("latin-1").split("\r\n")
        headers = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        if headers.get("transfer-encoding", "").lower() == "chunked":
            if not self.received.endswith(b"0\r\n\r\n"):
                return  # looking through what came so far each time would take long for a large body
            taken = _dechunk(self.received, end + 4)
        else:
            stop = end + 4 + int(headers.get("content-length", "0"))
            taken = (bytes(self.received[end + 4 : stop]), stop) if len(self.received) >= stop else None
        if taken is None:
            return
        body, stop = taken
        del self.received[:stop]
        method, path, *_ = [*first.split(" "), "", ""]
        answer = self._answer(method, path.partition("?")[0], headers, body)
        self.answering = asyncio.get_running_loop().create_task(answer)

    async def _answer(self, method: str, path: str, headers: dict[str, str], body: bytes) -> None:
        server = self.server
        is_file = path.startswith(PATHS)
        try:
            parsed = json.loads(body) if body and not is_file else {}
        except ValueError:
            parsed = None
        fields = parsed if isinstance(parsed, dict) else {}
        self.request = request = ModelRequest(path=path, headers=headers, body=fields)
        given = (headers.get("authorization"), headers.get("x-api-key"), headers.get("api-key"))
        if server.api_key is not None and given not in (
            (f"Bearer {server.api_key}", None, None),
            (None, server.api_key, None),
            (None, None, server.api_key),
        ):
            await self._send(request, failing(401, "wrong API key"))
        elif is_file:
            told = server.batches.serve(method, path, headers, body)
            await self._send(
                request, Reply(status=told.status, headers={"content-type": told.content_type}, body=told.body)
            )
        elif (method, path) == ("GET", "/v1/models"):
            listed = [{"id": name, "object": "model", "created": 0, "owned_by": "fake"} for name in server.models]
            await self._send(request, Reply(body=json.dumps({"object": "list", "data": listed}).encode()))
        elif method != "POST" or _wire(path) is None:
            await self._send(request, failing(404, f"no {method} {path}"))
        elif parsed is None or not isinstance(parsed, dict):
            await self._send(request, failing(400, "the body is no JSON object"))
        else:
            server.requests.append(request)
            server._notify()
            try:
                await self._send(request, self._scripted(request))
            except _MISSHAPEN as wrong:  # an answer counts and repeats what was asked
                await self._send(request, failing(400, f"the request is not of the protocol's shape: {wrong!r}"))
        request.answered = True
        self.answering = None
        if self.received:
            self._take_request()

    def _scripted(self, request: ModelRequest) -> Reply:
        try:
            return reply_of(self.server.respond(request))
        except Exception as error:  # a test's own responder failed: the client sees it, the server lives
            return failing(500, f"the responder raised {error!r}")

    async def _send(self, request: ModelRequest, reply: Reply) -> None:
        transport = self.transport
        assert transport is not None
        await self.server._going.wait()
        latency = self.server.latency if reply.latency is None else reply.latency
        if latency:
            await asyncio.sleep(latency)
        if reply.failure == "hang":
            await asyncio.Event().wait()
        elif reply.failure in ("close", "nonsense"):
            request.answered = True
            if reply.failure == "nonsense":
                transport.write(_NONSENSE)
            transport.close()
        elif reply.events is not None or (reply.body is None and reply.status < 400 and request.stream):
            await self._stream(transport, request, reply)
        else:
            if reply.body is not None:
                body = reply.body
            else:
                wire = _wire(request.path) or WIRES[CHAT]
                told = error_of(request, reply) if reply.status >= 400 else wire.answer(request, reply)
                body = json.dumps(told).encode()
            head = _head(reply, {"content-type": "application/json", "content-length": str(len(body))})
            if reply.failure == "cut":
                request.answered = True
                transport.write(head + body[: len(body) // 2])
                transport.close()
            else:
                transport.write(head + body)

    async def _stream(self, transport: asyncio.Transport, request: ModelRequest, reply: Reply) -> None:
        wire = _wire(request.path) or WIRES[CHAT]
        events = list(reply.events) if reply.events is not None else list((wire.stream or chunks)(request, reply))
        transport.write(_head(reply, {"content-type": "text/event-stream", "transfer-encoding": "chunked"}))
        if reply.failure == "cut":
            events = events[: len(events) // 2]
        for index, event in enumerate(events):
            if index and reply.chunk_latency:
                await asyncio.sleep(reply.chunk_latency)
            transport.write(b"%x\r\n%s\r\n" % (len(event), event))
        if reply.failure == "cut":
            request.answered = True
            transport.close()
        else:
            transport.write(b"0\r\n\r\n")


def _wire(path: str) -> Wire | None:
    """The protocol served at a path; ``/deployments/NAME/…``, as on Azure, is served too."""
    if path.startswith("/v1/deployments/"):
        path = "/v1/" + path.removeprefix("/v1/deployments/").partition("/")[2]
    return WIRES.get(path)


def _head(reply: Reply, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {reply.status} {'OK' if reply.status < 400 else 'Error'}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **reply.headers}.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


def _dechunk(data: bytearray, at: int) -> tuple[bytes, int] | None:
    """The body of a chunked request and where it ends, or None while it is not all there."""
    body = bytearray()
    while True:
        line = data.find(b"\r\n", at)
        if line < 0:
            return None
        size = int(bytes(data[at:line]).split(b";")[0], 16)
        at = line + 2
        if len(data) < at + size + 2:
            return None
        body += data[at : at + size]
        at += size + 2
        if size == 0:
            return bytes(body), at
