"""Finding a project, and what an environment makes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.project.service import environment_policy, load_project, prices_file, resolve_provider


def project(root: Path, text: str) -> Path:
    (root / "lockgate.yaml").write_text(text)
    return root


def refusal(root: Path, text: str) -> InputError:
    with pytest.raises(InputError) as caught:
        load_project(project(root, text))
    return caught.value


def test_the_project_is_found_from_a_folder_inside_it(acme: Path) -> None:
    found = load_project(acme / "agents" / "triage.v1.yaml")
    assert (found.root, found.home, found.config.project) == (acme, acme / ".lockgate", "acme")


def test_lockgate_home_moves_the_state(acme: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCKGATE_HOME", str(tmp_path / "elsewhere"))
    assert load_project(acme).home == tmp_path / "elsewhere"


def test_no_project_is_a_usage_error_with_a_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no lockgate\.yaml") as caught:
        load_project(tmp_path)
    assert "lockgate init" in (caught.value.remedy or "")


def test_a_secret_in_plain_text_is_refused_with_its_line_and_without_its_value(tmp_path: Path) -> None:
    wrong = refusal(tmp_path, "project: p\nproviders:\n  openai:\n    kind: openai\n    api_key: sk-planted-canary\n")
    assert (wrong.path, wrong.line) == ("lockgate.yaml", 5)
    assert "canary" not in str(wrong)


@pytest.mark.parametrize(
    ("header", "said"),
    [
        ("x-portkey-api-key: pk-planted-canary", "plain text"),
        ("X-Team: '${env:}'", "plain text"),
        ("Authorization: Bearer canary", "sets the header 'Authorization' itself"),
        ('x-team: "a\\r\\nx-evil: 1"', "pattern"),
    ],
)
def test_a_providers_header_that_may_not_stand_there_is_refused(tmp_path: Path, header: str, said: str) -> None:
    wrong = refusal(tmp_path, f"project: p\nproviders:\n  o:\n    kind: openai\n    headers:\n      {header}\n")
    assert said in wrong.message
    assert wrong.line == 6
    assert "planted" not in str(wrong)


def test_an_override_of_a_provider_that_is_not_there_is_refused(tmp_path: Path) -> None:
    wrong = refusal(tmp_path, "project: p\nenvironments:\n  prod:\n    providers: {opanai: {kind: openai}}\n")
    assert (wrong.line, wrong.remedy) == (4, "did you mean 'openai'?")


def test_prices_must_exist(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path, "project: p\nprices: prices.yaml\n").message
    (tmp_path / "prices.yaml").write_text("{}")
    assert prices_file(load_project(tmp_path)) == tmp_path / "prices.yaml"


def test_an_environment_overrides_a_provider(tmp_path: Path) -> None:
    found = load_project(
        project(
            tmp_path,
            "project: p\nproviders: {m: {kind: openai, base_url: 'http://a/v1/'}}\n"
            "environments: {dev: {}, prod: {providers: {m: {kind: openai, base_url: 'http://b/v1'}}}}\n",
        )
    )
    assert resolve_provider(found, "m", "dev").base_url == "http://a/v1"
    assert resolve_provider(found, "m", "prod").base_url == "http://b/v1"


def test_well_known_providers_need_no_entry(acme: Path) -> None:
    found = load_project(acme)
    assert resolve_provider(found, "ollama", "dev").base_url == "http://127.0.0.1:11434/v1"
    assert resolve_provider(found, "openai", "dev").api_key == "${env:OPENAI_API_KEY}"
    with pytest.raises(InputError, match="no provider 'vertex'"):
        resolve_provider(found, "vertex", "dev")
    with pytest.raises(InputError, match="no environment 'pord'") as caught:
        resolve_provider(found, "openai", "pord")
    assert caught.value.remedy == "did you mean 'prod'?"


def test_only_prod_requires_everything_unless_an_environment_says_so(tmp_path: Path) -> None:
    found = load_project(
        project(
            tmp_path,
            "project: p\nenvironments: {dev: {}, staging: {policy: {require_owner: false}}, prod: {}}\n",
        )
    )
    policies = {name: environment_policy(found, name) for name in ("dev", "staging", "prod")}
    assert [(one.require_owner, one.require_pinned_model, one.require_gate) for one in policies.values()] == [
        (False, False, False),
        (False, True, True),
        (True, True, True),
    ]
