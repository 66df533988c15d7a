"""Announced ends of models: found before the day, by any name that means the model."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from lockgate.errors import InputError
from lockgate.project.service import load_project
from lockgate.versions.deprecation_table import COLLECTED, SOURCES, TABLE, rows
from lockgate.versions.deprecationfile import project_table
from lockgate.versions.deprecations import bundled, deprecation_of, findings

TODAY = date(2026, 11, 21)


@pytest.mark.parametrize(
    ("model", "retires"),
    [
        ("gpt-4o-mini-2024-07-18", "2027-01-14"),
        ("gpt-5", "2026-12-11"),
        ("openai/gpt-5", "2026-12-11"),
        ("ft:gpt-4o-2024-08-06:acme::id", "2027-01-14"),
        ("models/gemini-2.5-pro", "2026-12-01"),
        ("claude-sonnet-4-5-20250929", "2026-11-30"),
        ("claude-3-opus-20240229", "2026-01-05"),
    ],
)
def test_a_model_with_an_announced_end_is_known_by_every_name_it_has(model: str, retires: str) -> None:
    found = deprecation_of("openai", model, TODAY)
    assert found is not None
    assert found.retires == date.fromisoformat(retires)


@pytest.mark.parametrize("model", ["gpt-6-luna", "claude-opus-4-8", "llama3.1:70b", "gpt-5-2025-08-08", "ft:"])
def test_other_models_are_left_alone(model: str) -> None:
    assert deprecation_of("openai", model, TODAY) is None


def test_local_weights_never_retire() -> None:
    assert deprecation_of("local", "gpt-5", TODAY) is None


def test_what_is_not_announced_yet_is_not_known_yet() -> None:
    assert deprecation_of("openai", "gpt-5", date(2026, 6, 10)) is None
    assert deprecation_of("openai", "gpt-5", date(2026, 6, 11)) is not None


@pytest.mark.parametrize(
    ("today", "urgency", "words"),
    [
        (date(2026, 11, 10), "announced", "in 31 days"),
        (date(2026, 11, 11), "soon", "in 30 days"),
        (date(2026, 12, 10), "soon", "in 1 day"),
        (date(2026, 12, 11), "retired", "was retired on 2026-12-11"),
    ],
)
def test_the_warning_grows_more_urgent_towards_the_day(today: date, urgency: str, words: str) -> None:
    found = deprecation_of("openai", "gpt-5-2025-08-07", today)
    assert found is not None
    assert found.urgency(today) == urgency
    assert found.message(today).endswith(words) or words in found.message(today)
    assert "gpt-5.6-sol" in found.remedy()
    assert SOURCES["openai"] in found.remedy()


def test_each_row_is_in_order_and_names_each_model_once() -> None:
    names = [name for row in rows() for name in row.names]
    assert len(names) == len(set(names)) == len(bundled())
    assert all(row.announced is None or row.announced < row.retires for row in rows())
    assert all(row.announced is None or row.announced <= COLLECTED for row in rows())


def test_every_word_of_the_table_is_read() -> None:
    lines = [line for line in TABLE.splitlines() if line and not line.startswith("#")]
    found = [word for row in rows() for word in (str(row.announced or "?"), str(row.retires), row.replacement or "-")]
    assert sorted(" ".join(lines).split()) == sorted([*found, *(name for row in rows() for name in row.names)])
    assert {row.publisher for row in rows()} == set(SOURCES)


def test_a_replacement_is_not_itself_gone_on_the_day_the_model_goes() -> None:
    for one in bundled().values():
        assert one is not None
        later = bundled().get(one.replacement)
        assert later is None or later.retires > one.retires, one.model


def test_the_project_s_own_rows_go_over_the_table(acme: Path) -> None:
    (acme / "lockgate.yaml").write_text("project: acme\ndeprecations: deprecations.yaml\n")
    (acme / "deprecations.yaml").write_text(
        "models:\n  gpt-5: null\n  gpt-4o: {retires: 2027-04-14, source: Azure}\n  ours-7: {retires: 2026-12-24}\n"
    )
    table = project_table(load_project(acme))
    assert deprecation_of("openai", "gpt-5", TODAY, table=table) is None
    gpt4o = deprecation_of("openai", "gpt-4o", TODAY, table=table)
    assert gpt4o is not None
    assert (gpt4o.retires, gpt4o.source) == (date(2027, 4, 14), "Azure")
    ours = deprecation_of("openai", "ours-7", TODAY, table=table)
    assert ours is not None
    (finding,) = findings([ours, ours], TODAY)
    assert (finding.kind, finding.remedy) == ("deprecation", "choose another model, and gate the new version")


def test_a_wrong_day_is_an_error_with_file_line_and_remedy(acme: Path) -> None:
    (acme / "lockgate.yaml").write_text("project: acme\ndeprecations: d.yaml\n")
    (acme / "d.yaml").write_text("models:\n  gpt-5:\n    retires: soon\n")
    with pytest.raises(InputError, match=r"d\.yaml:3: .*'soon'.*\n.*write 2027-01-31"):
        project_table(load_project(acme))
