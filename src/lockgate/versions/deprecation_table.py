"""Announced retirements of hosted models.

Collected from public copies and reports of the publishers' pages, last gone through on the day in ``COLLECTED``, and
not checked against the live pages: a date may have been moved since. The publisher's page (``SOURCES``) decides.
A project's ``deprecations.yaml`` goes over this table (``deprecations.py``). Dates that a publisher gives only as "not
sooner than" are no announcement, and are not here. Other platforms that serve the same models (clouds, routers) have
calendars of their own.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from typing import NamedTuple

COLLECTED = date(2026, 11, 21)
"""When the table was last gone through."""

SOURCES = {
    "openai": "https://developers.openai.com/api/docs/deprecations",
    "anthropic": "https://platform.claude.com/docs/en/about-claude/model-deprecations",
    "google": "https://ai.google.dev/gemini-api/docs/deprecations",
}
"""Where each publisher keeps its own, which decides."""

TABLE = """
# announced  retires    replacement               snapshots, with the undated names that mean them
# openai
2024-06-06 2024-12-06 gpt-4o                     gpt-4-vision-preview gpt-4-1106-vision-preview
2024-06-06 2025-06-06 gpt-4o                     gpt-4-32k gpt-4-32k-0613 gpt-4-32k-0314
2025-04-14 2025-07-14 gpt-4.1                    gpt-4.5-preview
2025-04-28 2025-07-28 o3                         o1-preview
2025-04-28 2025-10-27 o4-mini                    o1-mini
2025-11-17 2026-02-12 gpt-5-codex-mini           codex-mini-latest
2025-11-18 2026-02-17 gpt-5.1-chat-latest        chatgpt-4o-latest
2025-09-26 2026-03-26 gpt-5                      gpt-4-0314 gpt-4-0125-preview gpt-4-turbo-preview
2025-09-15 2026-05-07 gpt-audio-1.5              gpt-4o-audio-preview gpt-4o-mini-audio-preview
2026-04-22 2026-07-23 gpt-5.6-sol                gpt-5-chat-latest gpt-5-codex gpt-5.1-chat-latest gpt-5.1-codex
                                                 gpt-5.1-codex-max gpt-5.2-codex o3-deep-research
                                                 o3-deep-research-2025-06-26 o4-mini-deep-research
                                                 o4-mini-deep-research-2025-06-26
2026-04-22 2026-07-23 gpt-5.6-terra              gpt-5.1-codex-mini computer-use-preview
                                                 computer-use-preview-2025-03-11 gpt-4o-search-preview-2025-03-11
                                                 gpt-4o-mini-search-preview-2025-03-11
2026-05-08 2026-08-10 gpt-5.6-sol                gpt-5.2-chat-latest gpt-5.3-chat-latest
2025-09-26 2026-09-28 gpt-5.6-terra              gpt-3.5-turbo-instruct babbage-002 davinci-002 gpt-3.5-turbo-1106
2026-09-11 2026-10-01 -                          gpt-5.4-cyber
2026-04-22 2026-10-23 gpt-5.6-sol                gpt-4 gpt-4-0613 gpt-4-1106-preview gpt-4-turbo
                                                 gpt-4-turbo-2024-04-09 gpt-4o-2024-05-13 o1 o1-2024-12-17 o1-pro
                                                 o1-pro-2025-03-19 o3-mini o3-mini-2025-01-31
2026-04-22 2026-10-23 gpt-5.6-terra              gpt-3.5-turbo gpt-3.5-turbo-0125 o4-mini o4-mini-2025-04-16
2026-04-22 2026-10-23 gpt-5.6-luna               gpt-4.1-nano gpt-4.1-nano-2025-04-14
2026-06-11 2026-12-11 gpt-5.6-sol                gpt-5 gpt-5-2025-08-07 gpt-5-pro gpt-5-pro-2025-10-06 o3
                                                 o3-2025-04-16 o3-pro o3-pro-2025-06-10
