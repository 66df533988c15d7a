"""OpenAI's files and batches through the gateway, driven by the official client."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import msgspec
import openai
import pytest
from sqlalchemy import update
from sqlalchemy.exc import DataError, DBAPIError, OperationalError

from lockgate.errors import InputError
from lockgate.gateway.batches import store
from lockgate.gateway.batches.store import File
from lockgate.gateway.model import Identity
from lockgate.gateway.openapi import data_plane
from lockgate.limits import charges
from lockgate.limits.store import LOST_SECONDS, see_machine
from lockgate.project.guards import TenantSpec
from lockgate.results import Usage
from lockgate.storage.engine import Database
from lockgate.storage.schema import provider_batches, uncertain_charges
from lockgate.testing import FakeModelServer, Reply, failing
from lockgate.testing.batches import Answer
from lockgate.ticks import batches as watch

if TYPE_CHECKING:
    from conftest import RunningGateway

USED = Usage(input_tokens=1000, output_tokens=500)
COST = 2_000_000  # nano-USD of such a request, at 1 and 2 USD a million tokens


def lines(count: int = 2, *, model: str = "fake/fake-model", url: str = "/v1/chat/completions", **body: Any) -> bytes:
    """The input file of a batch."""
    asked = {"model": model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 100, **body}
    found = ({"custom_id": f"r{number}", "method": "POST", "url": url, "body": asked} for number in range(count))
    return b"".join(json.dumps(one).encode() + b"\n" for one in found)


Client = Callable[..., openai.OpenAI]


@pytest.fixture
def client(gateway: RunningGateway) -> Iterator[Client]:
    """``client(tenant="…")``: the official client under a key of its own."""
    made: list[openai.OpenAI] = []

    def make(provider: str | None = "fake", **options: Any) -> openai.OpenAI:
        headers = {} if provider is None else {"x-lockgate-provider": provider}
        key = gateway.key(**options)
        made.append(
            openai.OpenAI(base_url=gateway.url + "/v1", api_key=key, max_retries=0, timeout=60, default_headers=headers)
        )
        return made[-1]

    yield make
    for one in made:
        one.close()


def batch_of(client: openai.OpenAI, content: bytes, endpoint: Any = "/v1/chat/completions") -> Any:
    file = client.files.create(file=("in.jsonl", content), purpose="batch")
    return client.batches.create(input_file_id=file.id, endpoint=endpoint, completion_window="24h")


def settled(gateway: RunningGateway, tenant: str = "acme") -> int:
    return sum(one.settled for one in gateway.balances(f"tenant:dev:{tenant}") if one.unit == "usd")


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def look(gateway: RunningGateway) -> int:
    """The control plane's look at what is open, without waiting for its turn."""
    with gateway.app.control.write() as connection:
        connection.execute(update(provider_batches).values(due_at=0))
    return watch(gateway.app).tick()


def test_a_file_goes_through_as_it_is_and_comes_back(model: FakeModelServer, client: Client) -> None:
    content = bytes(range(256)) * 2000 + b"\r\n--boundary\r\n"
    mine = client()
    file = mine.files.create(file=("blåbär.bin", content, "application/x-own"), purpose="user_data")
    assert (file.bytes, file.purpose) == (len(content), "user_data")
    assert model.batches.contents[file.id] == content
    assert mine.files.content(file.id).read() == content
    assert mine.files.retrieve(file.id).id == file.id
    assert [one.id for one in mine.files.list()] == [file.id]
    assert mine.files.delete(file.id).deleted
    assert list(mine.files.list()) == []
    with pytest.raises(openai.NotFoundError):
        mine.files.retrieve(file.id)


