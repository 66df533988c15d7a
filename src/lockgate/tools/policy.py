"""Whether an agent may call a tool: Cedar policies (https://docs.cedarpolicy.com), in process. Pure.

A call is asked as ``principal == Agent::"<agent>"``, ``action == Action::"call"``, ``resource == Tool::"<tool>"``;
``resource.effect`` and ``resource.scopes`` come from the tool's contract, ``context`` has ``arguments``, ``facts``
(the model's schema-valid output, inside a handler) and ``environment``. ``docs/policy.md`` has examples.

Cedar skips a policy that fails to evaluate, so a ``forbid`` that reads an absent attribute would let the call
pass. Here any evaluation error refuses the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from lockgate.errors import InputError
from lockgate.tools.model import Ruling
from lockgate.versions.model import ToolContract

if TYPE_CHECKING:
    import cedarpy

_CEDAR_ESCAPES = frozenset({"__entity", "__extn", "__expr"})
_DECIMAL_LIMIT = Decimal("922337203685477.5807")
_INTEGER_LIMIT = 2**63


class _Unsayable(Exception):
    """A value that Cedar cannot take."""


class Policy:
    """The policies of one agent version, parsed once. ``policies`` maps a file's path to its Cedar text.

    Without any policy file, a call is allowed; its contract may still ask for an approval.
    Raises :class:`InputError` for text that is not Cedar.
    """

    def __init__(self, policies: Mapping[str, str]) -> None:
        self._set: cedarpy.PolicySet | None = None
        self._annotations: dict[str, dict[str, str]] = {}
        if not policies:
            return
        import cedarpy  # most agents have no policies

        for path, text in sorted(policies.items()):
            try:
                cedarpy.PolicySet.from_str(text)
            except ValueError as problem:
                raise InputError(f"not a Cedar policy: {problem}", path=path, remedy="see docs/policy.md") from None
        joined = "\n".join(text for _, text in sorted(policies.items()))
        self._set = cedarpy.PolicySet.from_str(joined)
        parsed = msgspec.json.decode(cedarpy.policies_to_json_str(joined))
        self._annotations = {
            name: policy.get("annotations") or {} for name, policy in parsed.get("staticPolicies", {}).items()
        }

    def rule(
        self,
        agent: str,
        contract: ToolContract,
        arguments: dict[str, Any],
        *,
        environment: str,
        facts: Any = None,
        facts_schema: dict[str, Any] | None = None,
    ) -> Ruling:
        """Allow, deny, or ask for an approval. Never raises: what cannot be decided is denied."""
        if self._set is None:
            return _unless_approval(contract, Ruling(effect="allow"))
        import cedarpy

        try:
            context = {
                "arguments": cedar_value(arguments, contract.input),
                "facts": cedar_value(facts if isinstance(facts, dict) else {}, facts_schema),
                "environment": environment,
            }
        except _Unsayable as problem:
            return Ruling(effect="deny", reason=f"policy cannot judge the call: {problem}")
        tool = {"type": "Tool", "id": contract.name}
        request = {
            "principal": {"type": "Agent", "id": agent},
            "action": {"type": "Action", "id": "call"},
            "resource": tool,
            "context": context,
        }
        entities = [{"uid": tool, "attrs": {"effect": contract.effect, "scopes": list(contract.scopes)}, "parents": []}]
        answer = cedarpy.is_authorized(request, self._set, entities)
        deciding = tuple(answer.diagnostics.reasons)
        if answer.diagnostics.errors or answer.decision is cedarpy.Decision.NoDecision:
            problem_text = "; ".join(answer.diagnostics.errors) or "no decision"
            return Ruling(
                effect="deny", reason=f"policy failed to evaluate: {problem_text}", policies=self._names(deciding)
            )
        if answer.decision is cedarpy.Decision.Deny:
            return Ruling(effect="deny", reason=self._why_denied(contract, deciding), policies=self._names(deciding))
        asks = [self._annotations.get(name, {}) for name in deciding]
        asking = next((notes for notes in asks if notes.get("approval") == "required"), None)
        if asking is not None:
            return Ruling(effect="approval", reason=asking.get("reason", ""), policies=self._names(deciding))
        return _unless_approval(contract, Ruling(effect="allow", policies=self._names(deciding)))

    def _names(self, policies: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self._annotations.get(name, {}).get("id") or name for name in policies)

    def _why_denied(self, contract: ToolContract, deciding: tuple[str, ...]) -> str:
        if not deciding:
            return f"no policy permits {contract.name!r}"
        reasons = (self._annotations.get(name, {}).get("reason") for name in deciding)
        said = "; ".join(reason for reason in reasons if reason)
        return said or f"forbidden by policy {', '.join(self._names(deciding))}"


def cedar_value(value: Any, schema: dict[str, Any] | None = None) -> Any:
    """A JSON value as Cedar takes it. Nulls are left out (``has`` tells); a float is a decimal of four places, and
    so is a whole number where the schema says ``number``, so that one comparison fits all values of a field.

    Raises an error for what Cedar has no value for, and for objects that would be read as Cedar's own escapes.
    """
    schema = schema if isinstance(schema, dict) else {}
    match value:
        case bool() | str():
            return value
        case int() if schema.get("type") != "number":
            if not -_INTEGER_LIMIT <= value < _INTEGER_LIMIT:
                raise _Unsayable(f"{value!r} has more than 64 bits")
            return value
        case int() | float():
            return {"__extn": {"fn": "decimal", "arg": _decimal(value)}}
        case list():
            items = schema.get("items")
            return [cedar_value(item, items) for item in value if item is not None]
        case dict():
            if escapes := _CEDAR_ESCAPES & value.keys():
                raise _Unsayable(f"{min(escapes)!r} is not allowed as a name in arguments")
            known = schema.get("properties") or {}
            return {name: cedar_value(item, known.get(name)) for name, item in value.items() if item is not None}
        case _:
            raise _Unsayable(f"{value!r} is not a JSON value")


def _decimal(number: float) -> str:
    exact = Decimal(str(number))
    if not exact.is_finite() or abs(exact) > _DECIMAL_LIMIT:
        raise _Unsayable(f"{number!r} is too large for a decimal")
    return f"{exact.quantize(Decimal('0.0001'), ROUND_HALF_EVEN):f}"


def _unless_approval(contract: ToolContract, ruling: Ruling) -> Ruling:
    if not contract.approval:
        return ruling
    reason = f"{contract.name!r} asks for an approval in its contract"
    return Ruling(effect="approval", reason=reason, policies=ruling.policies)
