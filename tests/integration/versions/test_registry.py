"""Push and pull against a real registry (Debian's docker-registry): without a login, with a password, with tokens."""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from tests.integration.versions.token_server import ISSUER, SERVICE, TokenServer

from lockgate.bootstrap import App
from lockgate.errors import Conflict, Corrupt, NotFound, Refused, Unauthenticated, Unavailable
from lockgate.project.service import load_project
from lockgate.versions.registry.client import INDEX, Registry, fallback_tag, open_registry
from lockgate.versions.registry.credentials import Credentials
from lockgate.versions.registry.reference import Reference, parse
from lockgate.versions.registry.service import pull_version, push_version

BINARY = shutil.which("docker-registry")
pytestmark = pytest.mark.integration_only


class Server:
    """A registry of this test's own."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder / "registry"
        config = folder / "registry.yml"
        config.write_text(
            f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {self.folder}}}}}\n"
            f"http: {{addr: '127.0.0.1:0'}}\n{extra}"
        )
        assert BINARY is not None, "these tests need Debian's docker-registry and apache2-utils: .ci/run installs them"
        with open(folder / "registry.log", "wb") as log:
            self.process = subprocess.Popen([BINARY, "serve", str(config)], stdout=log, stderr=log)
        give_up = time.monotonic() + 60
        while True:
            said = (folder / "registry.log").read_text()
            if found := re.search(r"listening on (127\.0\.0\.1:\d+)", said):
                self.host = found[1]
                return
            assert time.monotonic() < give_up, said
            time.sleep(0.05)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(60)

    def blob(self, digest: str) -> Path:
        value = digest.removeprefix("sha256:")
        return self.folder / "docker/registry/v2/blobs/sha256" / value[:2] / value / "data"


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    running = Server(tmp_path)
    yield running
    running.stop()


@pytest.fixture
def app(acme: Path) -> App:
    opened = App(load_project(acme))
    opened.versions.lock()
    return opened


@pytest.fixture
def elsewhere(acme: Path, tmp_path: Path) -> App:
    """The same project file on another machine: nothing locked, another key."""
    root = tmp_path / "elsewhere"
    root.mkdir()
    shutil.copy(acme / "lockgate.yaml", root)
    return App(load_project(root))


def at(server: Server, tag: str = "v1") -> Reference:
    return parse(f"oci://{server.host}/team/triage:{tag}")


def test_a_version_and_its_verdict_arrive_on_another_machine(server: Server, app: App, elsewhere: App) -> None:
    from lockgate.versions.attestation import key_text
    from lockgate.versions.signing import signing_key

    ref = app.versions.ref("triage", "prod")
    app.versions.attest("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r", "pass", {})
    app.versions.attach(ref.behaviour_digest, "application/vnd.lockgate.scorecard.v1+json", "scorecard.json", b"{}")
    pushed = push_version(app.versions, "triage", at(server))
    assert (pushed.digest, pushed.referrers) == (ref.behaviour_digest, 3)
    assert push_version(app.versions, "triage", at(server)).uploaded == 0
    got = pull_version(elsewhere.versions, at(server))
    assert got.digest == ref.behaviour_digest
    assert elsewhere.versions.settings(got.digest) == app.versions.settings(got.digest)
    assert elsewhere.versions.verify() == []
    there = elsewhere.versions.ref(got.digest, "prod")
    assert there == ref
    assert "does not trust" in elsewhere.versions.gate(there, "prod").refusals[0].why
    with open(elsewhere.project.root / "lockgate.yaml", "a") as file:
        file.write(f"trusted_keys: {{ci: '{key_text(signing_key(app.home).public_key())}'}}\n")
    assert App(load_project(elsewhere.project.root)).versions.gate(there, "prod").signer == "ci"


def test_a_tag_of_another_version_is_not_taken_unasked(server: Server, app: App, elsewhere: App) -> None:
    first = push_version(app.versions, "triage", at(server)).digest
    (app.project.root / "prompts/triage.md").write_text("Another.\n")
    app.versions.lock()
    with pytest.raises(Conflict, match=first):
        push_version(app.versions, "triage", at(server))
    second = push_version(app.versions, "triage", at(server), move=True).digest
    assert first != second
    with pytest.raises(Refused, match="was moved"):
        pull_version(elsewhere.versions, parse(f"{at(server)}@{first}"))
    assert list(elsewhere.versions.history()) == []


def test_a_corrupt_part_is_an_error_and_nothing_is_there(server: Server, app: App, elsewhere: App) -> None:
    digest = push_version(app.versions, "triage", at(server)).digest
    part = app.versions.blobs.get(digest)
    victim = json.loads(part)["layers"][0]["digest"]
    path = server.blob(victim)
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(Corrupt, match="other bytes"):
        pull_version(elsewhere.versions, at(server))
    assert victim not in elsewhere.versions.blobs
    assert list(elsewhere.versions.history()) == []


def test_a_push_that_breaks_off_tags_nothing_and_goes_on_later(
    server: Server, app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Registry.put_blob
    sent: list[str] = []

    async def failing(self: Registry, digest: str, data: bytes) -> None:
        if len(sent) >= 3:
            raise Unavailable("the registry went away")
        await real(self, digest, data)
        sent.append(digest)

    monkeypatch.setattr(Registry, "put_blob", failing)
    with pytest.raises(Unavailable, match="went away"):
        push_version(app.versions, "triage", at(server))
    monkeypatch.undo()
    with pytest.raises(NotFound):
        pull_version(app.versions, at(server))
    whole = len(set(app.versions.blobs.get(app.versions.find("triage")).split(b"sha256:"))) - 1
    assert 0 < push_version(app.versions, "triage", at(server)).uploaded <= whole - 3


def test_a_truncated_store_sends_nothing(server: Server, app: App) -> None:
    digest = app.versions.find("triage")
    layer = json.loads(app.versions.blobs.get(digest))["layers"][0]["digest"]
    app.versions.blobs.path(layer).unlink()
    with pytest.raises(NotFound, match="no blob"):
        push_version(app.versions, digest, at(server))
    with urllib.request.urlopen(f"http://{server.host}/v2/_catalog", timeout=60) as answer:
        assert json.load(answer) == {"repositories": []}


def test_what_looks_like_a_secret_is_not_pushed_unasked(server: Server, app: App) -> None:
    (app.project.root / "prompts/triage.md").write_text("Extract.\nThe key is sk-" + "planted1Canary2" * 2 + "\n")
    app.versions.lock()
    with pytest.raises(Refused, match=r"prompt\.md:2 of [0-9a-f]{12} has something that looks like a secret") as caught:
        push_version(app.versions, "triage", at(server))
    assert "planted1Canary2" not in str(caught.value)
    assert urllib.request.urlopen(f"http://{server.host}/v2/_catalog", timeout=60).read() == b'{"repositories":[]}\n'
    assert push_version(app.versions, "triage", at(server), allow_secrets=True).uploaded > 0


def test_a_huge_part_is_refused_before_it_is_asked_for(server: Server, app: App, elsewhere: App) -> None:
    digest = push_version(app.versions, "triage", at(server)).digest
    manifest = json.loads(app.versions.blobs.get(digest))
    manifest["layers"][0]["size"] = 1_000_000_000

    async def plant() -> None:
        async with open_registry(at(server), None) as registry:
            await registry.put_manifest("huge", json.dumps(manifest).encode())

    asyncio.run(plant())
    with pytest.raises(Corrupt, match="1,000,000,000 bytes"):
        pull_version(elsewhere.versions, at(server, "huge"))


@pytest.mark.parametrize("title", ["code/../../evil.py", "/etc/evil", "code/a\\b", "code/./x"])
def test_a_path_out_of_the_folder_is_refused(server: Server, app: App, elsewhere: App, title: str) -> None:
    digest = push_version(app.versions, "triage", at(server)).digest
    manifest = json.loads(app.versions.blobs.get(digest))
    manifest["layers"][-1]["annotations"]["org.opencontainers.image.title"] = title

    async def plant() -> None:
        async with open_registry(at(server), None) as registry:
            await registry.put_manifest("evil", json.dumps(manifest).encode())

    asyncio.run(plant())
    with pytest.raises(Corrupt, match="unsafe or repeated path"):
        pull_version(elsewhere.versions, at(server, "evil"))
    assert list(elsewhere.versions.history()) == []


def test_a_registry_with_a_password_wants_it(tmp_path: Path, app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    made = subprocess.run(
        ["htpasswd", "-nbB", "me", "planted-canary"], capture_output=True, text=True, check=True
    ).stdout.strip()
    (tmp_path / "htpasswd").write_text(made + "\n")
    server = Server(tmp_path, f"auth: {{htpasswd: {{realm: here, path: {tmp_path / 'htpasswd'}}}}}\n")
    try:
        with pytest.raises(Unauthenticated, match="does not let nobody in"):
            push_version(app.versions, "triage", at(server))
        with pytest.raises(Unauthenticated) as caught:
            push_version(app.versions, "triage", at(server), credentials=Credentials(username="me", password="wrong-c"))
        assert "wrong-c" not in str(caught.value)
        push_version(
            app.versions, "triage", at(server), credentials=Credentials(username="me", password="planted-canary")
        )
        (tmp_path / "docker").mkdir()
        auth = "bWU6cGxhbnRlZC1jYW5hcnk="  # me:planted-canary
        (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.host: {"auth": auth}}}))
        assert push_version(app.versions, "triage", at(server)).uploaded == 0
    finally:
        server.stop()


@pytest.fixture
def tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Server, TokenServer]]:
    """A registry that believes a token server: anybody may pull, ``me`` may push too."""
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    giver = TokenServer(
        tmp_path,
        users={"me": "planted-canary", "guest": "guest-password"},
        rights={"": ["pull"], "guest": ["pull"], "me": ["pull", "push"]},
        refresh="planted-identity",
    )
    told = f"realm: '{giver.realm}', service: {SERVICE}, issuer: {ISSUER}, rootcertbundle: {giver.certificate}"
    server = Server(tmp_path, f"auth: {{token: {{{told}}}}}\n")
    yield server, giver
    server.stop()
    giver.stop()


def test_a_token_is_asked_for_with_the_scope_that_is_needed(
    tokens: tuple[Server, TokenServer], app: App, elsewhere: App
) -> None:
    server, giver = tokens
    me = Credentials(username="me", password="planted-canary")
    digest = push_version(app.versions, "triage", at(server), credentials=me).digest
    assert ("GET", "repository:team/triage:pull,push", "me") in [
        (method, scope.replace("push,pull", "pull,push"), who) for method, scope, who in giver.asked
    ]
    giver.asked.clear()
    assert pull_version(elsewhere.versions, at(server)).digest == digest  # nobody in particular
    assert giver.asked == [("GET", "repository:team/triage:pull", "")]


def test_a_token_that_does_not_suffice_or_is_not_given_is_a_clear_refusal(
    tokens: tuple[Server, TokenServer], app: App
) -> None:
    server, _ = tokens
    with pytest.raises((Refused, Unauthenticated)) as caught:
        push_version(
            app.versions, "triage", at(server), credentials=Credentials(username="guest", password="guest-password")
        )
    assert "guest-password" not in str(caught.value)
    with pytest.raises(Unauthenticated, match="gave no token") as caught:
        push_version(
            app.versions, "triage", at(server), credentials=Credentials(username="me", password="wrong-canary")
        )
    assert "wrong-canary" not in str(caught.value)


def test_an_identity_token_of_a_docker_login_is_traded_for_one(
    tokens: tuple[Server, TokenServer], app: App, tmp_path: Path
) -> None:
    server, giver = tokens
    (tmp_path / "docker").mkdir()
    entry = {"auth": "bWU6", "identitytoken": "planted-identity"}
    (tmp_path / "docker/config.json").write_text(json.dumps({"auths": {server.host: entry}}))
    push_version(app.versions, "triage", at(server))
    assert {method for method, _, _ in giver.asked} == {"POST"}


def test_the_command_takes_the_password_from_standard_input(
    tokens: tuple[Server, TokenServer], app: App, elsewhere: App
) -> None:
    server, _ = tokens

    def command(root: Path, *arguments: str, typed: str) -> subprocess.CompletedProcess[str]:
        words = [sys.executable, "-m", "lockgate", *arguments, "--username", "me"]
        return subprocess.run(words, cwd=root, input=typed, capture_output=True, text=True, timeout=120, check=False)

    where = str(at(server))
    done = command(app.project.root, "push", "triage", where, typed="planted-canary\n")
    assert done.returncode == 0, done.stderr
    refused = command(app.project.root, "push", "triage", where, typed="wrong-canary\n")
    assert refused.returncode != 0
    assert "canary" not in refused.stderr + refused.stdout
    assert "no password came" in command(app.project.root, "push", "triage", where, typed="").stderr
    got = command(elsewhere.project.root, "pull", where, "--json", typed="planted-canary\n")
    assert json.loads(got.stdout)["digest"] == app.versions.find("triage")


class Referring(BaseHTTPRequestHandler):
    """A registry in memory with the referrers API of OCI 1.1, as it is specified, and no tag in its place."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        kind, name = self.path.split("/")[-2:]
        held: dict[str, bytes] = self.server.held  # type: ignore[attr-defined]
        if kind == "referrers":
            named = [json.loads(data) | {"digest": key} for key, data in held.items() if data.startswith(b"{")]
            found = [
                {"mediaType": "application/vnd.oci.image.manifest.v1+json", "artifactType": one["artifactType"]}
                | {"digest": one["digest"], "size": len(held[one["digest"]])}
                for one in named
                if one["digest"].startswith("sha256:") and one.get("subject", {}).get("digest") == name
            ]
            body = json.dumps({"schemaVersion": 2, "mediaType": INDEX, "manifests": found}).encode()
            self._send(200, body, {"content-type": INDEX})
        elif name in held:
            self._send(200, held[name], {})
        else:
            self._send(404, b"{}", {})

    do_HEAD = do_GET

    def do_POST(self) -> None:
        self._send(202, b"", {"location": f"{self.path}here"})

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers.get("content-length", 0)))
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        held: dict[str, bytes] = self.server.held  # type: ignore[attr-defined]
        held[digest] = data
        headers = {"docker-content-digest": digest}
        if "/manifests/" in self.path:
            held[self.path.rpartition("/")[2]] = data
            subject = json.loads(data).get("subject")
            headers |= {"oci-subject": subject["digest"]} if subject else {}
        self._send(201, b"", headers)

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in {**headers, "content-length": str(len(body))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def test_where_there_is_a_referrers_api_no_tag_stands_in_for_it(app: App, elsewhere: App) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Referring)
    server.held = {}  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        where = parse(f"oci://127.0.0.1:{server.server_port}/team/triage:v1")
        ref = app.versions.ref("triage", "prod")
        app.versions.attest("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r", "pass", {})
        assert push_version(app.versions, "triage", where).referrers == 2
        assert fallback_tag(ref.behaviour_digest) not in server.held  # type: ignore[attr-defined]
        got = pull_version(elsewhere.versions, where)
        assert (got.digest, len(got.envelopes), got.file_version) == (ref.behaviour_digest, 1, 1)
        assert elsewhere.versions.settings(got.digest) == app.versions.settings(got.digest)
    finally:
        server.shutdown()
        server.server_close()