def test_a_batch_is_held_when_it_is_made_and_settled_by_what_its_output_says(
    gateway: RunningGateway, model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.batches.service._SETTLED_SECONDS", 60.0)
    model.respond = lambda _: Reply(text="good day", usage=USED)
    mine = client()
    batch = batch_of(mine, lines(3))
    held = settled(gateway)
    assert held > 3 * 100 * 2000  # all the output that is allowed, and the input's bytes
    assert mine.batches.retrieve(batch.id).status == "validating"
    assert settled(gateway) == held
    model.batches.finish(batch.id)
    raw = mine.batches.with_raw_response.retrieve(batch.id)
    ended = raw.parse()
    assert (ended.status, raw.headers["x-lockgate-cost-usd"]) == ("completed", "0.006000000")
    assert settled(gateway) == 3 * COST
    answers = [json.loads(line) for line in mine.files.content(ended.output_file_id).text.splitlines()]
    assert [one["custom_id"] for one in answers] == ["r0", "r1", "r2"]
    assert [one.status for one in mine.batches.list()] == ["completed"]
    span = next(one for one in gateway.spans() if one.name == "batch fake-model")
    assert (span.cost_nano, span.input_tokens, span.output_tokens) == (3 * COST, 3000, 1500)
    assert mine.batches.with_raw_response.retrieve(batch.id).headers["x-lockgate-cost-usd"] == "0.006000000"
    assert all(line.agrees for line in gateway.app.accounting.reconcile())


def test_the_control_plane_settles_what_no_client_asks_for_any_more(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=USED)
    batch = batch_of(client(), lines(2))
    model.batches.finish(batch.id)
    assert look(gateway) == 1
    assert settled(gateway) == 2 * COST
    assert look(gateway) == 0


def test_what_a_lost_machine_left_open_another_one_settles(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=USED)
    batch = batch_of(client(), lines(2))
    model.batches.finish(batch.id)

    def made_by(machine: str, seen_at: float) -> None:
        with gateway.app.control.write() as connection:
            connection.execute(update(provider_batches).values(machine=machine))
            connection.execute(update(uncertain_charges).values(machine=machine))
            see_machine(connection, machine, seen_at)

    made_by("living", gateway.app.clock())
    assert look(gateway) == 0
    made_by("lost", gateway.app.clock() - 2 * LOST_SECONDS)
    assert look(gateway) == 1
    assert gateway.app.charges.open() == []
    span = next(one for one in gateway.spans() if one.name == "batch fake-model")
    assert span.cost_nano == 2 * COST


def test_what_is_charged_for_an_open_batch_is_shown_as_held(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=USED)
    batch = batch_of(client(), lines(2))
    charged = settled(gateway)

    def shown() -> tuple[int, int]:
        found = [one for one in gateway.app.ledger.balances(gateway.app.holds, "tenant:dev:acme") if one.unit == "usd"]
        return found[0].settled, found[0].held

    assert shown() == (0, charged)
    model.batches.finish(batch.id)
    look(gateway)
    assert shown() == (2 * COST, 0)


def test_requests_that_failed_cost_nothing_and_those_of_an_expired_batch_what_was_done(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    answers = iter([Reply(text="a", usage=USED), failing(400, "no"), Reply(text="b", usage=USED)])
    model.respond = lambda _: next(answers)
    batch = batch_of(client(), lines(5))
    model.batches.finish(batch.id, "expired", only=3)
    look(gateway)
    assert settled(gateway) == 2 * COST


def test_a_batch_that_is_cancelled_before_it_began_costs_nothing(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    mine = client()
    batch = batch_of(mine, lines(5))
    assert mine.batches.cancel(batch.id).status == "cancelling"
    model.batches.finish(batch.id, "cancelled", only=0)
    look(gateway)
    assert settled(gateway) == 0


def test_a_batch_whose_answers_do_not_say_what_was_used_stays_charged_in_full_and_somebody_is_told(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    model.respond = lambda _: Reply(text="good day", report_usage=False)
    batch = batch_of(client(), lines(2))
    held = settled(gateway)
    model.batches.finish(batch.id)
    look(gateway)
    app = gateway.app
    [shown] = [one for one in app.ledger.balances(app.holds, "tenant:dev:acme") if one.unit == "usd"]
    assert (shown.settled, shown.held) == (held, 0)
    assert app.ledger.at_bound({shown.key}) == (1, held)
    [charge] = app.charges.open()
    assert charge.reason == "batch_no_usage"
    [alert] = app.alerts.list()
    assert f"{batch.id!r} of tenant 'acme' has ended, and 2 of its 2 answers do not say" in alert.message
    assert f"lockgate budgets correct {charge.id}" in alert.message
    assert all(line.agrees for line in app.accounting.reconcile())
    app.charges.correct(charge.id, charges.Used(2 * COST, 3000))
    assert settled(gateway) == 2 * COST
    assert [(line.agrees, line.untraced) for line in app.accounting.reconcile()] == [(True, 2 * COST)]


def test_one_tenant_sees_nothing_of_anothers(gateway: RunningGateway, model: FakeModelServer, client: Client) -> None:
    mine, other = client(tenant="acme"), client(tenant="evil")
    batch = batch_of(mine, lines(1))
    model.batches.finish(batch.id)
    output = mine.batches.retrieve(batch.id).output_file_id
    wait_until(lambda: ("GET", f"/v1/files/{output}/content") in model.batches.asked)  # it is settled from there
    asked = len(model.batches.asked)
    for id in (batch.input_file_id, output):
        for ask in (other.files.retrieve, other.files.content, other.files.delete):
            with pytest.raises(openai.NotFoundError):
                ask(id)
    for ask in (other.batches.retrieve, other.batches.cancel):
        with pytest.raises(openai.NotFoundError):
            ask(batch.id)
    with pytest.raises(openai.NotFoundError):
        other.batches.create(
            input_file_id=batch.input_file_id, endpoint="/v1/chat/completions", completion_window="24h"
        )
    assert list(other.files.list()) == []
    assert list(other.batches.list()) == []
    assert len(model.batches.asked) == asked  # the provider was never asked
    assert {one.id for one in client(tenant="acme").files.list()} == {batch.input_file_id, output}


def test_each_line_is_held_to_the_keys_models_and_the_provider_takes_nothing_of_a_file_with_a_wrong_one(
    model: FakeModelServer, client: Client
) -> None:
    mine = client(models=("fake/fake-model",))
    content = lines(2) + lines(1, model="gpt-5-fake")
    with pytest.raises(openai.PermissionDeniedError, match="line 3: this key may not call the model 'fake/gpt-5-fake'"):
        mine.files.create(file=("in.jsonl", content), purpose="batch")
    assert model.batches.files == {}
    smuggled = (
        lines(1).replace(b'"body": {', b'"body": {"model": "gpt-5-fake", ').replace(b"fake/fake-model", b"gpt-5-fake")
    )
    with pytest.raises(openai.PermissionDeniedError):
        mine.files.create(file=("in.jsonl", smuggled), purpose="batch")


def test_lines_reach_the_provider_under_its_own_names_with_a_bound_on_their_output(
    model: FakeModelServer, client: Client
) -> None:
    batch = batch_of(client(), lines(1, max_tokens=None, seed=7))
    body = json.loads(model.batches.contents[batch.input_file_id])["body"]
    assert body == {
        "model": "fake-model", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 4096, "seed": 7
    }  # fmt: skip


def test_a_lines_model_names_the_provider_where_no_header_does(model: FakeModelServer, client: Client) -> None:
    batch = batch_of(client(provider=None), lines(1, model="azure/fake-model"))
    assert json.loads(model.batches.contents[batch.input_file_id])["body"]["model"] == "fake-model"
    with pytest.raises(openai.BadRequestError, match="the file's provider is not named"):
        batch_of(client(provider=None), lines(1, model="fake-model"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no request"),
        (b"\n \r\n", "holds no request"),
        (b"not json\n", "line 1: "),
        (b"\n\n{not json}\n", "line 3: "),
        (lines(1).replace(b"POST", b"GET"), "line 1: it is no POST"),
        (lines(1).replace(b"custom_id", b"id"), "line 1: 'custom_id'"),
        (lines(1).replace(b"messages", b"texts"), "line 1: 'messages' is missing"),
        (lines(1, model=7), "line 1: 'model'"),
        (lines(1, stream=True), "line 1: 'stream' is true"),
        (lines(1, model="zz/ok"), "'model' is 'zz/ok', and no provider is called 'zz'; these could take the file: "),
        (lines(1, model="ok"), "the file's provider is not named; these could take the file: "),
    ],
)  # fmt: skip
def test_a_file_that_names_no_provider_is_refused_for_what_is_wrong_with_it(
    model: FakeModelServer, client: Client, content: bytes, said: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client(provider=None).files.create(file=("in.jsonl", content), purpose="batch")
    assert said in refused.value.message
    assert model.batches.files == {}


def test_blank_lines_may_stand_before_the_one_that_names_the_provider(model: FakeModelServer, client: Client) -> None:
    batch = batch_of(client(provider=None), b"\r\n\n" + lines(1, model="azure/fake-model"))
    assert json.loads(model.batches.contents[batch.input_file_id])["body"]["model"] == "fake-model"


def test_a_batch_that_could_pass_the_cap_is_refused_before_it_is_made(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    mine = client(limits=(("daily_usd", 0.001),))
    with pytest.raises(openai.RateLimitError):
        batch_of(mine, lines(3))
    assert model.batches.batches == {}
    assert settled(gateway) == 0
    batch_of(mine, lines(1, max_tokens=10))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (lines(1, web_search_options={}), "web_search_options.*line 1"),
        (lines(1, url="/v1/completions"), "url /v1/completions"),
    ],
)
def test_what_cannot_be_bounded_is_refused_under_a_cap(client: Client, content: bytes, said: str) -> None:
    endpoint = json.loads(content)["url"]
    with pytest.raises(openai.BadRequestError, match=said):
        batch_of(client(limits=(("daily_usd", 100.0),)), content, endpoint)
    assert batch_of(client(), content, endpoint).id


def test_a_file_that_is_no_batchs_cannot_be_one(client: Client) -> None:
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(1)), purpose="user_data")
    with pytest.raises(openai.BadRequestError, match="cannot be told beforehand"):
        mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")


def test_a_batch_the_provider_refuses_costs_nothing(gateway: RunningGateway, client: Client) -> None:
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(1)), purpose="batch")
    with pytest.raises(openai.BadRequestError):
        mine.batches.create(
            input_file_id=file.id,
            endpoint="/v1/chat/completions",
            completion_window="1h",  # type: ignore[arg-type]
        )
    assert settled(gateway) == 0
    assert gateway.app.holds.open_holds() == 0


