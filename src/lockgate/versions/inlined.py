"""Finds what looks like a secret in a file that would go into git and into a bundle. Pure."""

from __future__ import annotations

import re

_SHAPES = re.compile(
    r"\b(?:sk-[A-Za-z0-9_-]{20,}|(?:AKIA|ASIA)[0-9A-Z]{16}|AIza[0-9A-Za-z_-]{35}|gh[opusr]_[A-Za-z0-9]{36,}"
    r"|github_pat_[A-Za-z0-9_]{22,}|glpat-[A-Za-z0-9_-]{20,}|hf_[A-Za-z0-9]{30,}|xox[abeoprs]-[A-Za-z0-9-]{10,}"
    r"|[rs]k_(?:live|test)_[A-Za-z0-9]{16,}|hv[sb]\.[A-Za-z0-9_-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----"
)
_PLACEHOLDER = re.compile(r"x{8,}|\.{3}|0{8,}", re.IGNORECASE)


def secret_lines(text: str) -> list[int]:
    """The 1-based lines on which something shaped like a credential stands. The value itself is never returned."""
    return [
        number
        for number, line in enumerate(text.split("\n"), 1)
        if any(not _PLACEHOLDER.search(match[0]) for match in _SHAPES.finditer(line))
    ]
