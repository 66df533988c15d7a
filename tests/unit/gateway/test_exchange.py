"""Waits end at their deadline, or when the client leaves; a body comes whole, or its client is gone."""

from __future__ import annotations

import asyncio

import pytest

from lockgate.gateway.exchange import ClientGone, Exchange, Watchman, _Watch


class Protocol:
    """A client's connection, as RSGI shows it."""

    def __init__(self) -> None:
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watched = asyncio.Event()

    def client_disconnect(self) -> asyncio.Future[None]:
        self.watched.set()
        return self.left


async def leave_when_watched(protocol: Protocol) -> None:
    await protocol.watched.wait()
    protocol.left.set_result(None)


async def test_a_wait_ends_at_its_deadline() -> None:
    with pytest.raises(TimeoutError), Watchman().expect(0.05):
        await asyncio.sleep(10)


async def test_a_wait_that_is_over_in_time_leaves_nothing_behind() -> None:
    watchman = Watchman()
    with watchman.expect(0.01):
        await asyncio.sleep(0)
    await asyncio.sleep(0.1)
    assert not watchman._waits
    assert watchman._timer is None


async def test_a_client_that_leaves_ends_the_wait() -> None:
    protocol = Protocol()
    leaving = asyncio.create_task(leave_when_watched(protocol))
    with pytest.raises(ClientGone), _Watch(Watchman(), protocol):
        await asyncio.sleep(10)
    await leaving
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_client_leaving_within_a_deadline_is_not_taken_for_the_deadline() -> None:
    protocol, watchman = Protocol(), Watchman()
    leaving = asyncio.create_task(leave_when_watched(protocol))
    with pytest.raises(ClientGone), _Watch(watchman, protocol), watchman.expect(10):
        await asyncio.sleep(10)
    await leaving


async def test_a_cancellation_from_elsewhere_stays_one() -> None:
    async def wait() -> None:
        with Watchman().expect(10):
            await asyncio.sleep(10)

    task = asyncio.create_task(wait())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_an_error_within_a_wait_is_not_covered_up() -> None:
    with pytest.raises(ZeroDivisionError), Watchman().expect(10):
        _ = 1 / 0


class Upload:
    """A request whose body does not come; the server gives it up when the client leaves."""

    method, path, query_string, headers = "POST", "/", "", {"content-length": "10"}

    def __init__(self) -> None:
        self.coming: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.asked = asyncio.Event()

    def __call__(self) -> asyncio.Future[bytes]:
        self.asked.set()
        return self.coming


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_gone() -> None:
    upload = Upload()
    reading = asyncio.create_task(Exchange(upload, upload, Watchman()).body())
    await upload.asked.wait()
    upload.coming.cancel()
    with pytest.raises(ClientGone):
        await reading


async def test_a_call_that_is_cancelled_while_its_body_comes_stays_cancelled() -> None:
    upload = Upload()
    reading = asyncio.create_task(Exchange(upload, upload, Watchman()).body())
    await upload.asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
