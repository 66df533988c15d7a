"""The forms a scorecard is written in: each carries the verdict, and nothing from outside breaks out of it."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from lxml import etree

from lockgate.errors import InputError, Refused, Unavailable
from lockgate.evals.model import Case, Interval, MetricCard, Scorecard
from lockgate.evals.reports.cases import CaseView, TrialView
from lockgate.evals.reports.comments import Place, place_of, post
from lockgate.evals.reports.html import html
from lockgate.evals.reports.inspect_log import write_log
from lockgate.evals.reports.junit import junit
from lockgate.results import RunResult

EVIL = "<script>alert('x')</script>\x00 & \"q\""


@pytest.fixture
def card(make_card: Callable[..., Scorecard], make_metric: Callable[..., MetricCard]) -> Callable[..., Scorecard]:
    """A scorecard of one case with this verdict, and with what nobody should trust in its texts."""

    def made(verdict: str = "fail") -> Scorecard:
        metric = make_metric(
            "exact_match", verdict=verdict, reason=EVIL, mean=0.5, interval=Interval(0.4, 0.6), minimum=0.8
        )
        return make_card(cases=1, trials=1, verdict=verdict, reasons=[EVIL], metrics=[metric])

    return made


def one(output: str = EVIL, value: float = 0.0) -> CaseView:
    def trial(text: str) -> TrialView:
        result = RunResult(status="completed", output=text, seconds=0.5)
        return TrialView(trial=0, result=result, scores={"exact_match": (value, "scored", EVIL)})

    case = Case(id=f"c{EVIL}", input=EVIL, expected_output="approve", tags=["t"])
    return CaseView(case=case, trials=[trial(output)], baseline=[trial("deny it")], marks=["failed"])


def test_the_html_report_escapes_everything_and_loads_nothing(card: Callable[..., Scorecard]) -> None:
    page = html(card(), [one()])
    assert "<script>alert" not in page
    assert page.count("<script>") == 1
    assert "http://" not in page
    assert "https://" not in page
    assert "default-src 'none'" in page
    assert "<del>" in page
    assert "<svg" in page


@pytest.mark.parametrize(("verdict", "counted"), [("pass", (0, 0)), ("fail", (1, 0)), ("inconclusive", (0, 1))])
def test_junit_is_never_green_when_the_gate_is_not(
    verdict: str, counted: tuple[int, int], card: Callable[..., Scorecard]
) -> None:
    root = ElementTree.fromstring(junit(card(verdict), [one()]).encode())
    assert (int(root.attrib["failures"]), int(root.attrib["errors"])) == counted
    gate, cases = root.findall("testsuite")
    assert gate.attrib["tests"] == "1"
    assert [case.attrib["classname"] for case in cases.findall("testcase")] == ["triage.cases"]


@pytest.mark.parametrize("verdict", ["pass", "fail", "inconclusive"])
def test_junit_keeps_to_its_schema_and_counts_what_is_there(verdict: str, card: Callable[..., Scorecard]) -> None:
    missing = CaseView(case=Case(id="m", input=""), trials=[], marks=["missing"])
    document = etree.fromstring(junit(card(verdict), [one(), missing, one("approve", 1.0)]).encode())
    etree.XMLSchema(file=Path(__file__).with_name("junit.xsd")).assertValid(document)
    for suite in document:
        found = [len(suite.findall(f"testcase/{name}")) for name in ("failure", "error", "skipped")]
        counted = [int(suite.get(name)) for name in ("tests", "failures", "errors", "skipped")]
        assert counted == [len(suite), *found]
    assert int(document.get("tests")) == len(document.findall("testsuite/testcase"))
    assert document.find("testsuite[2]/testcase/system-out").text == EVIL.replace("\x00", "�")


def test_the_inspect_log_has_a_sample_a_trial(tmp_path: Path, card: Callable[..., Scorecard]) -> None:
    write_log(tmp_path / "log.eval", card(), [one()])
    with zipfile.ZipFile(tmp_path / "log.eval") as log:
        header = json.loads(log.read("header.json"))
        (name,) = [name for name in log.namelist() if name.startswith("samples/")]
        sample = json.loads(log.read(name))
    assert header["results"]["scores"][0]["metrics"]["mean"]["value"] == 0.5
    assert sample["scores"]["exact_match"]["value"] == 0.0
    assert sample["epoch"] == 1


# --- comments -------------------------------------------------------------------------------------------------


class Forge(HTTPServer):
    """GitHub's and GitLab's comments, in a list."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.comments: list[dict[str, Any]] = [{"id": n, "body": f"other {n}"} for n in range(130)]
        self.calls: list[str] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Forge

    def _answer(self, status: int, data: Any) -> None:
        body = json.dumps(data).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _serve(self) -> None:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("PRIVATE-TOKEN")
        size = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(size)) if size else None
        path, _, query = self.path.partition("?")
        self.server.calls.append(f"{self.command} {path}")
        if token == "broken":
            self._answer(500, {"message": "down"})
        elif token != "good":
            self._answer(401, {"message": "Bad credentials"})
        elif self.command == "GET":
            page = int(dict(part.split("=") for part in query.split("&"))["page"])
            self._answer(200, self.server.comments[(page - 1) * 100 : page * 100])
        elif self.command == "POST":
            self.server.comments.append({"id": 500, "body": body["body"], "html_url": "made"})
            self._answer(201, self.server.comments[-1])
        else:
            wanted = int(path.rpartition("/")[2])
            found = next(one for one in self.server.comments if one["id"] == wanted)
            found["body"] = body["body"]
            self._answer(200, found)

    do_GET = do_POST = do_PATCH = do_PUT = _serve

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def forge() -> Iterator[Forge]:
    server = Forge()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join(60)
    server.server_close()


