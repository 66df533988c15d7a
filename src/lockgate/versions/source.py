"""Reads an agent file and everything it names into one version, ready to be packed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import msgspec

from lockgate.errors import InputError
from lockgate.project.model import Project
from lockgate.project.service import PROJECT_FILE, WELL_KNOWN, provider_names
from lockgate.project.yamlfile import Document, did_you_mean, read_text, read_yaml, validate
from lockgate.versions import contracts
from lockgate.versions.digest import nfc, sha256, tree_digest
from lockgate.versions.inlined import secret_lines
from lockgate.versions.model import (
    ActionLimits,
    AgentSettings,
    AgentVersion,
    Finding,
    Framework,
    Guardrails,
    ModelRef,
    Reference,
    ToolContract,
)
from lockgate.versions.owners import PLACES, owner_of
from lockgate.versions.pins import floating, floating_image
from lockgate.versions.spec import AgentFile, AgentSpec, MetricRule, ModelSpec, RubricSpec, ToolUseSpec

DEPENDENCY_LOCKS = ("uv.lock", "poetry.lock", "pdm.lock", "pylock.toml", "requirements.lock", "requirements.txt")
ENOUGH_CASES = 40
_SLIP = (
    0.8  # how alike two names are when one is a misspelling: read_order and read_orders, not send_sms and send_email
)

Revisions = Callable[[str, str], str | None]
"""``(provider, model name)`` → what a movable name stands for now, None when nobody says."""


class AgentSource(msgspec.Struct, frozen=True, kw_only=True):
    """An agent file, read: the version without its digests, the code it carries, and what stands beside it."""

    file: str  # POSIX, from the project's root
    spec: AgentSpec
    version: AgentVersion
    code: dict[str, bytes]
    settings: AgentSettings
    warnings: list[Finding]


def agent_files(root: Path) -> list[Path]:
    """The project's agent files: every YAML file below ``agents/``."""
    folder = root / "agents"
    found = [path for suffix in ("*.yaml", "*.yml") for path in folder.rglob(suffix)]
    return sorted(path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts))


def read_agent(path: Path, project: Project, revisions: Revisions = lambda provider, name: None) -> AgentSource:
    """Read one agent file with all it names. Raises :class:`InputError`: file, line, value, remedy."""
    return _Reader(path, project, revisions).read()


