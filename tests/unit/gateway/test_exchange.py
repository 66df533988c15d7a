"""Waits end at their deadline, or when the client leaves; a body comes whole, or its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from time import monotonic

import pytest

from lockgate.errors import LimitExceeded, TooLarge, Unavailable
from lockgate.gateway.exchange import MANY, SMALL_BODY, ClientGone, Ends, Exchange, Rooms, Watchman


class Protocol:
    """A client's connection, as RSGI shows it."""

    def __init__(self) -> None:
        self.left: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.watched = asyncio.Event()

    def client_disconnect(self) -> asyncio.Future[None]:
        self.watched.set()
        return self.left


def exchange_of(protocol: Protocol) -> Exchange:
    return Exchange(Sent(declared=None), protocol, Watchman(), Rooms())


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
    assert not watchman.waits
    assert watchman._timer is None


async def test_a_client_that_leaves_ends_the_wait() -> None:
    protocol = Protocol()
    leaving = asyncio.create_task(leave_when_watched(protocol))
    with pytest.raises(ClientGone), exchange_of(protocol).watch():
        await asyncio.sleep(10)
    await leaving
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_the_client_leaving_within_a_deadline_is_not_taken_for_the_deadline() -> None:
    protocol = Protocol()
    exchange = exchange_of(protocol)
    leaving = asyncio.create_task(leave_when_watched(protocol))
    with pytest.raises(ClientGone), exchange.watch(), exchange.watchman.expect(10):
        await asyncio.sleep(10)
    await leaving


async def test_a_watch_ends_with_its_time() -> None:
    over = LimitExceeded("the run is out of time", limit="run:r")
    with pytest.raises(LimitExceeded, match="out of time"), exchange_of(Protocol()).watch(Ends(monotonic(), over)):
        await asyncio.sleep(10)


async def test_the_end_of_its_time_does_not_cut_off_an_answer_that_has_begun() -> None:
    exchange = exchange_of(Protocol())
    exchange.answered = True
    with exchange.watch(Ends(monotonic(), LimitExceeded("the run is out of time", limit="run:r"))):
        await asyncio.sleep(0.15)


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
    reading = asyncio.create_task(Exchange(upload, upload, Watchman(), Rooms()).body())
    await upload.asked.wait()
    upload.coming.cancel()
    with pytest.raises(ClientGone):
        await reading


async def test_a_call_that_is_cancelled_while_its_body_comes_stays_cancelled() -> None:
    upload = Upload()
    reading = asyncio.create_task(Exchange(upload, upload, Watchman(), Rooms()).body())
    await upload.asked.wait()
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


class Sent:
    """A request whose body comes in these pieces."""

    method, path, query_string = "POST", "/", ""

    def __init__(self, *pieces: bytes, declared: int | None) -> None:
        self.headers = {} if declared is None else {"content-length": str(declared)}
        self.pieces = pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece


LARGE = SMALL_BODY + 1


@pytest.mark.parametrize(("declared", "room"), [(LARGE, "known"), (None, "others")])
async def test_large_bodies_have_so_much_room_and_no_more(declared: int | None, room: str) -> None:
    rooms = Rooms(known=2 * LARGE, others=2 * LARGE)

    def exchange() -> Exchange:
        sent = Sent(b"x" * SMALL_BODY, b"y", declared=declared)
        return Exchange(sent, sent, Watchman(), rooms)

    first, second, third = exchange(), exchange(), exchange()
    assert await first.body() == b"x" * SMALL_BODY + b"y"
    await second.body()
    with pytest.raises(Unavailable, match="no room"):
        await third.body()
    await third.end()
    assert getattr(rooms, room).taken == 2 * LARGE
    await first.end()
    await first.end()
    assert getattr(rooms, room).taken == LARGE
    await exchange().body()


async def test_a_large_body_that_is_cut_off_is_no_body() -> None:
    sent = Sent(b"x" * SMALL_BODY, declared=LARGE)
    with pytest.raises(ClientGone):
        await Exchange(sent, sent, Watchman(), Rooms()).body()


async def test_a_body_of_undeclared_length_ends_at_the_limit() -> None:
    sent = Sent(b"x" * 10, b"y", declared=None)
    with pytest.raises(TooLarge):
        await Exchange(sent, sent, Watchman(), Rooms()).body(10)


class Answered(Sent):
    """A request's connection that notes its answer."""

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__(declared=None)
        self.answers = answers

    def response_bytes(self, status: int, headers: object, body: bytes) -> None:
        self.answers.append(body)


async def test_an_answer_goes_out_at_once_where_few_are_under_way() -> None:
    answers: list[bytes] = []
    request, rooms = Answered(answers), Rooms()
    exchange = Exchange(request, request, Watchman(), rooms)
    exchange.respond(200, [], b"yes")
    assert answers == [b"yes"]
    await exchange.end()
    assert answers == [b"yes"]
    assert rooms.requests == 0


async def test_the_answers_of_many_go_out_together() -> None:
    answers: list[bytes] = []
    request, rooms = Answered(answers), Rooms()
    when_made: list[int] = []

    async def serve(number: int) -> None:
        exchange = Exchange(request, request, Watchman(), rooms)
        await asyncio.sleep(0)
        exchange.respond(200, [], b"%d" % number)
        when_made.append(len(answers))
        await exchange.end()

    await asyncio.gather(*(serve(number) for number in range(MANY + 2)))
    assert when_made == [0] * (MANY + 2)
    assert answers == [b"%d" % number for number in range(MANY + 2)]
    assert rooms.requests == 0


async def test_an_answer_that_waits_goes_out_although_its_task_is_cancelled() -> None:
    answers: list[bytes] = []
    request, rooms = Answered(answers), Rooms()
    rooms.requests = MANY
    exchange = Exchange(request, request, Watchman(), rooms)
    exchange.respond(200, [], b"settled")
    ending = asyncio.create_task(exchange.end())
    await asyncio.sleep(0)
    ending.cancel()
    await ending
    assert answers == [b"settled"]
