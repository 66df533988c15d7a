"""Waits end at their deadline, or when the client leaves; a body comes whole, or its client is gone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic

import pytest

from lockgate.errors import InputError, LimitExceeded, TooLarge, Unavailable
from lockgate.gateway import exchange as module
from lockgate.gateway.exchange import MANY, SMALL_BODY, Ends, Exchange, Rooms
from lockgate.gateway.http1 import Connection
from lockgate.gateway.http_request import ClientGone, HttpRequest
from lockgate.gateway.watchman import Watchman


class Client:
    """A client's connection, whose transport and owner this is too."""

    stopping = False
    date = "now"

    def __init__(self) -> None:
        self.written = b""
        self.connection = Connection(self, asyncio.get_running_loop())
        self.connection.connection_made(self)

    def ask(self, rooms: Rooms | None = None, *, length: int | None = 0, body: bytes = b"") -> Exchange:
        """An exchange with it. ``length``: what it declares; None: it sends chunks."""
        framing = b"transfer-encoding: chunked" if length is None else b"content-length: %d" % length
        self.connection.data_received(b"POST / HTTP/1.1\r\nhost: x\r\n" + framing + b"\r\n\r\n" + body)
        return Exchange(self.request, Watchman(), rooms or Rooms())

    def send(self, body: bytes) -> None:
        self.connection.data_received(body)

    def leave(self) -> None:
        self.connection.connection_lost(None)

    # --- the owner ---

    def start(self, request: HttpRequest) -> asyncio.Task[None]:
        self.request = request
        return asyncio.get_running_loop().create_task(asyncio.sleep(0))

    def lost(self, connection: Connection) -> None:
        pass

    # --- the transport ---

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def write_eof(self) -> None:
        pass

    @property
    def answer(self) -> bytes:
        return self.written.partition(b"\r\n\r\n")[2]


def soon(call: Callable[[], object]) -> None:
    """When what is awaited now waits."""
    asyncio.get_running_loop().call_soon(call)


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
    client = Client()
    exchange = client.ask()
    soon(client.leave)
    with pytest.raises(ClientGone), exchange.watch():
        await asyncio.sleep(10)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_a_client_that_has_left_is_not_waited_for() -> None:
    client = Client()
    exchange = client.ask()
    client.leave()
    with pytest.raises(ClientGone), exchange.watch():
        pytest.fail("it was waited for")


async def test_the_client_leaving_within_a_deadline_is_not_taken_for_the_deadline() -> None:
    client = Client()
    exchange = client.ask()
    soon(client.leave)
    with pytest.raises(ClientGone), exchange.watch(), exchange.watchman.expect(10):
        await asyncio.sleep(10)


async def test_the_end_of_a_watch_within_another_leaves_that_one_its_client() -> None:
    client = Client()
    exchange = client.ask()

    async def wait() -> None:
        with exchange.watch():
            pass
        soon(client.leave)
        await asyncio.sleep(10)

    with pytest.raises(ClientGone), exchange.watch():
        await wait()


async def test_a_client_that_leaves_after_the_watch_disturbs_nobody() -> None:
    client = Client()
    exchange = client.ask()
    with exchange.watch():
        pass
    client.leave()
    await asyncio.sleep(0)


async def test_a_watch_ends_with_its_time() -> None:
    over = LimitExceeded("the run is out of time", limit="run:r")
    with pytest.raises(LimitExceeded, match="out of time"), Client().ask().watch(Ends(monotonic(), over)):
        await asyncio.sleep(10)


async def test_the_end_of_its_time_does_not_cut_off_an_answer_that_has_begun() -> None:
    exchange = Client().ask()
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


async def test_a_small_body_that_is_there_is_not_waited_for() -> None:
    reading = Client().ask(length=2, body=b"ok").body()
    with pytest.raises(StopIteration) as done:
        reading.send(None)
    assert done.value.value == b"ok"


async def test_a_client_that_leaves_in_the_middle_of_its_body_is_gone() -> None:
    client = Client()
    exchange = client.ask(length=10)
    soon(client.leave)
    with pytest.raises(ClientGone):
        await exchange.body()


async def test_a_call_that_is_cancelled_while_its_body_comes_stays_cancelled() -> None:
    reading = asyncio.create_task(Client().ask(length=10).body())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_body_that_does_not_come_in_time_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.01)
    with pytest.raises(InputError, match="did not come"):
        await Client().ask(length=10, body=b"x").body()
    with pytest.raises(InputError, match="stopped coming"):
        await Client().ask(length=10).part()


async def test_chunks_that_cannot_be_told_apart_are_no_body() -> None:
    with pytest.raises(InputError, match="cannot be read"):
        await Client().ask(length=None, body=b"zz\r\n").body()
    with pytest.raises(InputError, match="cannot be read"):
        await Client().ask(length=None, body=b"zz\r\n").part()