@pytest.mark.parametrize(
    ("kind", "update"),
    [
        ("github", "PATCH /repos/acme%2Fshop/issues/comments/500"),
        ("gitlab", "PUT /projects/acme%2Fshop/merge_requests/7/notes/500"),
    ],
)
def test_a_comment_is_made_once_and_then_updated_in_place(forge: Forge, kind: str, update: str) -> None:
    place = Place(kind, forge.url, "acme/shop", 7, "good")
    assert post(place, "<!-- m -->", "<!-- m -->\nfirst").action == "created"
    assert post(place, "<!-- m -->", "<!-- m -->\nsecond").action == "updated"
    assert forge.comments[-1]["body"] == "<!-- m -->\nsecond"
    assert len(forge.comments) == 131
    assert forge.calls[-1].replace("acme/shop", "acme%2Fshop") == update


@pytest.mark.parametrize(("token", "error"), [("wrong", Refused), ("broken", Unavailable)])
def test_a_forge_that_refuses_is_a_stated_outcome_without_the_token(forge: Forge, token: str, error: Any) -> None:
    with pytest.raises(error) as wrong:
        post(Place("github", forge.url, "a/b", 1, token), "m", "m")
    assert f" {token} " not in wrong.value.message
    assert wrong.value.remedy


def test_a_forge_that_is_away_is_said() -> None:
    with pytest.raises(Unavailable, match="does not answer"):
        post(Place("github", "http://127.0.0.1:9", "a/b", 1, "t"), "m", "m")


def test_where_to_comment_is_read_from_ci() -> None:
    github = {"GITHUB_REPOSITORY": "a/b", "GITHUB_TOKEN": "t"}
    assert place_of(github, event={"pull_request": {"number": 3}})[1:4] == ("https://api.github.com", "a/b", 3)
    gitlab = {"GITLAB_CI": "true", "CI_MERGE_REQUEST_IID": "4", "CI_PROJECT_ID": "9", "GITLAB_TOKEN": "t"}
    assert place_of(gitlab).number == 4
    for environment in ({}, github, {**github, "GITHUB_TOKEN": "", "LOCKGATE_PR_NUMBER": "3"}):
        with pytest.raises(InputError) as wrong:
            place_of(environment)
        assert wrong.value.remedy
