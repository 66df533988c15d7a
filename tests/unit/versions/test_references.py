"""Parts by reference, images and prompt variables: each is in the digest, none is guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.project.service import load_project
from lockgate.versions.bundle import pack, unpack
from lockgate.versions.source import AgentSource, read_agent

AGENT = "agents/triage.v1.yaml"
DIGEST = "sha256:" + "a" * 64


def add(root: Path, lines: str) -> None:
    path = root / AGENT
    path.write_text(path.read_text() + lines)


def read(root: Path, **tags: str) -> AgentSource:
    return read_agent(root / AGENT, load_project(root), lambda provider, name: tags.get(provider))


def digest(root: Path) -> str:
    source = read(root)
    return pack(source.version, source.code).digest


def test_weights_by_digest_are_part_of_the_version_and_survive_the_bundle(acme: Path) -> None:
    before = digest(acme)
    add(acme, f"  references: [{{name: lora, kind: adapter, digest: '{DIGEST}', uri: 's3://x'}}]\n")
    source = read(acme)
    bundle = pack(source.version, source.code)
    assert bundle.digest != before
    loaded = unpack(bundle.digest, bundle.blobs.__getitem__)
    assert [(one.name, one.kind, one.digest) for one in loaded.references] == [("lora", "adapter", DIGEST)]
    path = acme / AGENT
    path.write_text(path.read_text().replace("s3://x", "s3://elsewhere"))
    assert digest(acme) == bundle.digest


def test_a_data_set_of_the_project_is_hashed_and_held_against_its_digest(acme: Path) -> None:
    (acme / "data").mkdir()
    (acme / "data/a.jsonl").write_text("1\n")
    add(acme, "  references: [{name: feedback, kind: feedback_data, path: data}]\n")
    before = digest(acme)
    (acme / "data/a.jsonl").write_text("2\n")
    assert digest(acme) != before
    path = acme / AGENT
    path.write_text(path.read_text().replace("path: data", f"path: data, digest: '{DIGEST}'"))
    with pytest.raises(InputError, match="'data' is sha256:"):
        read(acme)


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("{name: x}", "neither digest nor path"),
        ("{name: x, path: ../secret}", "not a path inside the project"),
        ("{name: x, path: absent}", "'absent' is not here"),
        ("{name: x, digest: 'sha256:12'}", "references"),
    ],
)
def test_a_bad_reference_is_an_error_on_its_line(acme: Path, reference: str, words: str) -> None:
    add(acme, f"  references: [{reference}]\n")
    with pytest.raises(InputError, match=words) as caught:
        read(acme)
    assert caught.value.line == len((acme / AGENT).read_text().splitlines())


def test_a_reference_that_links_out_of_the_project_is_refused(acme: Path, tmp_path: Path) -> None:
    (tmp_path / "outside").write_text("secret")
    (acme / "link").symlink_to(tmp_path / "outside")
    add(acme, "  references: [{name: x, path: link}]\n")
    with pytest.raises(InputError, match="a link out of the project"):
        read(acme)


def test_an_image_is_code_by_digest_and_its_tag_is_resolved(acme: Path) -> None:
    add(acme, "  framework: {kind: image, image: 'ghcr.io/acme/agent:v3'}\n")
    source = read(acme)
    assert [one.kind for one in source.warnings] == ["pin"]
    pinned = read(acme, image=DIGEST)
    assert pinned.version.framework.image == f"ghcr.io/acme/agent:v3@{DIGEST}"
    assert pinned.warnings == []
    bundle = pack(pinned.version, pinned.code)
    assert unpack(bundle.digest, bundle.blobs.__getitem__).framework == pinned.version.framework


def test_kind_image_and_image_go_together(acme: Path) -> None:
    add(acme, "  framework: {kind: image}\n")
    with pytest.raises(InputError, match="needs image"):
        read(acme)


def prompt(root: Path, text: str, values: str = "") -> None:
    (root / "prompts/p.yaml").write_text(text)
    path = root / AGENT
    path.write_text(path.read_text().replace("prompts/triage.md", "prompts/p.yaml"))
    if values:
        add(root, f"  variables: {values}\n")


def test_a_prompt_s_variables_are_filled_in_when_it_is_locked(acme: Path) -> None:
    prompt(
        acme,
        "name: p\nvariables: {company: null, tone: kind}\ntemplate: 'You are {{ company }}, {{tone}}. {{company}}'\n",
        "{company: Acme}",
    )
    assert read(acme).version.system_prompt == "You are Acme, kind. Acme"


def test_braces_without_declared_variables_are_text(acme: Path) -> None:
    prompt(acme, "name: p\ntemplate: 'Write {{name}}'\n")
    assert read(acme).version.system_prompt == "Write {{name}}"


@pytest.mark.parametrize(
    ("declared", "values", "words"),
    [
        ("{a: null}", "", "'a' has no value"),
        ("{b: x}", "", "is not declared"),
        ("{a: x}", "{c: y}", "declares no variable 'c'"),
    ],
)
def test_a_variable_that_is_used_given_or_needed_alone_is_an_error(
    acme: Path, declared: str, values: str, words: str
) -> None:
    prompt(acme, f"name: p\nvariables: {declared}\ntemplate: 'x {{{{a}}}}'\n", values)
    with pytest.raises(InputError, match=words):
        read(acme)