class _Reader:
    def __init__(self, path: Path, project: Project, revisions: Revisions) -> None:
        self.project = project
        self.root = project.root
        try:
            self.file = path.resolve().relative_to(self.root).as_posix()
        except ValueError:
            raise InputError(
                f"{str(path)!r} is outside the project {str(self.root)!r}", remedy="move it into the project"
            ) from None
        self.revisions = revisions
        self.document: Document = read_yaml(path, shown_as=self.file)
        self.warnings: list[Finding] = []

    def read(self) -> AgentSource:
        spec = validate(self.document, AgentFile).agent
        self.spec = spec
        native = spec.framework is None or spec.framework.kind == "native"
        prompt = ""
        if spec.system_prompt is not None:
            prompt = self.at(("agent", "system_prompt"), self.prompt)
        elif native:
            raise self.document.error(
                ("agent",), "the native loop needs a system_prompt", remedy="add `system_prompt: prompts/NAME.md`"
            )
        model, fallbacks, triage = self.models()
        tools = self.tools()
        code = self.code(tools)
        version = AgentVersion(
            agent=spec.name,
            file_version=spec.version,
            behaviour_digest="",
            model=model,
            fallbacks=fallbacks,
            triage=triage,
            routing=self.routing(),
            cache=None if spec.cache is None else spec.cache.model_dump(),
            system_prompt=prompt,
            framework=self.framework(),
            tools=tools,
            handler=spec.handler,
            guardrails=self.guardrails(),
            policies={nfc(name): self.policy(number, name) for number, name in enumerate(spec.policies)},
            limits=_limits(spec),
            retrieval=self.retrieval(),
            memory=None if spec.memory is None else {"ttl": spec.memory.ttl},
            dependencies=self.dependencies() if code else {},
            references=self.references(),
        )
        settings = self.settings()
        self.secrets({self.file: read_text(self.root / self.file, shown_as=self.file), **self.texts(version, code)})
        return AgentSource(
            file=nfc(self.file), spec=spec, version=version, code=code, settings=settings, warnings=self.warnings
        )

    def at(self, place: tuple[str | int, ...], read: Callable[[], Any]) -> Any:
        """Call ``read``; what is wrong with the file it is after is an error of the key that names the file."""
        try:
            return read()
        except InputError as wrong:
            if wrong.path is not None and wrong.line is not None:
                raise
            raise self.document.error(place, wrong.message, remedy=wrong.remedy) from None

    def warn(self, kind: str, place: tuple[str | int, ...], message: str, remedy: str) -> None:
        line = self.document.line(place)
        self.warnings.append(Finding(kind=kind, message=message, path=self.file, line=line, remedy=remedy))

    def prompt(self) -> str:
        assert self.spec.system_prompt is not None
        text, prompt = contracts.read_prompt(self.root, self.spec.system_prompt)
        if not text.strip():
            raise InputError("the prompt is empty", path=self.spec.system_prompt, line=1, remedy="write one")
        for key, theirs, ours in (
            ("model", prompt and prompt.model, self.spec.model.name),
            ("temperature", prompt and prompt.temperature, self.spec.model.temperature),
        ):
            if theirs is not None and theirs != ours:
                self.warn(
                    "prompt",
                    ("agent", "system_prompt"),
                    f"the prompt was written for {key} {theirs!r}, the agent has {ours!r}, which is what counts",
                    f"set agent.model.{'name' if key == 'model' else key}, or correct the prompt file",
                )
        return contracts.fill(text, {} if prompt is None else prompt.variables, self.spec.variables)

    # --- models -----------------------------------------------------------------------------------------------

    def models(self) -> tuple[ModelRef, tuple[ModelRef, ...], ModelRef | None]:
        model = self.spec.model
        place = ("agent", "model")
        fallbacks = tuple(
            self.model(fallback, (*place, "fallbacks", number)) for number, fallback in enumerate(model.fallbacks)
        )
        triage = None if model.triage is None else self.model(model.triage, (*place, "triage"))
        return self.model(model, place), fallbacks, triage

    def model(self, spec: ModelSpec, place: tuple[str | int, ...]) -> ModelRef:
        self.provider(spec.provider, place)
        ref = ModelRef(
            provider=spec.provider,
            name=spec.name,
            temperature=spec.temperature,
            top_p=spec.top_p,
            max_tokens=spec.max_tokens,
            seed=spec.seed,
            stop=tuple(spec.stop),
            revision=spec.revision or self.revisions(spec.provider, spec.name),
        )
        self.pinned(ref, place)
        return ref

    def provider(self, name: str, place: tuple[str | int, ...]) -> None:
        names = provider_names(self.project)
        if name not in names:
            dotted = ".".join(map(str, place))
            raise self.document.error(
                (*place, "provider"),
                f"{dotted}.provider is {name!r}, which {PROJECT_FILE} does not have",
                remedy=f"add it under `providers:` of {PROJECT_FILE}; or {did_you_mean(name, names)}",
            )

    def pinned(self, ref: ModelRef, place: tuple[str | int, ...]) -> None:
        provider = self.project.config.providers.get(ref.provider) or WELL_KNOWN[ref.provider]
        reason = floating(provider.kind, provider.base_url or "", ref)
        if reason is not None:
            self.warn(
                "pin",
                (*place, "name"),
                f"the model {ref.name!r} is not pinned: {reason}",
                "name a dated model, or add `revision:`; prod refuses it by default",
            )

    # --- tools and code ---------------------------------------------------------------------------------------

    def tools(self) -> tuple[ToolContract, ...]:
        asked: dict[str, tuple[ToolUseSpec, tuple[str | int, ...]]] = {}
        for number, use in enumerate(self.spec.tools):
            place = ("agent", "tools", number)
            if use.name in asked:
                raise self.document.error(place, f"the tool {use.name!r} stands twice", remedy="keep one of them")
            asked[use.name] = (use, place)
        handler = self.spec.handler
        if handler is not None and handler not in asked:
            asked[handler] = (ToolUseSpec(name=handler), ("agent", "handler"))
        found = tuple(self.tool(use, place) for use, place in asked.values())
        if handler is not None:
            self.check_handler(next(tool for tool in found if tool.name == handler))
        return found

    def tool(self, use: ToolUseSpec, place: tuple[str | int, ...]) -> ToolContract:
        name, approval = use.name, use.approval
        path = contracts.contract_path(self.root, name)
        if path is None:
            if use.contract is None:
                self.without_contract(name, place)
            return ToolContract(name=name, approval=approval == "required")
        if use.contract == "none":
            shown = path.relative_to(self.root).as_posix()
            raise self.document.error(
                place, f"the tool {name!r} has a contract: {shown}", remedy="take `contract: none` away, or that file"
            )
        contract: ToolContract = self.at(place, lambda: contracts.read_contract(self.root, path, approval=approval))
        if contract.effect == "write" and not contract.approval and approval is None:
            self.warn(
                "approval",
                place,
                f"the tool {name!r} changes the world without an approval",
                f"write {{name: {name}, approval: required}}, or `approval: none` to say that it is meant",
            )
        return contract

    def without_contract(self, name: str, place: tuple[str | int, ...]) -> None:
        """A name close to a known tool's is taken for a slip; another may be a tool that is brought from elsewhere."""
        known = contracts.contract_names(self.root)
        elsewhere = f"{{name: {name}, contract: none}} when something else brings it"
        if close := get_close_matches(name, known, n=1, cutoff=_SLIP):
            raise self.document.error(
                place, f"there is no tool {name!r}", remedy=f"did you mean {close[0]!r}? Or write {elsewhere}"
            )
        self.warn(
            "contract",
            place,
            f"the tool {name!r} has no contract, so it cannot be called",
            f"write tools/{name}.yaml (lockgate schema tool), or {elsewhere}",
        )

    def check_handler(self, contract: ToolContract) -> None:
        place, name = ("agent", "handler"), contract.name
        if contract.python is None:
            raise self.document.error(
                place, f"the handler {name!r} has no Python function", remedy=f"write tools/{name}.yaml with `python:`"
            )
        if contract.effect != "pure":
            raise self.document.error(
                place,
                f"the handler {name!r} has effect {contract.effect!r}, not 'pure'",
                remedy="let it decide only, and call other tools to act",
            )

    def code(self, tools: tuple[ToolContract, ...]) -> dict[str, bytes]:
        found: dict[str, bytes] = {}
        for tool in tools:
            if tool.python is not None:
                folder = contracts.inside(self.root, tool.python.rpartition(":")[0]).parent
                found.update(contracts.collect_code(self.root, folder))
        framework = self.spec.framework
        if framework is not None and framework.kind not in ("native", "image"):
            if framework.entrypoint is None:
                raise self.document.error(
                    ("agent", "framework"),
                    f"framework kind {framework.kind!r} needs an entrypoint",
                    remedy='add `entrypoint: "package.module:object"`',
                )
            entrypoint = framework.entrypoint
            place = ("agent", "framework", "entrypoint")
            found.update(self.at(place, lambda: contracts.entrypoint_code(self.root, entrypoint)))
        return found

    def framework(self) -> Framework:
        spec = self.spec.framework
        if spec is None:
            return Framework()
        place = ("agent", "framework")
        if (spec.kind == "image") != (spec.image is not None):
            raise self.document.error(
                place,
                f"framework kind {spec.kind!r} {'needs' if spec.kind == 'image' else 'has no'} image",
                remedy="write {kind: image, image: NAME@sha256:…}",
            )
        image = spec.image
        if image is not None and floating_image(image) is not None:
            digest = self.revisions("image", image)
            if digest is None:
                self.warn(
                    "pin",
                    (*place, "image"),
                    f"the image {image!r} is not pinned: {floating_image(image)}",
                    "write NAME@sha256:…; its registry did not say what the tag stands for",
                )
            else:
                image = f"{image}@{digest}"
        return Framework(kind=spec.kind, entrypoint=spec.entrypoint, image=image)

    def references(self) -> tuple[Reference, ...]:
        found: dict[str, Reference] = {}
        for number, spec in enumerate(self.spec.references):
            place = ("agent", "references", number)
            if spec.name in found:
                raise self.document.error(place, f"the reference {spec.name!r} stands twice", remedy="rename one")
            digest = spec.digest
            if spec.path is not None:
                here = self.tree(spec.path, place)
                if digest is not None and digest != here:
                    raise self.document.error(
                        place,
                        f"{spec.path!r} is {here}, not {digest}",
                        remedy="restore the file, or correct `digest:`",
                    )
                digest = here
            if digest is None:
                raise self.document.error(
                    place, f"the reference {spec.name!r} has neither digest nor path", remedy="add `digest: sha256:…`"
                )
            found[spec.name] = Reference(name=spec.name, kind=spec.kind, digest=digest)
        return tuple(found[name] for name in sorted(found))

    def tree(self, name: str, place: tuple[str | int, ...]) -> str:
        """The digest of a file's bytes, or of a folder's files; read piece by piece, whatever their size."""
        path: Path = self.at(place, lambda: contracts.inside(self.root, name))
        if path.is_file():
            return self.file_digest(path, place)
        paths = sorted(one for one in path.rglob("*") if one.is_file())
        if not paths:
            raise self.document.error(place, f"{name!r} is not here", remedy="create it, or correct the path")
        return tree_digest({one.relative_to(path).as_posix(): self.file_digest(one, place) for one in paths})

    def dependencies(self) -> dict[str, str]:
        for name in DEPENDENCY_LOCKS:
            if (self.root / name).is_file():
                return {name: sha256(read_text(self.root / name, shown_as=name, limit=64_000_000).encode())}
        return {}

    # --- the rest ---------------------------------------------------------------------------------------------

    def guardrails(self) -> Guardrails:
        spec = self.spec.guardrails
        schema = None
        if spec.output_schema is not None:
            name = spec.output_schema
            place = ("agent", "guardrails", "output_schema")
            schema = self.at(place, lambda: contracts.read_schema(self.root, name))
        return Guardrails(
            pii_redaction=spec.pii_redaction,
            injection=spec.injection,
            output_schema=schema,
            input=tuple(guard.config() for guard in spec.input),
            output=tuple(guard.config() for guard in spec.output),
        )

    def routing(self) -> dict[str, Any] | None:
        """What of ``triage`` says which requests are easy."""
        triage = self.spec.model.triage
        return None if triage is None else triage.model_dump(exclude=set(ModelSpec.model_fields), exclude_unset=True)

    def policy(self, number: int, name: str) -> str:
        text: str = self.at(("agent", "policies", number), lambda: contracts.read_policy(self.root, name))
        return text

    def retrieval(self) -> dict[str, Any] | None:
        spec = self.spec.retrieval
        if spec is None:
            return None
        place = ("agent", "retrieval", "knowledge_base")
        name = spec.knowledge_base
        found = next((self.root / text for text in (name, name.partition("@")[0]) if (self.root / text).exists()), None)
        if found is None:
            self.warn("knowledge", place, f"no knowledge base {name!r} here", "put its snapshot below kb/")
            return {"knowledge_base": name, "digest": None}
        self.at(place, lambda: contracts.inside(self.root, found.relative_to(self.root).as_posix()))
        paths = [found] if found.is_file() else sorted(path for path in found.rglob("*") if path.is_file())
        digests = {path.relative_to(found.parent).as_posix(): self.file_digest(path, place) for path in paths}
        return {"knowledge_base": name, "digest": tree_digest(digests)}

    def file_digest(self, path: Path, place: tuple[str | int, ...]) -> str:
        shown = path.relative_to(self.root).as_posix()
        with open(self.at(place, lambda: contracts.inside(self.root, shown)), "rb") as file:
            return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()

    def settings(self) -> AgentSettings:
        spec = self.spec
        owner = spec.owner or self.code_owner() or self.project.config.owner
        if owner is None:
            self.warn("owner", ("agent", "name"), f"{spec.name!r} has no owner", "add `owner:`, or a CODEOWNERS line")
        return AgentSettings(
            owner=owner,
            daily_usd=spec.budgets.daily_usd,
            daily_tokens=spec.budgets.daily_tokens,
            breaker={} if spec.breaker is None else spec.breaker.model_dump(),
            evals=self.evals(),
            rollout={} if spec.rollout is None else spec.rollout.model_dump(exclude_unset=True),
        )

    def code_owner(self) -> str | None:
        for place in PLACES:
            if (self.root / place).is_file():
                return owner_of(self.file, read_text(self.root / place, shown_as=place))
        return None

    def evals(self) -> dict[str, Any]:
        """The ``evals`` block with the files it names read in, so that it stands without them."""
        spec = self.spec.evals
        if spec is None:
            self.warn(
                "evals", ("agent",), f"{self.spec.name!r} has no evals: nothing can pass its gate", "add `evals:`"
            )
            return {}
        block: dict[str, Any] = spec.model_dump(exclude_unset=True, exclude={"thresholds", "rubric"})
        place: tuple[str | int, ...] = ("agent", "evals")
        block["thresholds"] = {name: _bound(rule) for name, rule in spec.thresholds.items()}
        rubric = spec.rubric
        if isinstance(rubric, str):
            name = rubric
            rubric = self.at((*place, "rubric"), lambda: contracts.read_rubric(self.root, name))
        if rubric is not None:
            assert isinstance(rubric, RubricSpec)
            block["rubric"] = rubric.model_dump(exclude_unset=True, exclude={"dimensions"})
            block["rubric"]["dimensions"] = {name: _bound(rule) for name, rule in rubric.dimensions.items()}
        if spec.dataset is not None:
            self.dataset(spec.dataset, (*place, "dataset"))
        if spec.judge is not None:
            self.judge((*place, "judge"))
        return block

    def dataset(self, name: str, place: tuple[str | int, ...]) -> None:
        text = self.at(place, lambda: read_text(contracts.inside(self.root, name), shown_as=name, limit=256_000_000))
        cases = sum(1 for line in text.split("\n") if line.strip())
        if cases < ENOUGH_CASES:
            self.warn(
                "evals", place, f"{name} has {cases} cases: fewer than {ENOUGH_CASES} prove little", "add cases to it"
            )

    def judge(self, place: tuple[str | int, ...]) -> None:
        assert self.spec.evals is not None
        assert self.spec.evals.judge is not None
        spec = self.spec.evals.judge
        self.provider(spec.provider, place)
        self.pinned(ModelRef(provider=spec.provider, name=spec.name), place)
        if spec.prompt is not None:
            name = spec.prompt
            self.at((*place, "prompt"), lambda: read_text(contracts.inside(self.root, name), shown_as=name))
        self.warn(
            "judge",
            place,
            "the judge is not calibrated against human labels",
            "lockgate judge calibrate; until then let its metrics only advise (`blocking: false`)",
        )

    def texts(self, version: AgentVersion, code: Mapping[str, bytes]) -> dict[str, str]:
        found = {path: data.decode() for path, data in code.items()} | dict(version.policies)
        if self.spec.system_prompt is not None:
            found[self.spec.system_prompt] = version.system_prompt
        return found

    def secrets(self, texts: Mapping[str, str]) -> None:
        for path, text in texts.items():
            for line in secret_lines(text):
                self.warnings.append(
                    Finding(
                        kind="secret",
                        message="something that looks like a secret stands here",
                        path=path,
                        line=line,
                        remedy="replace it by a reference such as ${env:NAME}, and revoke it",
                    )
                )


def _limits(spec: AgentSpec) -> ActionLimits:
    names = ActionLimits.__struct_fields__
    return ActionLimits(**{name: getattr(spec.budgets, name) for name in names})


def _bound(rule: MetricRule) -> Any:
    """A rule as people write it: a bare number where it is only that."""
    given = rule.model_dump(exclude_unset=True)
    return given["threshold"] if set(given) == {"threshold"} else given