async def test_a_long_body_is_read_in_parts() -> None:
    client = Client()
    exchange = client.ask(length=4, body=b"ab")
    assert await exchange.part() == b"ab"
    soon(lambda: client.send(b"cd"))
    assert await exchange.part() == b"cd"
    assert await exchange.part() == b""


LARGE = SMALL_BODY + 1


@pytest.mark.parametrize(("declared", "room"), [(LARGE, "known"), (None, "others")])
async def test_large_bodies_have_so_much_room_and_no_more(declared: int | None, room: str) -> None:
    rooms = Rooms(known=2 * LARGE, others=2 * LARGE)
    whole = b"x" * LARGE
    sent = whole if declared else b"%x\r\n%b\r\n0\r\n\r\n" % (LARGE, whole)

    def exchange() -> Exchange:
        return Client().ask(rooms, length=declared, body=sent)

    first, second, third = exchange(), exchange(), exchange()
    assert await first.body() == whole
    await second.body()
    with pytest.raises(Unavailable, match="no room"):
        await third.body()
    third.end()
    assert getattr(rooms, room).taken == 2 * LARGE
    first.end()
    assert getattr(rooms, room).taken == LARGE
    await exchange().body()


async def test_a_body_of_a_client_that_is_not_known_has_less_room() -> None:
    rooms = Rooms(known=2 * LARGE, others=LARGE - 1)
    with pytest.raises(Unavailable, match="no room"):
        await Client().ask(rooms, length=LARGE, body=b"x" * LARGE).body(known=False)


async def test_a_large_body_that_is_cut_off_is_no_body() -> None:
    client = Client()
    exchange = client.ask(length=LARGE, body=b"x" * SMALL_BODY)
    soon(client.leave)
    with pytest.raises(ClientGone):
        await exchange.body()


async def test_a_body_ends_at_the_limit() -> None:
    with pytest.raises(TooLarge, match="has 11 bytes"):  # none of which is waited for
        await Client().ask(length=11).body(10)
    with pytest.raises(TooLarge, match="more than 10 bytes"):
        await Client().ask(length=None, body=b"a\r\n" + b"x" * 10 + b"\r\n1\r\ny\r\n").body(10)


async def test_an_answer_goes_out_at_once_where_few_are_under_way() -> None:
    client, rooms = Client(), Rooms()
    exchange = client.ask(rooms)
    exchange.respond(200, [], b"yes")
    assert client.answer == b"yes"
    exchange.end()
    assert rooms.requests == 0


async def test_the_answers_of_many_go_out_together() -> None:
    rooms = Rooms()
    clients = [Client() for _ in range(MANY)]
    exchanges = [client.ask(rooms) for client in clients]
    for number, exchange in enumerate(exchanges):
        exchange.respond(200, [], b"%d" % number)
        assert not any(client.written for client in clients)
    await asyncio.sleep(0)
    assert [client.answer for client in clients] == [b"%d" % number for number in range(MANY)]
    for exchange in exchanges:
        exchange.end()
    assert rooms.requests == 0


async def test_an_answer_that_waits_goes_out_although_its_task_is_cancelled() -> None:
    client, rooms = Client(), Rooms()
    rooms.requests = MANY

    async def serve() -> None:
        client.ask(rooms).respond(200, [], b"settled")
        await asyncio.sleep(10)

    serving = asyncio.create_task(serve())
    soon(serving.cancel)
    with pytest.raises(asyncio.CancelledError):
        await serving
    assert client.answer == b"settled"


async def test_a_stream_that_fails_is_broken_off() -> None:
    client = Client()
    exchange = client.ask()
    exchange.stream(200, [])
    await exchange.send(b"begun")
    exchange.fail(Unavailable("the provider went away"))
    client.request.end()
    assert client.answer == b"5\r\nbegun\r\n"


async def test_a_chunk_waits_for_the_client_to_read() -> None:
    client = Client()
    exchange = client.ask()
    exchange.stream(200, [])
    client.connection.pause_writing()
    sending = asyncio.create_task(exchange.send(b"x"))
    await asyncio.sleep(0)
    assert not sending.done()
    client.connection.resume_writing()
    await sending


async def test_a_client_that_leaves_before_it_has_read_is_gone() -> None:
    client = Client()
    exchange = client.ask()
    exchange.stream(200, [])
    client.connection.pause_writing()
    soon(client.leave)
    with pytest.raises(ClientGone):
        await exchange.send(b"x")


async def test_nothing_is_sent_to_a_client_that_left() -> None:
    client = Client()
    exchange = client.ask()
    exchange.stream(200, [])
    client.leave()
    with pytest.raises(ClientGone):
        await exchange.send(b"x")
