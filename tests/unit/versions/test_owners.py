"""CODEOWNERS, as code hosts read it."""

from __future__ import annotations

import pytest

from lockgate.versions.owners import owner_of

FILE = """\
# comment
*                    @everyone
/agents/             @agents   # trailing comment
agents/refund*.yaml  @payments @risk
prompts/**/legal.md  @legal
docs/*               @writers
secret.yaml
*.cedar              @security
[Section]
"""


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        ("lockgate.yaml", "@everyone"),
        ("agents/other.yaml", "@agents"),
        ("agents/deep/other.yaml", "@agents"),
        ("agents/refund-triage.v3.yaml", "@payments @risk"),
        ("other/agents/x.yaml", "@everyone"),
        ("prompts/legal.md", "@legal"),
        ("prompts/a/b/legal.md", "@legal"),
        ("docs/a.md", "@writers"),
        ("docs/deep/a.md", "@everyone"),
        ("deep/secret.yaml", None),
        ("policies/a.cedar", "@security"),
    ],
)
def test_the_last_line_that_matches_decides(path: str, owner: str | None) -> None:
    assert owner_of(path, FILE) == owner


def test_nobody_owns_what_no_line_matches() -> None:
    assert owner_of("a.yaml", "/b.yaml @x\n") is None


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/docs/", "docs/a/b.md", True),
        ("docs/*", "docs/a/b.md", False),
        ("apps/", "deep/apps/x.py", True),
        ("**/logs", "a/b/logs/x", True),
        ("with\\ space.md", "with space.md", True),
        ("!a.md", "a.md", False),
        ("[ab].md", "a.md", False),
        ("*.MD", "a.md", False),
    ],
)
def test_patterns_mean_what_they_mean_at_a_code_host(pattern: str, path: str, matches: bool) -> None:
    assert (owner_of(path, f"{pattern} @x\n") == "@x") is matches


def test_a_section_gives_its_lines_an_owner() -> None:
    assert owner_of("docs/a.md", "[Docs] @writers\ndocs/\n") == "@writers"
    assert owner_of("docs/a.md", "docs/ @x\n[Docs]\ndocs/\n") is None
