"""Writes the pages that follow from the code: file references from the types, the command reference from the commands.

Usage: python docs/generate.py            write them
       python docs/generate.py --check    fail when one is stale
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parent

FILES = {
    "agent": ("The agent file", "`agents/NAME.vN.yaml`: one declarative artifact, one agent. Paths are from the root."),
    "tool": ("Tool contracts", "`tools/NAME.yaml`: what a tool is called, takes, gives and does."),
    "prompt": (
        "Prompts",
        "`prompts/NAME.yaml`, for a prompt with a name of its own; a plain text file will do as well.",
    ),
    "rubric": ("Rubrics", "`evals/rubrics/NAME.yaml`: what a good answer is, and what must never happen."),
    "project": ("The project file", "`lockgate.yaml`, at the root of the repository."),
}

EXAMPLES = {
    "agent": """\
agent:
  name: refund-triage
  version: 3
  owner: payments-team
  model: {provider: openai, name: gpt-4o-mini-2024-07-18, temperature: 0, max_tokens: 512}
  system_prompt: prompts/refund-triage.v3.md
  tools: [read_orders, {name: issue_refund, approval: required}]
  handler: triage_refund
  guardrails: {output_schema: schemas/refund_facts.json}
  policies: [policies/support.cedar]
  budgets: {max_usd_per_run: 0.05, daily_usd: 50}
  evals:
    dataset: evals/golden/refund-triage.jsonl
    trials: 3
    rubric: evals/rubrics/refund-triage.yaml
    thresholds: {field_match: 0.85, cost_usd: {max: 0.05}}
  rollout:
    shadow: {mirror: 100, min_pairs: 50}
    phases: [{weight: 5, min: 1h}, {weight: 25, min: 2h}, {weight: 50, min: 4h}]
""",
    "tool": """\
tool:
  name: issue_refund
  description: Pay an amount back to the customer of an order.
  effect: write
  python: tools/orders.py:issue_refund
  input:
    type: object
    properties: {order_id: {type: string}, amount: {type: number, exclusiveMinimum: 0}}
    required: [order_id, amount]
    additionalProperties: false
  approval: required
  timeout: 10s
""",
    "prompt": """\
name: refund-triage
version: 3
template: |
  You read messages of customers. Answer with JSON: the item, and the order's number.
""",
    "rubric": """\
name: refund-triage
dimensions:
  field_match: {threshold: 0.85, margin: 0.05}
  latency_seconds: {max: 3, blocking: false}
never: [must_not]
slices: {multilingual: 2}
""",
    "project": """\
project: acme-support
owner: payments-team
providers:
  openai: {kind: openai, api_key: "${env:OPENAI_API_KEY}"}
