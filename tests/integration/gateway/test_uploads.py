"""Uploads of which their provider takes no more: what bounds them, over real connections."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from conftest import RunningGateway

FORM = (
    '--b0\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nuser_data\r\n'
    '--b0\r\nContent-Disposition: form-data; name="file"; filename="a.bin"\r\n\r\n'
)
SIZE = 400_000_000  # more than the buffers on the way hold
TIMEOUT = 3


@pytest.fixture(autouse=True)
def deaf(project_folder: Path) -> Iterator[None]:
    """A provider with which connections can be made, and that reads nothing of them."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        place = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with (project_folder / "lockgate.yaml").open("a") as file:
            file.write(f"  deaf: {{kind: openai, base_url: '{place}', timeout: {TIMEOUT}}}\n")
        yield


@asynccontextmanager
async def uploading(gateway: RunningGateway) -> AsyncIterator[asyncio.StreamReader]:
    """A client that sends its file as fast as it is taken, and leaves at the block's end: where its answer comes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.listener_port)
    begun = asyncio.Event()

    async def send() -> None:
        writer.write(
            f"POST /v1/files HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {gateway.key()}\r\n"
            "x-lockgate-provider: deaf\r\ncontent-type: multipart/form-data; boundary=b0\r\n"
            f"content-length: {SIZE}\r\n\r\n{FORM}".encode()
        )
        while True:
            writer.write(b"x" * 65536)
            await writer.drain()
            begun.set()

    sending = asyncio.ensure_future(send())
    try:
        await begun.wait()
        yield reader
    finally:
        sending.cancel()
        writer.transport.abort()
        await asyncio.wait([sending])


async def test_an_upload_that_the_provider_does_not_take_ends_with_the_providers_timeout(
    gateway: RunningGateway,
) -> None:
    async with uploading(gateway) as answer:
        said = await answer.readuntil(b"}")
    assert said.startswith(b"HTTP/1.1 502 ")
    assert b"took nothing more of the request for %d seconds" % TIMEOUT in said


async def test_a_client_that_leaves_ends_what_the_provider_does_not_take(gateway: RunningGateway) -> None:
    async with uploading(gateway):
        pass
    clock = asyncio.get_running_loop().time
    left = clock()
    await asyncio.to_thread(gateway.rest)
    assert clock() - left < TIMEOUT / 2
