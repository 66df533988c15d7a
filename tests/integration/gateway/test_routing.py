"""A cheaper model for the easy cases, and hints to providers that keep the start of a prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec
import pytest

from lockgate.gateway.protocols.chat import Chat
from lockgate.gateway.protocols.messages import Messages
from lockgate.gateway.protocols.passages import passage_to
from lockgate.gateway.routing import prefix
from lockgate.gateway.routing.triage import Decision, Routing, by_rule, by_word, tags_of
from lockgate.project.guards import TenantSpec
from lockgate.results import Usage
from lockgate.testing import FakeModelServer, Reply, failing
from lockgate.versions.model import ModelRef

if TYPE_CHECKING:
    from conftest import RunningGateway

USED = Usage(input_tokens=1000, output_tokens=500)


@pytest.fixture
def project_folder(project_folder: Path) -> Path:
    (project_folder / "prices.yaml").write_text(
        "fake: {fake-model: {input: 10.0, output: 20.0}, small: {input: 1.0, output: 2.0}}\n"
        "strict: {fake-model: {input: 1.0, output: 2.0}}\n"
    )
    return project_folder


def tiered(gateway: RunningGateway, **routing: Any) -> None:
    gateway.version = msgspec.structs.replace(
        gateway.version, triage=ModelRef(provider="fake", name="small", temperature=0.0, max_tokens=64), routing=routing
    )


def route_of(headers: dict[str, str]) -> str:
    return {name.lower(): value for name, value in headers.items()}["x-lockgate-route"]


def test_the_small_model_answers_what_it_calls_easy(gateway: RunningGateway, model: FakeModelServer) -> None:
    tiered(gateway)
    model.respond = lambda request: Reply(
        text="EASY" if "EASY or HARD?" in str(request.body) else request.model,
        usage=Usage(input_tokens=100, output_tokens=1) if "EASY or HARD?" in str(request.body) else USED,
    )
    _, headers, body = gateway.ask(gateway.run_token(), "what are your hours?", max_tokens=500)
    assert json.loads(body)["choices"][0]["message"]["content"] == "small"
    assert route_of(headers) == "triage; classifier"
    assert model.requests[-1].body["max_tokens"] == 64
    asked, answered = gateway.spans()
    noted = json.loads(answered.attributes)
    asking = (100 * 1 + 1 * 2) / 1e6
    assert asked.cost_nano == asking * 1e9
    assert noted["lockgate.route.asking_usd"] == pytest.approx(asking)
    assert noted["lockgate.route.saved_usd"] == pytest.approx(0.02 - 0.002 - asking)
    assert (noted["lockgate.route.tier"], noted["lockgate.route.by"]) == ("triage", "classifier")


def test_the_small_model_is_not_asked_about_what_the_cache_answers(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    tiered(gateway, hard_tags=["legal"])
    gateway.version = msgspec.structs.replace(gateway.version, cache={"exact": True, "ttl": 60.0})
    model.respond = lambda request: "EASY" if "EASY or HARD?" in str(request.body) else request.model
    token = gateway.run_token()

    def ask(headers: dict[str, str] | None = None) -> tuple[str, str]:
        _, told, body = gateway.ask(token, "hi", headers=headers, temperature=0)
        answered = {name.lower(): value for name, value in told.items()}
        return answered["x-lockgate-cache"], json.loads(body)["choices"][0]["message"]["content"]

    assert ask() == ("miss", "small")
    assert len(model.requests) == 2
    assert ask() == ("exact", "small")
    assert len(model.requests) == 2
    assert ask({"x-lockgate-tags": "legal"}) == ("miss", "fake-model")  # by another model, whatever is kept


@pytest.mark.parametrize("said", ["HARD", "It is EASY", "", "perhaps"])
def test_the_strong_model_answers_whatever_is_not_plainly_easy(
    gateway: RunningGateway, model: FakeModelServer, said: str
) -> None:
    tiered(gateway)
    model.respond = lambda request: said or " " if "EASY or HARD?" in str(request.body) else request.model
    _, headers, body = gateway.ask(gateway.run_token())
    assert json.loads(body)["choices"][0]["message"]["content"] == "fake-model"
    assert route_of(headers) == "model; classifier"


def test_the_strong_model_takes_the_place_of_a_small_one_that_fails(
    gateway: RunningGateway, model: FakeModelServer
) -> None:
    tiered(gateway, easy_below=100)
    model.respond = lambda request: failing(404) if request.model == "small" else "strong"
    status, headers, body = gateway.ask(gateway.run_token())
    assert (status, json.loads(body)["choices"][0]["message"]["content"]) == (200, "strong")
    assert route_of(headers) == "triage; tokens"
    assert [request.model for request in model.requests] == ["small", "fake-model"]


def test_a_triage_model_that_is_away_makes_nothing_easy(gateway: RunningGateway, model: FakeModelServer) -> None:
    tiered(gateway)
    model.respond = lambda request: failing(400) if request.model == "small" else "strong"
    status, headers, _ = gateway.ask(gateway.run_token())
    assert (status, route_of(headers)) == (200, "model; unanswered")


def test_rules_decide_without_asking(gateway: RunningGateway, model: FakeModelServer) -> None:
    tiered(gateway, easy_tags=["faq"], ask=False)
    model.respond = lambda request: request.model
    _, headers, body = gateway.ask(gateway.run_token(), headers={"x-lockgate-tags": "web, faq"})
    assert (route_of(headers), json.loads(body)["choices"][0]["message"]["content"]) == ("triage; tag", "small")
    assert route_of(gateway.ask(gateway.run_token())[1]) == "model; default"
    assert len(model.requests) == 2


def test_calls_of_no_agent_are_not_routed(gateway: RunningGateway, model: FakeModelServer) -> None:
    tiered(gateway)
    _, headers, _ = gateway.ask(gateway.key())
    assert "x-lockgate-route" not in {name.lower() for name in headers}


def test_the_dearer_model_wins_where_rules_differ() -> None:
    routing = Routing(easy_below=100, hard_above=1000, easy_tags=("faq",), hard_tags=("legal",))
    assert by_rule(routing, ["faq", "legal"], 10) == Decision("model", "tag")
    assert by_rule(routing, ["faq"], 2000) == Decision("model", "tokens")
    assert by_rule(routing, [], 99) == Decision("triage", "tokens")
    assert by_rule(routing, [], 500) is None
    assert by_word("**Easy**.").tier == "triage"
    assert tags_of(" a, ,b ") == ["a", "b"]


# --- prefixes -------------------------------------------------------------------------------------------------


def test_a_long_system_prompt_is_marked_for_anthropic() -> None:
    body = {
        "model": "claude/x",
        "max_tokens": 9,
        "system": "rules " * 1000,
        "messages": [{"role": "user", "content": "hi"}],
    }
    request = Messages().read(json.dumps(body).encode())
    hinted = prefix.hinted(request, "anthropic", "api.anthropic.com", "digest")
    assert hinted.decoded("system")[0]["cache_control"] == {"type": "ephemeral"}
    assert prefix.hinted(hinted, "anthropic", "api.anthropic.com", "digest") is hinted
    short = Messages().read(json.dumps({**body, "system": "short"}).encode())
    assert prefix.hinted(short, "anthropic", "api.anthropic.com", "digest") is short


def test_a_long_system_prompt_of_a_chat_is_marked_where_it_is_translated() -> None:
    def sent(prompt: str) -> dict[str, Any]:
        messages = [{"role": "system", "content": prompt}, {"role": "user", "content": "hi"}]
        request = Chat().read(json.dumps({"model": "claude/x", "messages": messages}).encode())
        hinted = prefix.hinted(request, "anthropic", "api.anthropic.com", "digest")
        return cast("dict[str, Any]", json.loads(passage_to(hinted.dialect, "anthropic").forward(hinted, "x", 9)))

    assert sent("rules " * 1000)["system"][-1]["cache_control"] == {"type": "ephemeral"}
    assert "cache_control" not in sent("short")["system"][-1]


def test_openai_gets_a_key_and_servers_that_merely_speak_like_it_do_not() -> None:
    request = Chat().read(b'{"model": "openai/x", "messages": [{"role": "user", "content": "hi"}]}')
    assert prefix.hinted(request, "openai", "api.openai.com", "sha256:ab").decoded("prompt_cache_key") == "sha256:ab"
    assert prefix.hinted(request, "openai", "127.0.0.1", "sha256:ab") is request


@pytest.mark.parametrize("own", [None, "mine"])
def test_a_fallback_is_not_given_the_key_that_was_added_for_openai(
    gateway: RunningGateway, model: FakeModelServer, monkeypatch: pytest.MonkeyPatch, own: str | None
) -> None:
    monkeypatch.setattr(prefix, "OPENAI", "localhost")
    fake = gateway.app.project.config.providers["fake"]
    providers = {
        "fake": fake.model_copy(update={"base_url": model.base_url.replace("127.0.0.1", "localhost"), "retries": 0}),
        "strict": fake.model_copy(update={"base_url": model.base_url}),
    }
    gateway.app.project.config = gateway.app.project.config.model_copy(update={"providers": providers})
    gateway.tenants(acme=TenantSpec.model_validate({"cache": True}))
    answers = iter([failing(500, "no"), Reply(text="from the fallback")])
    model.respond = lambda _: next(answers)
    given = {} if own is None else {"prompt_cache_key": own}
    status, _, body = gateway.ask(
        gateway.key(), headers={"x-lockgate-fallbacks": "strict/fake-model"}, max_tokens=9, **given
    )
    assert (status, b"from the fallback" in body) == (200, True)
    first, fallback = (request.body for request in model.requests)
    assert own in (None, first["prompt_cache_key"])
    assert fallback.get("prompt_cache_key") == own


@pytest.mark.parametrize("of_agent", [False, True])
@pytest.mark.parametrize(("no_store", "kept"), [(False, True), (True, False)])
def test_a_tenants_cache_and_an_agents_hint_unless_nothing_may_be_stored(
    gateway: RunningGateway, model: FakeModelServer, no_store: bool, kept: bool, of_agent: bool
) -> None:
    providers = gateway.app.project.config.providers
    claude = providers["fake"].model_copy(update={"kind": "anthropic"})
    changed = {"providers": {**providers, "fake": claude}}
    gateway.app.project.config = gateway.app.project.config.model_copy(update=changed)
    gateway.tenants(acme=TenantSpec.model_validate({"cache": not of_agent, "no_store": no_store}))
    if of_agent:
        gateway.version = msgspec.structs.replace(gateway.version, cache={"exact": False})
    messages = [{"role": "system", "content": "rules " * 1000}, {"role": "user", "content": "hi"}]
    assert gateway.ask(gateway.run_token() if of_agent else gateway.key(), messages)[0] == 200
    assert ("cache_control" in str(model.requests[0].body["system"])) is kept
