"""Who owns a file, by CODEOWNERS. Pure.

GitHub's rules (https://docs.github.com/articles/about-code-owners): the last line that matches decides, one without
owners takes ownership away, ``\\`` keeps a space in a pattern, ``#`` begins a comment, and a line with ``!`` or
``[…]`` in its pattern holds for nothing. GitLab's sections are read too: ``[Docs] @writers`` gives its lines an owner.
"""

from __future__ import annotations

import re
from typing import NamedTuple

PLACES = (".github/CODEOWNERS", "CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")
"""Where code hosts look; the first that is there counts."""

_SECTION = re.compile(r"\^?\[[^\]]+\](?:\[\d+\])?\s*(.*)")
_WORDS = re.compile(r"(?:\\.|\S)+")


class Rule(NamedTuple):
    """The line that decides. ``owners`` is None when it takes ownership away."""

    owners: str | None
    line: int


def rule_for(path: str, codeowners: str) -> Rule | None:
    """The line that decides on ``path`` (POSIX, from the root); None when no line matches."""
    found, default = None, ""
    for number, line in enumerate(codeowners.splitlines(), 1):
        text = re.split(r"(?<!\\)#", line, maxsplit=1)[0].strip()
        if section := _SECTION.fullmatch(text):
            default = section[1].strip()
            continue
        words = _WORDS.findall(text)
        if words and not words[0].startswith("!") and "[" not in words[0] and _matches(words[0], path):
            found = Rule(" ".join(words[1:]) or default or None, number)
    return found


def owner_of(path: str, codeowners: str) -> str | None:
    """The owners of ``path``, as written; None when nobody owns it."""
    rule = rule_for(path, codeowners)
    return None if rule is None else rule.owners


def _matches(pattern: str, path: str) -> bool:
    """Git-ignore rules, as far as CODEOWNERS has them: ``*``, ``**``, ``?``, a leading and a trailing slash."""
    anchored = "/" in pattern.rstrip("/")
    body = pattern.strip("/")
    expression, position = "", 0
    while position < len(body):
        if body.startswith("**/", position):
            expression, position = expression + "(?:.*/)?", position + 3
        elif body.startswith("**", position):
            expression, position = expression + ".*", position + 2
        else:
            if body[position] == "\\" and position + 1 < len(body):
                expression, position = expression + re.escape(body[position + 1]), position + 2
                continue
            mark = body[position]
            expression += {"*": "[^/]*", "?": "[^/]"}.get(mark, re.escape(mark))
            position += 1
    start = "" if anchored else "(?:.*/)?"
    end = "/.*" if pattern.endswith("/") else "" if body.endswith("/*") else "(?:/.*)?"
    return re.fullmatch(start + expression + end, path) is not None