2026-06-11 2026-12-11 gpt-5.6-terra              gpt-5-mini gpt-5-mini-2025-08-07
2026-06-11 2026-12-11 gpt-5.6-luna               gpt-5-nano gpt-5-nano-2025-08-07
2026-10-14 2027-01-14 gpt-6-luna                 gpt-4o gpt-4o-2024-08-06 gpt-4o-2024-11-20 gpt-4o-mini
                                                 gpt-4o-mini-2024-07-18 gpt-4.1 gpt-4.1-2025-04-14 gpt-4.1-mini
                                                 gpt-4.1-mini-2025-04-14
2026-07-20 2027-01-20 gpt-audio-1.5              gpt-audio gpt-audio-mini gpt-4o-audio gpt-4o-mini-audio
?          2027-04-01 -                          gpt-5.1 gpt-5.1-2025-11-13
# anthropic
2024-09-04 2024-11-06 -                          claude-1.0 claude-1.1 claude-1.2 claude-1.3 claude-instant-1.0
                                                 claude-instant-1.1 claude-instant-1.2
2025-01-21 2025-07-21 -                          claude-2.0 claude-2.1 claude-3-sonnet-20240229
2025-08-13 2025-10-28 claude-sonnet-4-5-20250929 claude-3-5-sonnet-20240620 claude-3-5-sonnet-20241022
                                                 claude-3-5-sonnet-latest
2025-06-30 2026-01-05 claude-opus-4-5-20251101   claude-3-opus-20240229 claude-3-opus-latest
2025-10-28 2026-02-19 claude-sonnet-4-6          claude-3-7-sonnet-20250219 claude-3-7-sonnet-latest
2025-12-19 2026-02-19 claude-haiku-4-5-20251001  claude-3-5-haiku-20241022 claude-3-5-haiku-latest
2026-02-19 2026-04-20 claude-haiku-4-5-20251001  claude-3-haiku-20240307
2026-04-14 2026-06-15 claude-sonnet-4-6          claude-sonnet-4-20250514 claude-sonnet-4-0
2026-04-14 2026-06-15 claude-opus-4-8            claude-opus-4-20250514 claude-opus-4-0
2026-06-05 2026-08-05 claude-opus-4-8            claude-opus-4-1-20250805 claude-opus-4-1
2026-09-30 2026-11-30 claude-sonnet-5-5          claude-sonnet-4-5-20250929 claude-sonnet-4-5
# google
?          2025-12-02 gemini-3.1-pro-preview     gemini-2.5-pro-preview-03-25 gemini-2.5-pro-preview-05-06
                                                 gemini-2.5-pro-preview-06-05
?          2026-03-09 gemini-3.1-pro-preview     gemini-3-pro-preview
?          2026-05-25 gemini-3.1-flash-lite      gemini-3.1-flash-lite-preview
?          2026-06-01 gemini-3.5-flash           gemini-2.0-flash gemini-2.0-flash-001
?          2026-06-01 gemini-3.1-flash-lite      gemini-2.0-flash-lite gemini-2.0-flash-lite-001
?          2026-12-01 gemini-3.8-flash           gemini-2.5-pro
?          2026-12-01 gemini-3.5-flash-lite      gemini-2.5-flash
?          2027-05-07 -                          gemini-3.1-flash-lite
"""


class Row(NamedTuple):
    """One announcement."""

    publisher: str
    announced: date | None
    retires: date
    replacement: str
    names: tuple[str, ...]


def rows() -> Iterator[Row]:
    """The table, row by row; a line that begins with a space goes on with the names of the one before."""
    publisher, parts = "", list[str]()
    for line in [*TABLE.splitlines(), "#"]:
        if line.startswith(" "):
            parts += line.split()
            continue
        if parts:
            yield _row(publisher, parts)
        parts = [] if line.startswith("#") else line.split()
        if line.removeprefix("# ") in SOURCES:
            publisher = line.removeprefix("# ")


def _row(publisher: str, parts: list[str]) -> Row:
    announced, retires, replacement, *names = parts
    return Row(
        publisher,
        None if announced == "?" else date.fromisoformat(announced),
        date.fromisoformat(retires),
        "" if replacement == "-" else replacement,
        tuple(names),
    )
