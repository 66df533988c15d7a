"""A version as the files that would make it: an agent file and all it names, to be looked at and locked again.

What a bundle has only by its digest (a knowledge base, a dependency lock file, weights) and what is not part of it (the
golden set, a judge's instructions, scorers) cannot be written; ``missing`` names it.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from lockgate.project.model import Project
from lockgate.project.service import PROJECT_FILE, WELL_KNOWN
from lockgate.versions.model import ActionLimits, AgentSettings, AgentVersion, ToolContract

_LIMITS = ActionLimits()
_FILE = re.compile(r"[\w./-]+\.(py|json|jsonl|ya?ml|md|txt|toml|csv)(:\w+)?")


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """Files by path, and what is not among them, each in words."""

    files: dict[str, bytes]
    missing: list[str]


def written(
    version: AgentVersion, settings: AgentSettings, get: Callable[[str], bytes], project: Project, *, number: int = 0
) -> Written:
    """The version's files with a project file around them. ``get`` reads a blob; ``project`` knows the providers.

    ``number`` is the file's version, where ``version`` has none.
    """
    missing: list[str] = []
    agent = _agent(version, settings, number, missing)
    files = {path: get(digest) for path, digest in version.code.items()}
    files |= {path: text.encode() for path, text in version.policies.items()}
    for tool in version.tools:
        if not _bare(tool):
            files[f"tools/{tool.name}.yaml"] = _yaml({"tool": _tool(tool)})
    if version.system_prompt:
        files[_prompt(version)] = version.system_prompt.encode()
    if version.guardrails.output_schema is not None:
        files[_schema(version)] = json.dumps(version.guardrails.output_schema, indent=2, ensure_ascii=False).encode()
    files[f"agents/{version.agent}.v{agent['version']}.yaml"] = _yaml({"agent": agent})
    files[PROJECT_FILE] = _project(version, settings, project, missing)
    return Written(files=files, missing=missing)


def _agent(version: AgentVersion, settings: AgentSettings, number: int, missing: list[str]) -> dict[str, Any]:
    model: dict[str, Any] = _plain(version.model)
    if version.fallbacks:
        model["fallbacks"] = [_plain(one) for one in version.fallbacks]
    if version.triage is not None:
        model["triage"] = {**_plain(version.triage), **(version.routing or {})}
    guardrails = version.guardrails
    budgets = {name: value for name, value in _plain(version.limits).items() if value != getattr(_LIMITS, name)}
    budgets |= {"daily_usd": settings.daily_usd, "daily_tokens": settings.daily_tokens}
    parts = {
        "name": version.agent,
        "version": version.file_version or number or 1,
        "owner": settings.owner,
        "model": model,
        "framework": _plain(version.framework),
        "system_prompt": _prompt(version) if version.system_prompt else None,
        "references": [_plain(one) for one in version.references],
        "tools": [{"name": one.name, "contract": "none"} | _approval(one) if _bare(one) else one.name
                  for one in version.tools],
        "handler": version.handler,
        "guardrails": {
            **{name: value for name, value in _plain(guardrails).items() if name != "output_schema"},
            **({} if guardrails.output_schema is None else {"output_schema": _schema(version)}),
        },
        "cache": version.cache,
        "policies": list(version.policies),
        "retrieval": _retrieval(version, missing),
        "memory": version.memory,
        "budgets": {name: value for name, value in budgets.items() if value is not None},
        "breaker": settings.breaker,
        "evals": _evals(settings, missing),
        "rollout": settings.rollout,
    }  # fmt: skip
    missing += [f"{name}: a lock file of dependencies" for name in version.dependencies]
    if version.references:
        missing.append("what `references` names; only its digests are part of a version")
    return {name: value for name, value in parts.items() if value not in (None, {}, [])}


def _retrieval(version: AgentVersion, missing: list[str]) -> dict[str, Any] | None:
    if version.retrieval is None:
        return None
    missing.append(f"the knowledge base {version.retrieval['knowledge_base']}")
    return {name: value for name, value in version.retrieval.items() if name != "digest"}


def _evals(settings: AgentSettings, missing: list[str]) -> dict[str, Any]:
    """Without the files that only the project it came from has."""
    evals = dict(settings.evals)
    if dataset := evals.pop("dataset", None):
        missing.append(f"the golden set {dataset}: name one under evals.dataset")
    if prompt := (evals.get("judge") or {}).get("prompt"):
        evals["judge"] = {name: value for name, value in evals["judge"].items() if name != "prompt"}
        missing.append(f"the judge's instructions {prompt}: name them under evals.judge.prompt")
    evals["thresholds"] = _rules(evals.get("thresholds") or {}, missing)
    if rubric := evals.get("rubric"):
        dimensions = _rules(rubric.get("dimensions") or {}, missing)
        never = [name for name in rubric.get("never") or () if name in dimensions or name not in rubric["dimensions"]]
        evals["rubric"] = {**rubric, "dimensions": dimensions, **({"never": never} if never else {})}
    return {name: value for name, value in evals.items() if value != {}}


def _rules(rules: Mapping[str, Any], missing: list[str]) -> dict[str, Any]:
    """Without those that need a file, a scorer or a schema, which no version carries."""
    needed = {name: file for name, rule in rules.items() if (file := _file_in(rule)) is not None}
    missing += [f"the metric {name}: it needs {file}" for name, file in needed.items()]
    return {name: rule for name, rule in rules.items() if name not in needed}


def _file_in(rule: Any) -> str | None:
    if isinstance(rule, str):
        return rule if _FILE.fullmatch(rule) else None
    parts = rule.values() if isinstance(rule, Mapping) else rule if isinstance(rule, (list, tuple)) else ()
    return next((file for part in parts if (file := _file_in(part)) is not None), None)


def _tool(tool: ToolContract) -> dict[str, Any]:
    return {**_plain(tool), "effect": tool.effect, "input": tool.input, **_approval(tool)}


def _approval(tool: ToolContract) -> dict[str, str]:
    return {"approval": "required" if tool.approval else "none"}


def _bare(tool: ToolContract) -> bool:
    """A tool that something else brings: only its name was locked."""
    return tool == ToolContract(name=tool.name, approval=tool.approval)


def _project(version: AgentVersion, settings: AgentSettings, project: Project, missing: list[str]) -> bytes:
    names = {version.model.provider, *(one.provider for one in version.fallbacks)}
    if version.triage is not None:
        names.add(version.triage.provider)
    judge = settings.evals.get("judge") or {}
    names |= {one["provider"] for one in (judge, *judge.get("panel", ())) if one}
    known = {name: one for name, one in project.config.providers.items() if name in names}
    missing += [
        f"the provider {name}: say under `providers:` of {PROJECT_FILE} where it is"
        for name in sorted(names - known.keys() - WELL_KNOWN.keys())
    ]
    shown = {name: one.model_dump(mode="json", exclude_unset=True) for name, one in sorted(known.items())}
    return _yaml({"project": project.config.project, **({"providers": shown} if shown else {})})


def _prompt(version: AgentVersion) -> str:
    return f"prompts/{version.agent}.md"


def _schema(version: AgentVersion) -> str:
    return f"schemas/{version.agent}.json"


def _plain(value: msgspec.Struct) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.to_builtins(value)
    return {name: one for name, one in found.items() if one is not None}


def _yaml(data: Mapping[str, Any]) -> bytes:
    from ruamel.yaml import YAML

    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.allow_unicode = True
    yaml.width = 110
    out = io.BytesIO()
    yaml.dump(data, out)
    return out.getvalue()
