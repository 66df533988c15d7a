"""Embeddings on this machine, and of a provider that speaks OpenAI's ``/embeddings``."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.evals import embeddings
from lockgate.evals.golden.lint import Around, lint
from lockgate.evals.golden.near import lexical
from lockgate.evals.model import Case, Metric
from lockgate.evals.rubric import parse_rubric
from lockgate.evals.scorers import Mark, Sample
from lockgate.evals.scorers.making import make_scorer
from lockgate.results import RunResult

KEY = "planted0embedding1key"


class Provider:
    """Gives each text the vector of its letters a, b and c, in an order of its own."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answer: Any = None
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append({**asked, "path": self.path, "key": self.headers["authorization"]})
                rows = [
                    {"index": n, "embedding": [float(text.count(letter)) for letter in "abc"]}
                    for n, text in enumerate(asked["input"])
                ]
                given = {"data": rows[::-1]} if outer.answer is None else outer.answer(asked, self.headers)
                body = given if isinstance(given, bytes) else json.dumps(given).encode()
                self.send_response(outer.status, "no such key " + self.headers["authorization"])
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)


@pytest.fixture
def provider() -> Iterator[Provider]:
    found = Provider()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    yield found
    found.server.shutdown()
    found.server.server_close()
    thread.join(60)


@pytest.fixture
def root(tmp_path: Path, provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EMBED_KEY", KEY)
    port = provider.server.server_address[1]
    (tmp_path / "lockgate.yaml").write_text(
        "project: p\nproviders:\n"
        f"  near: {{kind: openai, base_url: 'http://127.0.0.1:{port}/v1', api_key: '${{env:EMBED_KEY}}'}}\n"
        "  here: {kind: local}\n"
    )
    return tmp_path


def scored(root: Path, answer: Any, expected: Any, **options: Any) -> float | None:
    metric = Metric(name="embedding_similarity", scorer="embedding_similarity", options=options)
    case = Case(id="c", input="x", expected_output=expected)
    mark = make_scorer(metric, root)(Sample(case, "x", RunResult(status="completed", output=answer)))
    assert not isinstance(mark, Mark)
    return asyncio.run(mark).value  # type: ignore[arg-type]


def test_the_model_on_this_machine_finds_the_same_thing_in_other_words() -> None:
    texts = ("How can I get my money back?", "How do I get a refund?", "How do I bake bread?")
    one, other, bread = embeddings.local(texts)
    assert one.shape == (384,)
    assert np.linalg.norm(one) == pytest.approx(1.0, abs=1e-5)
    assert one @ other > 0.7 > 0.4 > one @ bread
    assert embeddings.local([]).shape == (0, 384)
    alone = embeddings.local([texts[0]])[0]
    assert alone @ one > 0.98  # padding beside longer texts changes next to nothing


def test_near_duplicates_in_other_words_are_found_by_embeddings_and_not_by_letters() -> None:
    cases = [
        Case(id="a", input="Is shipping to Canada free?", expected_output="x"),
        Case(id="b", input="Do you ship to Canada for free?", expected_output="x"),
        Case(id="c", input="The lamp is broken", expected_output="y"),
    ]
    found = embeddings.installed()
    assert found is not None
    [near] = [one for one in lint(cases, Around(), found) if one.rule == "near-duplicate"]
    assert near.cases == ["a", "b"]
    assert "all-MiniLM-L6-v2" in near.message
    assert not [one for one in lint(cases, Around(), lexical()) if one.rule == "near-duplicate"]


def test_a_file_that_is_not_the_known_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    package, name, _ = embeddings.TOKENIZER
    with pytest.raises(InputError, match="is not the known file"):
        embeddings._file(package, name, "0" * 64)


def test_without_the_extra_the_remedy_is_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "_found", lambda package: package != "onnxruntime")
    assert embeddings.installed() is None
    with pytest.raises(InputError, match="onnxruntime is not installed") as missing:
        parse_rubric({"thresholds": {"embedding_similarity": 0.8}}, Path())
    assert "lockgate[embeddings]" in (missing.value.remedy or "")


def test_a_provider_scores_by_its_own_vectors_whatever_their_order(root: Path, provider: Provider) -> None:
    assert scored(root, "aab", "aab", model="near:e-1") == pytest.approx(1.0)
    assert scored(root, "aaa", "bbb", model="near:e-1") == 0.0
    assert scored(root, "aab", "abb", model="near:e-1") == pytest.approx(0.8)
    asked = provider.requests[0]
    assert (asked["path"], asked["model"], asked["key"]) == ("/v1/embeddings", "e-1", f"Bearer {KEY}")
    many = embeddings.of_provider("near:e-1", root).embed(["a"] * 250)
    assert many.shape == (250, 3)
    assert [len(request["input"]) for request in provider.requests[-3:]] == [100, 100, 50]


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {"error": f"no such key {KEY}"}),
        (200, b"not json"),
        (200, {"data": []}),
        (200, {"data": [{"index": 0, "embedding": [1.0]}, {"index": 1, "embedding": [1.0, 2.0]}]}),
        (200, {"data": [{"index": 0, "embedding": [None]}, {"index": 1, "embedding": [1.0]}]}),
    ],
)
def test_nonsense_of_a_provider_is_said_without_its_key(
    root: Path, provider: Provider, status: int, answer: Any
) -> None:
    provider.status, provider.answer = status, lambda asked, headers: answer
    with pytest.raises(Unavailable, match="near:e-1 gave no embeddings") as failure:
        scored(root, "a", "b", model="near:e-1")
    assert KEY not in str(failure.value)


@pytest.mark.parametrize("model", ["near", "here:m", "nowhere:m"])
def test_a_model_that_cannot_be_is_refused_when_the_rubric_is_read(root: Path, model: str) -> None:
    with pytest.raises(InputError):
        parse_rubric({"thresholds": {"embedding_similarity": {"min": 0.8, "model": model}}}, root)
