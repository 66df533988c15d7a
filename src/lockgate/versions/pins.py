"""Which model names may change under our feet. Pure."""

from __future__ import annotations

import re

from lockgate.versions.model import ModelRef

_DATED = re.compile(r"(?:^|[-@_.])(?:20\d{2}-?\d{2}-?\d{2}|\d{2}-?\d{2}(?=$|-)|0\d{2}(?=$|-))")
_HOSTED = re.compile(
    r"^(?:gpt-|chatgpt|o\d|claude|gemini|text-embedding|command|mistral-|codestral|grok)", re.IGNORECASE
)

_OLLAMA = re.compile(r"https?://[^/]+:11434(?:/|$)")


def floating(kind: str, base_url: str, model: ModelRef) -> str | None:
    """Why this name is not pinned, or None.

    A revision pins any name, and ``local`` weights are known by their hash. A hosted model is pinned by a date in
    its name; a tag (``name:tag``, which Ollama reads into a bare name too) and ``latest`` can be moved.
    """
    if model.revision is not None or kind == "local":
        return None
    if "@sha256:" in model.name:
        return None
    if re.search(r"(?:^|[-:])latest$", model.name):
        return "'latest' means another model tomorrow"
    hosted = kind == "anthropic" or _HOSTED.match(model.name) is not None
    if hosted:
        return None if _DATED.search(model.name) else "a name without a date is moved by its provider"
    if ":" in model.name or _OLLAMA.match(base_url):
        return "a tag can be moved by whoever publishes it"
    return None
