"""How two versions differ in behaviour, in the order a reviewer asks: what got looser, what changed, where. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from difflib import unified_diff
from typing import Any, Literal

import msgspec

from lockgate.versions.estimate import Weight
from lockgate.versions.model import ActionLimits, AgentSettings, AgentVersion, Guardrails, ToolContract
from lockgate.versions.schema_break import schema_break

Mark = Literal["", "loosened", "tightened", "breaking", "compatible"]

_LESS_IS_BETTER = re.compile(r"cost|usd|latency|seconds|tokens|error|iteration|calls|rate$")
_INJECTION = ("off", "flag", "block")
_EFFECTS = ("pure", "read", "write")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One side of a diff."""

    label: str
    version: AgentVersion
    settings: AgentSettings
    code: dict[str, str]


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One difference. ``hunks`` are the lines of a unified diff, for text; else ``before`` and ``after`` say it."""

    part: str
    what: str
    before: Any = None
    after: Any = None
    mark: Mark = ""
    hunks: list[str] = msgspec.field(default_factory=list)


class BehaviourDiff(msgspec.Struct, frozen=True, kw_only=True):
    """All that differs. ``same_behaviour``: the digests are equal, only what stands beside them may differ."""

    before: str
    after: str
    before_digest: str
    after_digest: str
    same_behaviour: bool
    changes: list[Change]
    before_weight: Weight | None = None
    after_weight: Weight | None = None

    @property
    def loosened(self) -> list[Change]:
        """What allows more than before."""
        return [change for change in self.changes if change.mark == "loosened"]


def compare(before: Snapshot, after: Snapshot) -> BehaviourDiff:
    """The behaviour diff of two snapshots."""
    old, new = before.version, after.version
    changes = [
        *_text("prompt", "system prompt", old.system_prompt, new.system_prompt),
        *_values("model", _models(old), _models(new)),
        *_tools(old, new),
        *_guardrails(old.guardrails, new.guardrails),
        *_texts("policy", old.policies, new.policies, removed="loosened"),
        *_limits(old.limits, new.limits),
        *_values("framework", _fields(old.framework), _fields(new.framework)),
        *_values("handler", {"handler": old.handler}, {"handler": new.handler}),
        *_values("retrieval", old.retrieval or {}, new.retrieval or {}),
        *_values("memory", old.memory or {}, new.memory or {}),
        *_values("cache", old.cache or {}, new.cache or {}),
        *_values("routing", old.routing or {}, new.routing or {}),
        *_values("dependencies", old.dependencies, new.dependencies),
        *_values(
            "references",
            {one.name: one.digest for one in old.references},
            {one.name: one.digest for one in new.references},
        ),
        *_texts("code", before.code, after.code),
        *_settings(before.settings, after.settings),
    ]
    return BehaviourDiff(
        before=before.label,
        after=after.label,
        before_digest=old.behaviour_digest,
        after_digest=new.behaviour_digest,
        same_behaviour=old.behaviour_digest == new.behaviour_digest,
        changes=changes,
    )


def markdown(diff: BehaviourDiff) -> str:
    """For a pull request."""
    title = f"### Behaviour diff: `{diff.before}` → `{diff.after}`"
    if not diff.changes:
        return f"{title}\n\nNo difference: `{diff.after_digest[:19]}`.\n"
    same = f"Same behaviour (`{diff.after_digest[:19]}`); only what stands beside it differs."
    out = [title, "", same if diff.same_behaviour else f"`{diff.before_digest[:19]}` → `{diff.after_digest[:19]}`"]
    if diff.loosened:
        out += ["", "**Loosened:** " + "; ".join(one_line(change) for change in diff.loosened)]
    if weights(diff):
        out += ["", *(f"- {line}" for line in weights(diff))]
    table = [change for change in diff.changes if not change.hunks]
    if table:
        out += ["", "| part | what | before | after | |", "|---|---|---|---|---|"]
        for change in table:
            cells = (change.part, change.what, shown(change.before), shown(change.after), change.mark)
            out.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    for change in diff.changes:
        if change.hunks:
            fence = "`" * (max([2, *(len(run) for line in change.hunks for run in re.findall("`+", line))]) + 1)
            out += ["", f"**{change.part}: {change.what}**", "", f"{fence}diff", *change.hunks, fence]
    return "\n".join(out) + "\n"


def weights(diff: BehaviourDiff) -> list[str]:
    """``prompt: about 120 → 180 tokens (+60)``, and the same for tools and USD; empty where nothing changed."""
    old, new = diff.before_weight, diff.after_weight
    if old is None or new is None or old == new:
        return []
    out = []
    for what, before, after in (
        ("prompt", old.prompt_tokens, new.prompt_tokens),
        ("tools", old.tool_tokens, new.tool_tokens),
    ):
        if before != after:
            out.append(f"{what}: about {before:,} → {after:,} tokens ({after - before:+,})")
    if old.max_usd is None or new.max_usd is None:
        if old.max_usd != new.max_usd:
            out.append("cost: no price is known for one of the models")
    elif old.max_usd != new.max_usd:
        share = f", {new.max_usd / old.max_usd - 1:+.0%}" if old.max_usd else ""
        out.append(
            f"a model call, at most: {old.max_usd:.6f} → {new.max_usd:.6f} USD "
            f"({new.max_usd - old.max_usd:+.6f}{share}), before the user's own text"
        )
    return out


def one_line(change: Change) -> str:
    """``tools issue_refund.approval: true → false (loosened)``."""
    mark = f" ({change.mark})" if change.mark else ""
    if change.hunks:
        return f"{change.part} {change.what}{mark}"
    return f"{change.part} {change.what}: {shown(change.before)} → {shown(change.after)}{mark}"


def shown(value: Any) -> str:
    """A value in a table: ``–`` for none, JSON for the rest, cut at 80 characters."""
    text = "–" if value is None else value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return text if len(text) <= 80 else text[:77] + "…"


# --- parts ----------------------------------------------------------------------------------------------------


def _models(version: AgentVersion) -> dict[str, Any]:
    found = _fields(version.model)
    for number, fallback in enumerate(version.fallbacks):
        found |= {f"fallbacks[{number}].{name}": value for name, value in _fields(fallback).items()}
    if version.triage is not None:
        found |= {f"triage.{name}": value for name, value in _fields(version.triage).items()}
    return found


def _tools(old: AgentVersion, new: AgentVersion) -> Iterator[Change]:
    before, after = {tool.name: tool for tool in old.tools}, {tool.name: tool for tool in new.tools}
    for name in sorted(before.keys() | after.keys()):
        was, now = before.get(name), after.get(name)
        if was is None and now is not None:
            mark: Mark = "loosened" if now.effect == "write" and not now.approval else ""
            yield Change(part="tools", what=name, after=f"added ({now.effect})", mark=mark)
        elif was is not None and now is None:
            yield Change(part="tools", what=name, before=f"removed ({was.effect})", mark="breaking")
        elif was is not None and now is not None:
            yield from _tool(was, now)
    if list(before) != list(after) and before.keys() == after.keys():
        yield Change(part="tools", what="order", before=", ".join(before), after=", ".join(after))


def _tool(was: ToolContract, now: ToolContract) -> Iterator[Change]:
    for change in _values("tools", _fields(was), _fields(now), prefix=f"{was.name}."):
        field = change.what.removeprefix(f"{was.name}.").partition(".")[0]
        mark: Mark = ""
        if field == "approval":
            mark = "tightened" if now.approval else "loosened"
        elif field == "effect":
            mark = "loosened" if _EFFECTS.index(now.effect) > _EFFECTS.index(was.effect) else "tightened"
        elif field == "scopes":
            mark = "loosened" if set(now.scopes) - set(was.scopes) else "tightened"
        if field not in ("input", "output"):
            yield msgspec.structs.replace(change, mark=mark)
    for field, old, new in (("input", was.input, now.input), ("output", was.output or {}, now.output or {})):
        if old != new:
            broken = schema_break(old, new) if field == "input" else schema_break(new, old)
            yield Change(
                part="tools",
                what=f"{was.name}.{field}" + (f": {broken}" if broken else ""),
                mark="breaking" if broken else "compatible",
                hunks=_hunks(_pretty(old), _pretty(new)),
            )


def _guardrails(old: Guardrails, new: Guardrails) -> Iterator[Change]:
    if old.pii_redaction != new.pii_redaction:
        mark: Mark = "tightened" if new.pii_redaction else "loosened"
        yield Change(
            part="guardrails", what="pii_redaction", before=old.pii_redaction, after=new.pii_redaction, mark=mark
        )
    if old.injection != new.injection:
        mark = "tightened" if _INJECTION.index(new.injection) > _INJECTION.index(old.injection) else "loosened"
        yield Change(part="guardrails", what="injection", before=old.injection, after=new.injection, mark=mark)
    for side in ("input", "output"):
        guards = [{str(number): guard for number, guard in enumerate(getattr(one, side), 1)} for one in (old, new)]
        yield from _values(
            "guardrails", *({f"{side} {number}": guard for number, guard in one.items()} for one in guards)
        )
    before, after = old.output_schema, new.output_schema
    if before is not None and after is None:
        yield Change(part="guardrails", what="output_schema", before="a schema", mark="loosened")
    elif before is None and after is not None:
        yield Change(part="guardrails", what="output_schema", after="a schema", mark="tightened")
    elif before is not None and after is not None and _pretty(before) != _pretty(after):
        broken = schema_break(after, before)
        yield Change(
            part="guardrails",
            what="output_schema" + (f": {broken} for those who read it" if broken else ""),
            mark="breaking" if broken else "compatible",
            hunks=_hunks(_pretty(before), _pretty(after)),
        )


def _limits(old: ActionLimits, new: ActionLimits) -> Iterator[Change]:
    for change in _values("limits", _fields(old), _fields(new)):
        yield msgspec.structs.replace(change, mark=_cap(change.before, change.after))


def _settings(old: AgentSettings, new: AgentSettings) -> Iterator[Change]:
    for name in ("daily_usd", "daily_tokens"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield Change(part="budgets", what=name, before=before, after=after, mark=_cap(before, after))
    yield from _values("owner", {"owner": old.owner}, {"owner": new.owner})
    yield from _values("breaker", old.breaker, new.breaker)
    rules = [(settings.evals.get("rubric") or {}).get("dimensions") or {} for settings in (old, new)]
    yield from _rules({**rules[0], **old.evals.get("thresholds", {})}, {**rules[1], **new.evals.get("thresholds", {})})
    rest = [{name: value for name, value in side.evals.items() if name != "thresholds"} for side in (old, new)]
    for side in rest:
        words = {name: value for name, value in (side.pop("rubric", None) or {}).items() if name != "dimensions"}
        side.update({"rubric": words} if words else {})
    yield from _values("evals", *rest)
    yield from _values("rollout", old.rollout, new.rollout)


def _rules(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """Thresholds; a metric that is gone, or a bound that moved the easy way, is called out."""
    for name in sorted(old.keys() | new.keys()):
        was, now = (rule if isinstance(rule, dict) else {"threshold": rule} for rule in (old.get(name), new.get(name)))
        if name not in new:
            yield Change(part="thresholds", what=name, before=old[name], mark="loosened")
        elif name not in old:
            yield Change(part="thresholds", what=name, after=new[name], mark="tightened")
        else:
            for change in _values("thresholds", was, now, prefix=f"{name}."):
                key = change.what.removeprefix(f"{name}.")
                yield msgspec.structs.replace(change, mark=_bound(name, key, change.before, change.after))


def _bound(metric: str, key: str, before: Any, after: Any) -> Mark:
    if key == "max" or key == "margin" or (key == "threshold" and _LESS_IS_BETTER.search(metric)):
        return _cap(before, after)
    if key in ("min", "threshold"):
        return (
            "loosened"
            if (after if after is not None else -1e99) < (before if before is not None else -1e99)
            else "tightened"
        )
    if key in ("blocking", "strict", "never"):
        default = key == "blocking"
        return "tightened" if (default if after is None else after) else "loosened"
    return ""


def _cap(before: float | None, after: float | None) -> Mark:
    """A cap that rises or goes away allows more."""
    if before == after:
        return ""
    return "loosened" if after is None or (before is not None and after > before) else "tightened"


# --- comparing ------------------------------------------------------------------------------------------------


def _fields(value: Any) -> dict[str, Any]:
    return {name: getattr(value, name) for name in value.__struct_fields__}


def _values(part: str, old: Mapping[str, Any], new: Mapping[str, Any], *, prefix: str = "") -> Iterator[Change]:
    before, after = dict(_flat(old, prefix)), dict(_flat(new, prefix))
    for name in [*before, *(name for name in after if name not in before)]:
        if before.get(name) != after.get(name):
            yield Change(part=part, what=name, before=before.get(name), after=after.get(name))


def _flat(value: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            yield from _flat(item, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", list(item) if isinstance(item, tuple) else item


def _text(part: str, what: str, old: str, new: str) -> Iterator[Change]:
    if old != new:
        yield Change(part=part, what=what, hunks=_hunks(old, new))


def _texts(part: str, old: Mapping[str, str], new: Mapping[str, str], removed: Mark = "") -> Iterator[Change]:
    for path in sorted(old.keys() | new.keys()):
        if path not in new:
            yield Change(part=part, what=path, before="a file", mark=removed)
        elif path not in old:
            yield Change(part=part, what=path, after="a file")
        else:
            yield from _text(part, path, old[path], new[path])


def _hunks(old: str, new: str) -> list[str]:
    lines = list(unified_diff(old.splitlines(), new.splitlines(), lineterm="", n=2))[2:]
    return lines or ["\\ only the end of the last line differs"]


def _pretty(value: Mapping[str, Any]) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