class Refusing:
    """A write of the store that fails while :attr:`on` is set."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, name: str, failure: type[DBAPIError] = OperationalError
    ) -> None:
        self.on = True
        self._failure = failure
        self._write = getattr(store, name)
        monkeypatch.setattr(store, name, self)

    def __call__(self, *arguments: Any) -> None:
        if self.on:
            raise self._failure("INSERT", {}, Exception("disk I/O error"))
        self._write(*arguments)


def test_a_batch_whose_record_is_not_taken_is_cancelled_made_once_and_the_tenants_when_the_store_is_back(
    gateway: RunningGateway, model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.batches.service._AGAIN_SECONDS", 0.02)
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(2)), purpose="batch")
    records = Refusing(monkeypatch, "keep_batch")
    for _ in range(3):  # as the official client tries
        with pytest.raises(openai.InternalServerError, match="did not take the record") as refused:
            mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
        assert (refused.value.status_code, refused.value.response.headers["retry-after"]) == (503, "1")
    [batch] = model.batches.batches.values()
    assert batch["status"] == "cancelling"
    assert gateway.app.holds.open_holds() == 1
    records.on = False
    gateway.rest()
    assert gateway.app.holds.open_holds() == 0
    assert [one.id for one in mine.batches.list()] == [batch["id"]]
    model.batches.finish(batch["id"], "cancelled", only=0)
    look(gateway)
    assert settled(gateway) == 0
    assert gateway.app.charges.open() == []


def test_a_batch_that_could_not_be_cancelled_either_is_not_to_be_asked_for_again(
    gateway: RunningGateway, model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.batches.service._AGAIN_SECONDS", 0.02)
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(2)), purpose="batch")
    records = Refusing(monkeypatch, "keep_batch")
    serve = model.batches.serve
    monkeypatch.setattr(
        model.batches, "serve", lambda *given: Answer(500, b"{}") if "cancel" in given[1] else serve(*given)
    )
    with pytest.raises(openai.InternalServerError, match="could not be cancelled: it goes on") as refused:
        mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    assert refused.value.response.headers["x-should-retry"] == "false"
    records.on = False
    gateway.rest()


def test_a_record_that_no_store_would_take_cancels_its_batch_and_keeps_nobody_from_the_next(
    gateway: RunningGateway, model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(2)), purpose="batch")
    records = Refusing(monkeypatch, "keep_batch", DataError)
    asked: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    with pytest.raises(openai.InternalServerError, match="500") as refused:
        mine.batches.create(**asked)
    assert refused.value.response.headers["x-should-retry"] == "false"
    assert [one["status"] for one in model.batches.batches.values()] == ["cancelling"]
    records.on = False
    assert mine.batches.create(**asked).status == "validating"


def test_what_an_unclear_answer_may_have_made_stays_charged_once_the_store_takes_it(
    gateway: RunningGateway, model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lockgate.gateway.batches.service._AGAIN_SECONDS", 0.02)
    mine = client()
    file = mine.files.create(file=("in.jsonl", lines(2)), purpose="batch")
    model.batches.serve = lambda *_: Answer(500, b"{}")  # type: ignore[method-assign]
    charging, keep, failing_times = gateway.app.charges, charges.Charges.keep, iter((True, True))

    def refusing(self: charges.Charges, connection: Any, charge: charges.Charge) -> int:
        if next(failing_times, False):
            raise OperationalError("INSERT", {}, Exception("disk I/O error"))
        return keep(self, connection, charge)

    monkeypatch.setattr(charges.Charges, "keep", refusing)
    with pytest.raises(openai.InternalServerError):
        mine.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    gateway.rest()
    [charge] = charging.open()
    assert (charge.reason, gateway.app.holds.open_holds()) == ("died", 0)
    assert settled(gateway) > 0


def test_a_file_whose_record_is_not_taken_is_deleted_at_its_provider(
    model: FakeModelServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    Refusing(monkeypatch, "keep_file")
    with pytest.raises(openai.InternalServerError) as refused:
        client().files.create(file=("a", b"x"), purpose="user_data")
    assert refused.value.status_code == 503
    assert model.batches.files == {}


def form(*parts: tuple[str, bytes], boundary: str = "b0", end: bytes = b"--b0--\r\n") -> tuple[dict[str, str], bytes]:
    """Headers and body of a bare upload, its fields in this order."""
    body = b""
    for name, value in parts:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"'
        body += head.encode() + (b'; filename="in.jsonl"' if name == "file" else b"") + b"\r\n\r\n" + value + b"\r\n"
    return {"content-type": f"multipart/form-data; boundary={boundary}"}, body + end


def upload(gateway: RunningGateway, headers: dict[str, str], body: bytes) -> tuple[int, Any]:
    sent = {"authorization": f"Bearer {gateway.key()}", "x-lockgate-provider": "fake", **headers}
    request = urllib.request.Request(gateway.url + "/v1/files", body, sent)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_purpose_may_come_after_the_file_as_the_node_client_sends_it(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    status, file = upload(gateway, *form(("file", lines(2)), ("purpose", b"batch")))
    assert (status, file["purpose"]) == (200, "batch")
    assert b"fake/" not in model.batches.contents[file["id"]]
    status, file = upload(gateway, *form(("file", b"{no lines at all"), ("purpose", b"assistants")))
    assert status == 200, file
    assert model.batches.contents[file["id"]] == b"{no lines at all"


@pytest.mark.parametrize(
    ("headers", "body", "said"),
    [
        ({"content-type": "application/json"}, b"{}", "multipart/form-data"),
        (*form(), "misses 'file'"),
        (*form(("file", b"x")), "misses 'purpose'"),
        (*form(("purpose", b"batch"), ("file", lines(1)), end=b""), "misses its end"),
        (*form(("purpose", b"b\x00"), ("file", b"")), "'purpose' is 'b"),
        (*form(("purpose", b"batch"), ("file", b"")), "no request"),
        (*form(("purpose", b"batch"), ("file", b"not json\n")), "line 1"),
        (*form(("purpose", b"batch"), ("purpose", b"vision"), ("file", lines(1))), "one too many"),
        (*form(("file", b"plain"), ("purpose", b"batch")), "no request of a batch"),
        (*form(("purpose", b"batch"), ("file", lines(1) + lines(1, model="gpt-5-fake"))), "a batch for each"),
        (*form(("purpose", b"batch"), ("file", lines(1, stream=True))), "'stream' is true"),
        (*form(("purpose", b"batch"), ("file", lines(1, model="azure/fake-model"))), "goes to provider 'fake'"),
    ],
)  # fmt: skip
def test_an_upload_that_is_wrong_is_refused_in_words_and_the_provider_keeps_nothing(
    gateway: RunningGateway, model: FakeModelServer, headers: dict[str, str], body: bytes, said: str
) -> None:
    status, answer = upload(gateway, headers, body)
    assert status == 400, answer
    assert said in answer["error"]["message"]
    assert model.batches.files == {}
    assert gateway.ask(gateway.key())[0] == 200  # the worker lives


@pytest.mark.parametrize(
    "query", ["a=1&" * 65, "order=up", "limit=0", "limit=10001", "after=file-none", "after=%00", "purpose=%00"]
)
def test_a_list_that_is_asked_for_wrongly_is_refused(gateway: RunningGateway, query: str) -> None:
    asked = urllib.request.Request(
        f"{gateway.url}/v1/files?{query}", headers={"authorization": f"Bearer {gateway.key()}"}
    )
    with pytest.raises(urllib.error.HTTPError, match="400") as refused:
        urllib.request.urlopen(asked, timeout=60)
    refused.value.close()


def test_what_is_no_file_and_no_batch_is_not_found_in_the_clients_own_shape(gateway: RunningGateway) -> None:
    sent = {"authorization": f"Bearer {gateway.key()}"}
    for path in ("/v1/files/a/b/c", "/v1/files/..%2Fbatches", "/v1/batches/x/y"):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(gateway.url + path, headers=sent), timeout=60)
        with refused.value as error:
            assert error.code == 404
            assert json.loads(error.read())["error"]["code"] == "not_found"


@pytest.mark.parametrize(
    ("answer", "status", "said"),
    [
        (Answer(502, b"<html>bad gateway</html>", "text/html"), 502, "answered 502: <html>bad gateway"),
        (Answer(404, b"", "text/plain"), 404, "answered 404"),
        (Answer(200, b"<html>log in</html>", "text/html"), 502, "no object that has an id: '<html>log in"),
        (Answer(200, b'{"object": "file"}'), 502, "no object that has an id"),
        (Answer(204, b""), 502, "no object that has an id"),
        (Answer(302, b""), 502, "answered 302"),
    ],
)
def test_what_no_client_could_read_is_an_error_in_its_own_shape(
    model: FakeModelServer, client: Client, answer: Answer, status: int, said: str
) -> None:
    model.batches.serve = lambda *_: answer  # type: ignore[method-assign]
    with pytest.raises(openai.APIStatusError, match=said) as refused:
        client().files.create(file=("a", b"x"), purpose="user_data")
    body: Any = refused.value.body
    assert (refused.value.status_code, body["code"]) == (status, "upstream_error")


def test_a_batch_whose_status_is_no_word_has_not_ended(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    mine = client()
    batch = batch_of(mine, lines(1))
    model.batches.batches[batch.id]["status"] = ["completed"]
    assert mine.batches.with_raw_response.retrieve(batch.id).status_code == 200
    assert len(mine.batches.list().data) == 1
    assert look(gateway) == 1
    assert [charge.reason for charge in gateway.app.charges.open()] == ["batch"]


def test_a_file_is_deleted_also_where_the_provider_says_nothing_more(model: FakeModelServer, client: Client) -> None:
    mine = client()
    file = mine.files.create(file=("a", b"x"), purpose="user_data")
    model.batches.serve = lambda *_: Answer(204, b"")  # type: ignore[method-assign]
    deleted = mine.files.delete(file.id)
    assert (deleted.id, deleted.deleted) == (file.id, True)
    assert mine.files.list().data == []


def test_what_the_api_document_has_of_files_and_batches_is_there(gateway: RunningGateway) -> None:
    sent = {"authorization": f"Bearer {gateway.key()}", "content-type": "application/json"}
    asked = {
        (method, path): b"{}" if method == "post" else None
        for path, operations in data_plane().items()
        for method in operations
        if path.startswith(("/v1/files", "/v1/uploads", "/v1/batches"))
    }
    for path in ("/v1/files", "/v1/batches"):
        del asked["get", path]  # the lists, which are empty
    assert len(asked) == 11
    for (method, path), body in asked.items():
        url = gateway.url + path.translate({ord(mark): None for mark in "{}"})
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(urllib.request.Request(url, body, sent, method=method.upper()), timeout=60)
        with refused.value as error:
            assert error.code in (400, 404)
            assert "there is no" not in json.loads(error.read())["error"]["message"], (method, path)


def test_a_tenant_of_which_nothing_is_stored_has_no_files_at_providers(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    gateway.tenants(acme=TenantSpec(no_store=True))
    mine = client()
    with pytest.raises(openai.PermissionDeniedError, match="a provider keeps files"):
        mine.files.create(file=("in.jsonl", lines(1)), purpose="batch")
    with pytest.raises(openai.PermissionDeniedError, match="a provider keeps files"):
        mine.uploads.create(filename="a", bytes=1, mime_type="text/plain", purpose="user_data")
    assert model.batches.asked == []


def test_a_batch_is_one_request_of_a_rate_whatever_its_lines(gateway: RunningGateway, client: Client) -> None:
    mine = client(limits={"requests_per_minute": 2})
    file = mine.files.create(file=("in.jsonl", lines(9)), purpose="batch")
    make = mine.batches.with_raw_response.create
    asked: Any = {"input_file_id": file.id, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert [make(**asked).headers["x-ratelimit-remaining-requests"] for _ in range(2)] == ["1", "0"]
    with pytest.raises(openai.RateLimitError) as refused:
        make(**asked)
    assert 0 < int(refused.value.response.headers["retry-after"]) <= 30
    assert refused.value.response.headers["x-ratelimit-remaining-requests"] == "0"


def test_what_a_settled_batch_cost_is_in_the_metrics(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    model.respond = lambda _: Reply(text="good day", usage=USED)
    mine = client()
    batch = batch_of(mine, lines(3))
    model.batches.finish(batch.id)
    mine.batches.retrieve(batch.id)
    wait_until(lambda: settled(gateway) == 3 * COST)
    told = 'lockgate_cost_usd_total{environment="dev",agent="",gen_ai_request_model="fake/fake-model"} 0.006'
    assert told in gateway.metrics()


def test_a_large_file_comes_in_parts_and_is_the_tenants_own(
    gateway: RunningGateway, model: FakeModelServer, client: Client
) -> None:
    mine, other = client(), client(tenant="other")
    first, second = bytes(range(256)) * 300, b"\r\n--end"
    upload = mine.uploads.create(
        filename="a.bin", bytes=len(first + second), mime_type="application/octet-stream", purpose="user_data"
    )
    parts = [mine.uploads.parts.create(upload.id, data=data).id for data in (first, second)]
    for wrong in (other.uploads.cancel, lambda id: other.uploads.complete(id, part_ids=parts)):
        with pytest.raises(openai.NotFoundError, match="is open"):
            wrong(upload.id)
    whole = mine.uploads.complete(upload.id, part_ids=parts)
    assert whole.file is not None
    assert mine.files.content(whole.file.id).read() == first + second == model.batches.contents[whole.file.id]
    assert [one.id for one in mine.files.list()] == [whole.file.id]
    assert list(other.files.list()) == []
    with pytest.raises(openai.BadRequestError, match="cannot be told beforehand"):  # nobody looked into its lines
        mine.batches.create(input_file_id=whole.file.id, endpoint="/v1/responses", completion_window="24h")
    dropped = mine.uploads.create(filename="b", bytes=1, mime_type="text/plain", purpose="user_data")
    assert mine.uploads.cancel(dropped.id).status == "cancelled"
    with pytest.raises(openai.NotFoundError):
        mine.uploads.parts.create(dropped.id, data=b"x")
    with pytest.raises(openai.BadRequestError, match="up to 512 MB"):
        mine.uploads.create(filename="b", bytes=1, mime_type="text/plain", purpose="batch")


def test_what_is_known_of_files_and_batches_is_a_tenants_own_in_an_environment(control: Database) -> None:
    def file(tenant: str, number: int, environment: str = "dev") -> File:
        return File(
            environment=environment, provider="openai", id=f"file-{tenant}-{number}", tenant=tenant, key_id="k",
            created_at=float(number // 2), purpose="batch", object={"id": f"file-{tenant}-{number}"},
        )  # fmt: skip

    me, other = (Identity(key_id="k", tenant=tenant, environment="dev") for tenant in ("acme", "evil"))
    with control.write() as connection:
        for number in range(5):
            store.keep_file(connection, file("acme", number))
        store.keep_file(connection, file("acme", 9, "prod"))
        store.keep_file(connection, msgspec.structs.replace(file("acme", 0), tenant="evil"))  # it stays whose it is
    with control.read() as connection:
        assert store.find_file(connection, other, "file-acme-0") is None
        assert store.find_file(connection, me, "file-acme-9") is None
        seen: list[str] = []
        while page := store.list_files(
            connection, me, purpose=None, after=seen[-1] if seen else None, limit=2, ascending=False
        )[:2]:
            seen += [one.id for one in page]
        with pytest.raises(InputError, match="'after' is 'file-acme-9', which is not there"):  # not in this environment
            store.list_batches(connection, me, after="file-acme-9", limit=2)
    assert seen == [f"file-acme-{number}" for number in (4, 3, 2, 1, 0)]
