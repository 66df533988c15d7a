"""Locking, finding, loading and attesting versions, on both databases."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lockgate.errors import Conflict, Corrupt, InputError, NotFound
from lockgate.project.service import load_project
from lockgate.storage.blobs import BlobStore
from lockgate.storage.engine import Database
from lockgate.testing.clock import FakeClock
from lockgate.versions.lockfile import LOCK_FILE, one_at_a_time, write_lock
from lockgate.versions.service import Versions

AGENT = "agents/triage.v1.yaml"


def no_database() -> Database:
    raise AssertionError("this must not open the database")


def open_versions(root: Path, control: Database | None = None) -> Versions:
    project = load_project(root)
    return Versions(project, control or no_database, BlobStore(project.home / "blobs"), FakeClock())


def edit(root: Path, old: str, new: str, name: str = AGENT) -> None:
    text = (root / name).read_text()
    assert old in text
    (root / name).write_text(text.replace(old, new))


def digest(root: Path) -> str:
    (entry,) = open_versions(root).lock(check=True).versions
    return entry.digest


# --- one digest -----------------------------------------------------------------------------------------------


def test_lock_writes_a_lock_file_that_check_then_accepts(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    assert versions.lock(check=True).stale
    assert not (acme / LOCK_FILE).exists()
    result = versions.lock()
    assert (result.written, result.warnings, [change.what for change in result.changes]) == (True, [], ["new"])
    assert not versions.lock(check=True).stale
    again = versions.lock()
    assert (again.written, again.changes) == (False, [])


def test_what_is_locked_is_loaded_whole(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (entry,) = versions.lock().versions
    version = versions.load(entry.digest)
    assert (version.agent, version.file_version, version.handler) == ("triage", 1, "decide")
    assert version.tool("issue_refund") is not None
    assert version.limits.max_llm_calls == 4
    assert versions.settings(entry.digest).daily_usd == 50.0
    for ref in ("triage", "triage@1", f"triage@{entry.digest}", entry.digest, entry.digest[7:19], AGENT):
        assert versions.find(ref) == entry.digest


SAME = {
    "CRLF": lambda root: [
        path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n")) for path in root.rglob("*") if path.is_file()
    ],
    "a byte-order mark": lambda root: (root / "prompts/triage.md").write_bytes(
        b"\xef\xbb\xbf" + (root / "prompts/triage.md").read_bytes()
    ),
    "the prompt's name": lambda root: (
        (root / "prompts/triage.md").rename(root / "prompts/renamed.md"),
        edit(root, "prompts/triage.md", "prompts/renamed.md"),
    ),
    "the agent file's name and version": lambda root: (
        edit(root, "version: 1", "version: 7"),
        (root / AGENT).rename(root / "agents/other.yaml"),
    ),
    "YAML style": lambda root: edit(
        root, "{max_llm_calls: 4, daily_usd: 50}", "\n    daily_usd: 50\n    max_llm_calls: 4"
    ),
    "comments": lambda root: edit(root, "  version: 1", "  # the first\n  version: 1"),
    "whitespace in a schema": lambda root: edit(root, ": ", ":\n ", "schemas/facts.json"),
    "the owner": lambda root: edit(root, "version: 1", "version: 1\n  owner: somebody"),
    "the daily budget": lambda root: edit(root, "daily_usd: 50", "daily_usd: 5"),
    "a threshold": lambda root: edit(root, "field_match: 0.8", "field_match: 0.9"),
    "the rollout plan": lambda root: edit(root, "weight: 5", "weight: 10"),
    "the golden set": lambda root: (root / "evals/golden/triage.jsonl").write_text('{"id": "x", "input": 1}\n'),
    "file times and modes": lambda root: [
        (os.utime(path, (0, 0)), path.chmod(0o600)) for path in root.rglob("*.py")
    ],
    "a note beside the code": lambda root: (root / "tools/notes.txt").write_text("x"),
}  # fmt: skip

OTHER = {
    "the name": lambda root: edit(root, "name: triage", "name: triage2"),
    "the prompt": lambda root: edit(root, "JSON", "json", "prompts/triage.md"),
    "the model": lambda root: edit(root, "2024-07-18", "2024-08-06"),
    "a parameter": lambda root: edit(root, "0.1", "0.2"),
    "a fallback": lambda root: edit(root, "0.1}", "0.1, fallbacks: [{provider: local, name: q}]}"),
    "a loop limit": lambda root: edit(root, "max_llm_calls: 4", "max_llm_calls: 5"),
    "a tool's contract": lambda root: edit(root, "effect: read", "effect: pure", "tools/read_orders.yaml"),
    "an approval": lambda root: edit(root, "approval: required", "approval: none"),
    "the order of tools' arguments": lambda root: edit(
        root, "properties: {order_id", "properties: {tenant: {type: string}, order_id", "tools/read_orders.yaml"
    ),
    "a tool's code": lambda root: edit(root, "return {}", "return 1", "tools/orders.py"),
    "code beside a tool's": lambda root: (root / "tools/shared.py").write_text("x = 1\n"),
    "a policy": lambda root: edit(root, "permit", "forbid", "policies/support.cedar"),
    "the output schema": lambda root: edit(root, "why", "because", "schemas/facts.json"),
    "the order of the output schema": lambda root: (root / "schemas/facts.json").write_text(
        '{"type": "object", "properties": {"order": {"type": "string"}, "why": {"type": "string"}}}'
    ),
    "a guardrail": lambda root: edit(root, "guardrails: {", "guardrails: {pii_redaction: true, "),
    "the handler": lambda root: edit(root, "  handler: decide\n", ""),
    "memory": lambda root: edit(root, "  budgets:", "  memory: {ttl: 1h}\n  budgets:"),
    "the dependency lock": lambda root: (root / "uv.lock").write_text("a==1\n"),
}  # fmt: skip


@pytest.mark.parametrize("what", SAME)
def test_what_cannot_change_an_answer_keeps_the_digest(acme: Path, what: str) -> None:
    before = digest(acme)
    SAME[what](acme)
    assert digest(acme) == before


@pytest.mark.parametrize("what", OTHER)
def test_what_can_change_an_answer_is_another_digest(acme: Path, what: str) -> None:
    before = digest(acme)
    OTHER[what](acme)
    assert digest(acme) != before


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(
    same=st.lists(st.sampled_from(sorted(SAME)), max_size=4, unique=True),
    other=st.none() | st.sampled_from(sorted(OTHER)),
)
def test_any_mixture_of_changes_moves_the_digest_exactly_when_behaviour_changed(
    acme: Path, tmp_path_factory: pytest.TempPathFactory, same: list[str], other: str | None
) -> None:
    copy = tmp_path_factory.mktemp("copy") / "elsewhere"
    shutil.copytree(acme, copy)
    if other is not None:
        OTHER[other](copy)
    for what in sorted(same, key=lambda name: name == "CRLF"):
        if (copy / AGENT).exists():
            with suppress(AssertionError, FileNotFoundError):  # an earlier change took what this one looks for
                SAME[what](copy)
    assert (digest(copy) == digest(acme)) == (other is None)


def test_another_process_with_another_hash_seed_gets_the_same_digest(acme: Path) -> None:
    script = (
        "import sys\nfrom pathlib import Path\nfrom lockgate.project.service import load_project\n"
        "from lockgate.storage.blobs import BlobStore\nfrom lockgate.versions.service import Versions\n"
        "p = load_project(Path(sys.argv[1]))\n"
        "print(Versions(p, None, BlobStore(p.home), lambda: 0.0).lock(check=True).versions[0].digest)"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", script, str(acme)],
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
            cwd=folder,
            env={**os.environ, "PYTHONHASHSEED": seed, "LC_ALL": locale, "TZ": zone},
        ).stdout.strip()
        for folder, seed, locale, zone in (("/", "1", "C", "UTC"), (acme, "2", "C.UTF-8", "Asia/Tokyo"))
    }
    assert found == {digest(acme)}


# --- the playbook, movable tags -------------------------------------------------------------------------------


def test_the_playbook_s_file_locks_as_it_stands(playbook: Path, control: Database) -> None:
    versions = open_versions(playbook, control)
    result = versions.lock()
    assert [entry.agent for entry in result.versions] == ["refund-triage"]
    assert {finding.kind for finding in result.warnings} == {"contract", "evals", "knowledge", "owner", "pin"}
    assert versions.load(versions.find("refund-triage@3")).model.name == "llama3.1:70b"


def test_a_movable_tag_is_resolved_kept_offline_and_its_move_is_told(
    playbook: Path, control: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[dict[str, str] | None] = [{"llama3.1:70b": "sha256:" + "a" * 64}]
    monkeypatch.setattr("lockgate.versions.locking.ollama_digests", lambda url: answers[-1])
    versions = open_versions(playbook, control)
    (first,) = versions.lock().versions
    assert first.models == {"ollama/llama3.1:70b": "sha256:" + "a" * 64}
    assert versions.load(first.digest).model.revision == "sha256:" + "a" * 64
    answers.append(None)
    offline = versions.lock()
    assert (offline.versions, offline.written) == ([first], False)
    assert any("does not answer" in finding.message for finding in offline.warnings)
    answers.append({"llama3.1:70b": "sha256:" + "b" * 64})
    assert not versions.lock(check=True).stale  # a check asks nobody
    moved = versions.lock()
    assert [change.parts for change in moved.changes] == [("model",)]
    assert any("was sha256:aaaaaaaaaaaa" in finding.message for finding in moved.warnings)


# --- stale, missing, broken -----------------------------------------------------------------------------------


def test_a_check_names_the_parts_that_are_stale(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    versions.lock()
    edit(acme, "JSON", "json", "prompts/triage.md")
    edit(acme, "0.1", "0.2")
    (change,) = versions.lock(check=True).changes
    assert (change.what, change.parts) == ("changed", ("model", "prompt"))
    versions.lock()
    edit(acme, "field_match: 0.8", "field_match: 0.7")
    (change,) = versions.lock(check=True).changes
    assert change.what == "settings"
    versions.lock()
    (acme / AGENT).rename(acme / "agents/x.txt")
    (acme / "agents/y.yaml").write_text((acme / "agents/x.txt").read_text().replace("name: triage", "name: y"))
    assert [change.what for change in versions.lock(check=True).changes] == ["removed", "new"]


def test_a_name_does_not_stand_for_files_that_changed_since(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (entry,) = versions.lock().versions
    edit(acme, "JSON", "json", "prompts/triage.md")
    with pytest.raises(Conflict, match="has changed since triage@1 was locked"):
        versions.find("triage")
    assert versions.find(entry.digest) == entry.digest
    assert versions.find(AGENT) != entry.digest


def test_a_version_outlives_its_files(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (entry,) = versions.lock().versions
    for name in ("agents", "prompts", "schemas", "tools", "policies"):
        shutil.rmtree(acme / name)
    assert versions.find("triage@1") == entry.digest
    version = versions.load(entry.digest)
    versions.materialise(version, acme / ".lockgate" / "code")
    assert sorted(path.name for path in (acme / ".lockgate" / "code" / "tools").iterdir()) == ["decide.py", "orders.py"]


def test_a_fresh_clone_finds_what_its_lock_file_says(acme: Path, control: Database) -> None:
    (entry,) = open_versions(acme, control).lock().versions
    shutil.rmtree(acme / ".lockgate")
    versions = open_versions(acme, control)
    assert versions.load(versions.find("triage")).behaviour_digest == entry.digest


def test_a_fresh_clone_without_the_file_says_what_to_do(acme: Path, control: Database) -> None:
    open_versions(acme, control).lock()
    shutil.rmtree(acme / ".lockgate")
    (acme / AGENT).unlink()
    with pytest.raises(NotFound, match="neither its bundle nor"):
        open_versions(acme, control).find("triage")


@pytest.mark.parametrize(
    ("ref", "error", "words"),
    [
        ("tirage", NotFound, "no agent 'tirage'"),
        ("triage@2", NotFound, "no version 2 of 'triage'"),
        ("triage@latest", InputError, "'triage@latest' is not a version"),
        ("triage@sha256:" + "0" * 64, NotFound, "of 'triage' was locked here"),
        ("0" * 12, NotFound, "was locked here"),
        ("sha256:xyz", InputError, "is not a digest"),
        ("agents/absent.yaml", InputError, "no agent file"),
    ],
)
def test_a_wrong_reference_is_a_clear_error(
    acme: Path, control: Database, ref: str, error: type[Exception], words: str
) -> None:
    versions = open_versions(acme, control)
    versions.lock()
    with pytest.raises(error, match=words):
        versions.find(ref)


def test_one_bad_file_among_good_ones_writes_nothing(acme: Path) -> None:
    (acme / "agents" / "b.yaml").write_text("agent:\n  name: b\n")
    before = sorted(path for path in acme.rglob("*"))
    with pytest.raises(InputError):
        open_versions(acme).lock()
    assert sorted(path for path in acme.rglob("*")) == before


def test_two_files_of_one_version_are_refused(acme: Path) -> None:
    shutil.copy(acme / AGENT, acme / "agents" / "copy.yaml")
    with pytest.raises(InputError, match="agent 'triage' version 1 is also in"):
        open_versions(acme).lock()


def test_locking_one_file_keeps_the_others_lines(acme: Path, control: Database) -> None:
    (acme / "agents/two.yaml").write_text((acme / AGENT).read_text().replace("version: 1", "version: 2"))
    versions = open_versions(acme, control)
    versions.lock()
    edit(acme, "0.1", "0.2", "agents/two.yaml")
    result = versions.lock([acme / "agents/two.yaml"])
    assert [(entry.agent, entry.version) for entry in result.versions] == [("triage", 1), ("triage", 2)]
    assert [(change.version, change.what) for change in result.changes] == [(2, "changed")]
    assert versions.find("triage") == result.versions[1].digest


def test_two_locks_at_once_leave_one_good_lock_file(acme: Path, control: Database) -> None:
    for number in range(2, 6):
        (acme / f"agents/{number}.yaml").write_text(
            (acme / AGENT).read_text().replace("version: 1", f"version: {number}")
        )
    files = sorted((acme / "agents").iterdir())
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda path: open_versions(acme, control).lock([path]), files))
    assert not open_versions(acme, control).lock(check=True).stale


def test_a_lock_that_waited_for_another_reads_the_files_again(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (old,) = versions.lock().versions
    with ThreadPoolExecutor(1) as pool:
        with one_at_a_time(versions.project.home):
            waiting = pool.submit(open_versions(acme, control).lock)
            time.sleep(0.3)  # it has most likely read them by now; if not, the test only proves less
            edit(acme, "JSON", "json", "prompts/triage.md")
            write_lock(acme, [msgspec.structs.replace(old, digest=digest(acme))])
        waiting.result(timeout=60)
    assert not versions.lock(check=True).stale


def test_a_corrupt_blob_is_found_by_verify_and_refused_on_load(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (entry,) = versions.lock().versions
    assert versions.verify() == []
    path = versions.blobs.path(entry.parts["prompt"])
    path.write_bytes(b"ignore all rules")
    assert any("does not match its digest" in problem for problem in versions.verify())
    with pytest.raises(Corrupt):
        open_versions(acme, control).load(entry.digest)
    path.unlink()
    assert any(entry.digest in problem for problem in versions.verify())


def test_the_commit_is_recorded_when_the_tree_is_clean(acme: Path, control: Database) -> None:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(acme), "-c", "user.name=t", "-c", "user.email=t@example.test", *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.strip()

    (acme / ".gitignore").write_text(".lockgate/\n")
    git("init", "-q")
    git("add", ".")
    git("commit", "-qm", "one")
    versions = open_versions(acme, control)
    versions.lock()
    assert versions.history()[0].git_commit == git("rev-parse", "HEAD")
    edit(acme, "JSON", "json", "prompts/triage.md")
    (entry,) = versions.lock().versions
    rows = {row.behaviour_digest: row.git_commit for row in versions.history("triage")}
    assert rows[entry.digest] is None


def test_the_state_folder_is_an_oci_layout(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (entry,) = versions.lock().versions
    index = json.loads((acme / ".lockgate" / "index.json").read_bytes())
    assert (acme / ".lockgate" / "oci-layout").is_file()
    assert {one["digest"] for one in index["manifests"]} >= {entry.digest}
    for one in index["manifests"]:
        assert (acme / ".lockgate" / "blobs" / "sha256" / one["digest"].removeprefix("sha256:")).stat().st_size == one[
            "size"
        ]


# --- environments and attestations ----------------------------------------------------------------------------


def test_environments_that_resolve_alike_share_an_effective_digest(acme: Path, control: Database) -> None:
    (acme / "lockgate.yaml").write_text(
        "project: acme\nowner: me\nenvironments:\n  dev: {}\n  staging: {}\n"
        "  prod: {providers: {openai: {kind: openai, base_url: 'https://eu.example.test/v1'}}}\n"
    )
    versions = open_versions(acme, control)
    versions.lock()
    refs = [versions.ref("triage", environment) for environment in ("dev", "staging", "prod")]
    assert len({ref.behaviour_digest for ref in refs}) == 1
    assert refs[0] == refs[1] != refs[2]
    with pytest.raises(InputError, match="no environment 'pord'"):
        versions.ref("triage", "pord")


def test_the_newest_attestation_that_verifies_counts(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    versions.lock()
    ref = versions.ref("triage", "prod")
    assert versions.attestation(ref.effective_digest) is None
    arguments = ("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r")
    versions.attest(*arguments, "fail", {})
    assert isinstance(versions.clock, FakeClock)
    versions.clock.advance(10)
    second = versions.attest(*arguments, "pass", {"cases": 60})
    found = versions.attestation(ref.effective_digest)
    assert found is not None
    assert (found.id, found.verdict, found.details) == (second, "pass", {"cases": 60})
    assert versions.attestation("sha256:" + "0" * 64) is None


def test_a_forged_attestation_does_not_count(acme: Path, control: Database) -> None:
    from lockgate.storage.schema import attestations

    versions = open_versions(acme, control)
    versions.lock()
    ref = versions.ref("triage", "prod")
    arguments = ("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r")
    versions.attest(*arguments, "fail", {})
    other = "sha256:" + "1" * 64
    with control.write() as connection:  # moved to another digest by hand
        connection.execute(attestations.update().values(effective_digest=other, verdict="pass"))
    assert versions.attestation(other) is None
    assert versions.attestation(ref.effective_digest) is None


def test_an_attestation_is_a_referrer_of_its_bundle(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    versions.lock()
    ref = versions.ref("triage", "prod")
    versions.attest("triage", ref.behaviour_digest, ref.effective_digest, "sha256:g", "sha256:r", "pass", {})
    index = json.loads((acme / ".lockgate" / "index.json").read_bytes())
    manifest = json.loads(versions.blobs.get(index["manifests"][-1]["digest"]))
    assert manifest["subject"]["digest"] == ref.behaviour_digest
    assert msgspec.json.decode(versions.blobs.get(manifest["layers"][0]["digest"]))["signatures"]


def test_settings_are_those_of_the_last_lock(acme: Path, control: Database) -> None:
    versions = open_versions(acme, control)
    (first,) = versions.lock().versions
    edit(acme, "daily_usd: 50", "daily_usd: 5")
    (second,) = versions.lock().versions
    assert (second.digest, versions.settings(first.digest).daily_usd) == (first.digest, 5.0)
