"""Which names may change under our feet, and who allowed it. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date

from lockgate.project.model import FloatingAllowance
from lockgate.versions.model import ModelRef

_DATED = re.compile(r"(?:^|[-@_.])(?:20\d{2}-?\d{2}-?\d{2}|\d{2}-?\d{2}(?=$|-)|0\d{2}(?=$|-))")
_HOSTED = re.compile(
    r"^(?:gpt-|chatgpt|o\d|claude|gemini|text-embedding|command|mistral-|codestral|grok)", re.IGNORECASE
)
# From its 4.6 generation on, Anthropic's names without a date are the snapshots themselves.
_SNAPSHOT = re.compile(r"^claude-(?:opus|sonnet|haiku|fable|mythos)-(?:4-(?:[6-9]|\d\d)|[5-9]|[1-9]\d)(?:-\d{1,2})?$")

_OLLAMA = re.compile(r"https?://[^/]+:11434(?:/|$)")
_DIGEST = re.compile(r"@sha256:[0-9a-f]{64}$")


def floating(kind: str, base_url: str, model: ModelRef) -> str | None:
    """Why this name is not pinned, or None.

    A revision pins any name, and ``local`` weights are known by their hash. A hosted model is pinned by a date in
    its name; a tag (``name:tag``, which Ollama reads into a bare name too) and ``latest`` can be moved.
    """
    if model.revision is not None or kind == "local":
        return None
    if "@sha256:" in model.name:
        return None
    name = model.name.rsplit("/", 1)[-1]
    if re.search(r"(?:^|[-:])latest$", name):
        return "'latest' means another model tomorrow"
    hosted = kind == "anthropic" or _HOSTED.match(name) is not None
    if hosted:
        if _DATED.search(name) or _SNAPSHOT.match(name):
            return None
        return "a name without a date is moved by its provider"
    if ":" in name or _OLLAMA.match(base_url):
        return "a tag can be moved by whoever publishes it"
    return None


def floating_image(image: str) -> str | None:
    """Why this container image is not pinned, or None. Only ``…@sha256:<64 hex>`` is."""
    return None if _DIGEST.search(image) else "a tag can be moved by whoever may push to the registry"


def allowed(allowances: Iterable[FloatingAllowance], model: ModelRef, today: date) -> FloatingAllowance | None:
    """The environment's own exception for this name, when one holds today."""
    for one in allowances:
        if one.model in ("*", f"{model.provider}/{model.name}") and (
            one.until is None or today <= date.fromisoformat(one.until)
        ):
            return one
    return None
