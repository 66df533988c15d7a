"""Who owns a file, by CODEOWNERS. Pure."""

from __future__ import annotations

import re

PLACES = ("CODEOWNERS", ".github/CODEOWNERS", "docs/CODEOWNERS", ".gitlab/CODEOWNERS")


def owner_of(path: str, codeowners: str) -> str | None:
    """The owners of ``path`` (POSIX, from the root): of the last matching line, as written; None when unowned."""
    found: str | None = None
    for line in codeowners.splitlines():
        words = line.split("#", 1)[0].split() if not line.lstrip().startswith("[") else []
        if words and _matches(words[0], path):
            found = " ".join(words[1:]) or None
    return found


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
            mark = body[position]
            expression += {"*": "[^/]*", "?": "[^/]"}.get(mark, re.escape(mark))
            position += 1
    start = "" if anchored else "(?:.*/)?"
    end = "/.*" if pattern.endswith("/") else "" if body.endswith("/*") else "(?:/.*)?"
    return re.fullmatch(start + expression + end, path) is not None
