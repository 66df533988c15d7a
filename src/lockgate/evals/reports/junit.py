"""JUnit XML: each metric and each case a test, as CI servers read them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from xml.sax.saxutils import escape, quoteattr

from lockgate.evals.model import Scorecard
from lockgate.evals.reports.cases import CaseView, failing, text_of

_FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit(card: Scorecard, cases: Iterable[CaseView] = ()) -> str:
    """One suite of metrics, which decide, and one of cases, whose failures are details and never more than that.

    An inconclusive metric is an error: CI that looks at this file alone must not turn green.
    """
    gate: list[str] = []
    failures = errors = 0
    for metric in card.metrics:
        head = f'    <testcase classname={_attribute(card.agent + ".gate")} name={_attribute(metric.name)} time="0"'
        if metric.blocking and metric.verdict == "fail":
            failures += 1
            gate.append(f'{head}>\n      <failure message={_attribute(metric.reason or "failed")} type="fail"/>')
            gate.append("    </testcase>")
        elif metric.blocking and metric.verdict == "inconclusive":
            errors += 1
            gate.append(f'{head}>\n      <error message={_attribute(metric.reason or "")} type="inconclusive"/>')
            gate.append("    </testcase>")
        elif metric.verdict != "pass":
            gate.append(f"{head}>\n      <skipped/>\n    </testcase>")
        else:
            gate.append(f"{head}/>")
    skipped = sum(line.endswith("<skipped/>\n    </testcase>") for line in gate)
    if card.verdict != "pass" and not failures and not errors:  # the verdict is never lost
        errors += 1
        gate.append(
            f'    <testcase classname={_attribute(card.agent + ".gate")} name="verdict" time="0">\n'
            f"      <error message={_attribute('; '.join(card.reasons))} type={_attribute(card.verdict)}/>\n"
            "    </testcase>"
        )
    stamp = datetime.fromtimestamp(card.started_at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    suites = [_suite(f"{card.agent} gate", gate, failures, errors, skipped, card.seconds, stamp)]
    rows: list[str] = []
    lost, spent = 0, 0.0
    for one in cases:
        seconds = sum(trial.result.seconds for trial in one.trials)
        spent += seconds
        head = (
            f"    <testcase classname={_attribute(card.agent + '.cases')} name={_attribute(one.case.id)} "
            f'time="{seconds:.3f}"'
        )
        broken = failing(card, one.trials)
        if not one.trials:
            lost += 1
            rows.append(f"{head}>\n      <skipped/>\n    </testcase>")
        elif broken:
            answer = text_of(one.trials[0].result.output) or one.trials[0].result.error or ""
            rows.append(
                f"{head}>\n      <skipped message={_attribute('below: ' + ', '.join(broken))}/>\n"
                f"      <system-out>{_text(answer[:4000])}</system-out>\n    </testcase>"
            )
            lost += 1
        else:
            rows.append(f"{head}/>")
    if rows:
        suites.append(_suite(f"{card.agent} cases", rows, 0, 0, lost, spent, stamp))
    tests = _count([*gate, *rows])
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<testsuites name={_attribute(card.label)} tests="{tests}" failures="{failures}" errors="{errors}" '
        f'time="{card.seconds:.3f}">\n' + "\n".join(suites) + "\n</testsuites>\n"
    )


def _suite(name: str, rows: list[str], failures: int, errors: int, skipped: int, seconds: float, stamp: str) -> str:
    return (
        f'  <testsuite name={_attribute(name)} tests="{_count(rows)}" failures="{failures}" errors="{errors}" '
        f'skipped="{skipped}" time="{seconds:.3f}" timestamp="{stamp}">\n' + "\n".join(rows) + "\n  </testsuite>"
    )


def _count(rows: list[str]) -> int:
    return sum(row.count("<testcase ") for row in rows)


def _attribute(text: str) -> str:
    return quoteattr(_FORBIDDEN.sub("�", text))


def _text(text: str) -> str:
    return escape(_FORBIDDEN.sub("�", text))