prices: prices.yaml
environments: {dev: {}, staging: {}, prod: {}}
""",
}


def main(arguments: list[str]) -> int:
    pages = {name: make() for name, make in PAGES.items()}
    stale = [name for name, text in pages.items() if _read(name) != text]
    if "--check" in arguments:
        for name in stale:
            sys.stderr.write(f"docs/{name} is stale\n  → python docs/generate.py\n")
        return bool(stale)
    for name in stale:
        (DOCS / name).write_text(pages[name], encoding="utf-8")
        sys.stdout.write(f"docs/{name} written\n")
    return 0


def _read(name: str) -> str:
    path = DOCS / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


# --- files ----------------------------------------------------------------------------------------------------


def agent_file() -> str:
    """Reference of every file people write, from the types that read them."""
    parts = [
        "# Files\n\n"
        "Generated from the types that read the files. `lockgate schema agent` prints the JSON Schema, for editors. "
        "An unknown key, a wrong type or a missing file is an error that names file, line, value and remedy.\n"
    ]
    parts += [_file(what, *about) for what, about in FILES.items()]
    return "\n".join(parts)


def _file(what: str, title: str, about: str) -> str:
    from lockgate.versions.cli import json_schema

    schema = json_schema(what)
    sections = [f"## {title}\n\n{about}\n\n```yaml\n{EXAMPLES[what]}```\n"]
    for path, model in _models(schema):
        description = " ".join(model.get("description", "").split())
        heading = f"### `{path}`\n\n{description}\n\n" if path else ""
        sections.append(f"{heading}{_table(model, schema)}\n")
    return "\n".join(sections)


def _models(schema: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each type once, under the first place it can stand, breadth last."""
    yield "", schema
    seen: set[str] = set()

    def below(model: dict[str, Any], path: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, field in model.get("properties", {}).items():
            for target in _targets(field):
                if target not in seen:
                    seen.add(target)
                    here = f"{path}.{name}" if path else name
                    yield here, schema["$defs"][target]
                    yield from below(schema["$defs"][target], here)

    yield from below(schema, "")


def _targets(field: Any) -> list[str]:
    if isinstance(field, dict):
        if "$ref" in field:
            return [field["$ref"].rpartition("/")[2]]
        return [target for key, value in field.items() if key != "default" for target in _targets(value)]
    return [target for item in field for target in _targets(item)] if isinstance(field, list) else []


def _table(model: dict[str, Any], schema: dict[str, Any]) -> str:
    paths = {id(found): path for path, found in _models(schema)}
    rows = ["| key | value | default | meaning |", "|---|---|---|---|"]
    for name, field in model.get("properties", {}).items():
        required = name in model.get("required", ())
        meaning = " ".join(field.get("description", "").split())
        if not meaning:
            meaning = schema["$defs"][_targets(field)[0]].get("description", "") if _targets(field) else ""
        kind = _kind(field, schema, paths).replace("|", "\\|")
        rows.append(f"| `{name}` | {kind} | {_default(field, required)} | {meaning.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def _kind(field: dict[str, Any], schema: dict[str, Any], paths: dict[int, str]) -> str:
    if "$ref" in field:
        path = paths[id(schema["$defs"][field["$ref"].rpartition("/")[2]])]
        return f"[{path.rpartition('.')[2]}](#{_anchor(path)})"
    if "anyOf" in field:
        return " or ".join(_kind(each, schema, paths) for each in field["anyOf"] if each.get("type") != "null")
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    if "enum" in field:
        return " · ".join(f"`{value}`" for value in field["enum"])
    kind = field.get("type")
    if isinstance(kind, list):
        return "duration"
    if kind == "array":
        return f"list of {_kind(field['items'], schema, paths)}"
    if kind == "object":
        values = [*field.get("patternProperties", {}).values(), field.get("additionalProperties")]
        inner = next((value for value in values if isinstance(value, dict) and value), None)
        return f"by name: {_kind(inner, schema, paths)}" if inner else "object"
    words = {"string": "text", "integer": "whole number", "number": "number", "boolean": "true · false"}
    return words.get(str(kind), "anything") + _bounds(field)


def _bounds(field: dict[str, Any]) -> str:
    signs = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    found = [f"{sign} {field[key]:g}" for key, sign in signs.items() if key in field]
    return f", {', '.join(found)}" if found else ""


def _default(field: dict[str, Any], required: bool) -> str:
    if required:
        return "**required**"
    value = field.get("default")
    if value in (None, [], {}) or (isinstance(value, dict) and "$ref" in field):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


def _anchor(heading: str) -> str:
    """As the forges make them: lower case, spaces to hyphens, everything else away."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


# --- metrics ---------------------------------------------------------------------------------------------------


def scorers() -> str:
    """Every scorer a rubric can name, by family."""
    from lockgate.evals.scorers.cli import described

    titles = {
        "reference": "Against what is expected",
        "quality": "Quality, by a judge",
        "agent": "What the agent did",
        "operational": "Cost and time",
        "own": "Your own",
    }
    parts = [
        "# Scorers\n\n"
        "Generated from the scorers; `lockgate scorers` lists them too. A rubric's `dimensions`, and "
        "`evals.thresholds` in an agent file, name them, by any of their names. "
        "*Live* ones also score real runs. Where a metric does not "
        "apply it is *skipped*; where a judge gave no usable verdict, or had nothing to judge by, it is *unscored*; "
        "both are counted. A scorer that raises, or gives no number, counts as the worst value.\n\n"
        "A package adds scorers by entry points in the group `lockgate.scorers`: each a function "
        "`(options…) -> Scorer` (see `lockgate.evals.scorers`).\n"
    ]
    rows = described()
    for family, title in titles.items():
        parts.append(f"## {title}\n\n| scorer | range | needs | live | meaning | source |\n|---|---|---|---|---|---|")
        for row in rows:
            if row["family"] == family:
                names = f"`{row['scorer']}`" + "".join(f", `{alias}`" for alias in row["aliases"])
                live = "yes" if row["live"] else ""
                cells = (names, row["range"], row["needs"], live, row["about"], row["source"])
                parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    parts.append(_peers())
    return "\n".join(parts)


def _peers() -> str:
    from lockgate.evals.peers import PEERS

    parts = [
        "## Metrics of other tools\n\n"
        "Run by those tools themselves, in environments of their own: [other tools](peers.md). "
        "*Judge*: what it asks a model goes to the evaluation's judge.\n"
    ]
    for name, package in PEERS.items():
        parts.append(f"{package.title}:\n\n| scorer | needs | better |\n|---|---|---|")
        for metric in package.metrics.values():
            if not metric.name.startswith("not-"):
                needs = ", ".join(need.replace("_", " ") for need in metric.needs)
                parts.append(f"| `{name}:{metric.name}` | {needs} | {metric.direction} |")
        parts.append("")
    return "\n".join(parts)


def scorecard_schema() -> str:
    """The JSON Schema of a scorecard, for programs that read one."""
    from lockgate.schemas import schema_of

    return json.dumps(schema_of("scorecard"), indent=1, ensure_ascii=False) + "\n"


# --- commands -------------------------------------------------------------------------------------------------


def cli() -> str:
    """Each command's own help."""
    from lockgate.cli import COMMANDS

    parts = [
        "# Commands\n\n"
        "Generated from the commands' own `--help`. Everything that prints takes `--json`. "
        "Exit codes: 0 pass · 1 fail · 2 usage · 3 inconclusive · 4 could not evaluate.\n"
    ]
    for panel in dict.fromkeys(entry.panel for entry in COMMANDS.values()):
        parts.append(f"## {panel}\n")
        for path, text in commands():
            if COMMANDS[path.split()[0]].panel == panel:
                level = "###" if " " not in path else "####"
                parts.append(f"{level} lockgate {path}\n\n```text\n{text}\n```\n")
    return "\n".join(parts)


def commands() -> Iterator[tuple[str, str]]:
    """Every command and subcommand, with its help: ``("triage promote", "Usage: …")``."""
    from typer.main import get_command

    from lockgate.cli import COMMANDS, app

    root = get_command(app)
    for name in COMMANDS:
        yield from _help(root.get_command(None, name), name)  # type: ignore[attr-defined]


def _help(command: Any, path: str) -> Iterator[tuple[str, str]]:
    context = command.context_class(command, info_name=f"lockgate {path}", terminal_width=100, max_content_width=100)
    text = re.sub(r"[ \t]+\n", "\n", command.get_help(context)).rstrip()
    yield path, text
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        yield from _help(command.get_command(context, name), f"{path} {name}")


# --- runs -----------------------------------------------------------------------------------------------------

_MARKED = re.compile(r"(<!-- generated: error types -->\n).*?(<!-- end -->)", re.DOTALL)


def runs() -> str:
    """``runs.md`` is written by hand but for its table of error types."""
    from lockgate.runtime.failures import ERROR_TYPES

    rows = "\n".join(f"| `{word}` | {meaning} |" for word, meaning in ERROR_TYPES.items())
    table = f"| `error_type` | meaning |\n|---|---|\n{rows}\n"
    return _MARKED.sub(lambda match: match[1] + table + match[2], _read("runs.md"))


# --- settings -------------------------------------------------------------------------------------------------

_SETTINGS = re.compile(r"(<!-- generated: settings -->\n).*?(<!-- end -->)", re.DOTALL)


def settings() -> str:
    """``settings.md`` is written by hand but for its table of settings."""
    from lockgate.settings.catalogue import describe

    rows = "".join(
        f"| `{one['name']}` | {one['takes']} | {' '.join(f'`{flag}`' for flag in one['narrowed'])} | {one['help']} |\n"
        for one in describe()
    )
    table = f"| setting | takes | narrowed by | what it does |\n|---|---|---|---|\n{rows}"
    return _SETTINGS.sub(lambda match: match[1] + table + match[2], _read("settings.md"))


PAGES: dict[str, Callable[[], str]] = {
    "settings.md": settings,
    "agent-file.md": agent_file,
    "scorers.md": scorers,
    "scorecard.schema.json": scorecard_schema,
    "cli.md": cli,
    "runs.md": runs,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
