from __future__ import annotations

import re
from pathlib import Path

import lockgate
from lockgate.runtime.failures import ERROR_TYPES, PASSING

SOURCES = {
    path: path.read_text()
    for files in ("runtime/*.py", "tools/*.py", "limits/actions.py")  # the last names what a gateway stops a run for
    for path in Path(lockgate.__file__).parent.glob(files)
    if path.name != "failures.py"
}
FAILURES = (Path(lockgate.__file__).parent / "runtime" / "failures.py").read_text().partition("PASSING =")[2]


def test_every_word_a_run_may_end_with_is_in_the_list() -> None:
    raised = re.compile(r'(?:RunFailed|ToolFailed|_stop)\(\s*"(\w+)"')
    found = {word for text in (*SOURCES.values(), FAILURES) for word in raised.findall(text)}
    assert found <= set(ERROR_TYPES)
    assert len(found) > 20


def test_every_word_in_the_list_can_happen() -> None:
    everything = "\n".join((*SOURCES.values(), FAILURES))
    assert [word for word in ERROR_TYPES if f'"{word}"' not in everything] == []


def test_failures_that_pass_are_words_of_the_list() -> None:
    assert set(ERROR_TYPES) >= PASSING
