"""Checks of providers: is the key there, does anybody answer, and what time do they say it is."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from lockgate.errors import LockgateError
from lockgate.project.model import ResolvedProvider
from lockgate.project.secrets import resolve_secret
from lockgate.project.service import PROJECT_FILE, resolve_provider
from lockgate.versions.deprecations import models_of
from lockgate.versions.doctor.model import Examined, Note

SECONDS = 2.0
"""A provider has so long to say anything."""
CLOCK_SLACK = 30.0


def secrets_missing(examined: Examined) -> Iterator[Note]:
    """References that lead to nothing on this machine. Another machine may have them, so it is only advice."""
    for name, where, provider in _used(examined):
        try:
            resolve_secret(provider.api_key, examined.project.root)
        except LockgateError as wrong:
            message = f"provider {name!r}{where}: {wrong.message}"
            yield Note("provider", "advice", message, wrong.remedy or "set it", PROJECT_FILE, _line(examined, name))


def unreachable(examined: Examined) -> Iterator[Note]:
    """Providers that agents use and that do not answer from here; also a clock that differs from theirs."""
    if not examined.online:
        return
    asked: dict[str, tuple[str, str]] = {}
    for name, where, provider in _used(examined):
        if provider.kind != "local":
            asked.setdefault(provider.base_url, (name, where))
    answers: dict[str, str | float | None] = {}
    threads = [threading.Thread(target=lambda u=url: answers.__setitem__(u, _ask(u)), daemon=True) for url in asked]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * SECONDS)
    for url, (name, where) in asked.items():
        answer = answers.get(url, "no answer in time")
        line = _line(examined, name)
        if isinstance(answer, str):
            yield Note("provider", "advice", f"provider {name!r}{where} does not answer at {url}: {answer}",
                       "start it, or correct its base_url", PROJECT_FILE, line)  # fmt: skip
        elif answer is not None and abs(answer - examined.now) > CLOCK_SLACK:
            message = f"the clock is {examined.now - answer:+,.0f} s off what provider {name!r} says"
            yield Note("machine", "problem", message, "set the clock: leases, tokens and budgets go by it")


def _used(examined: Examined) -> Iterator[tuple[str, str, ResolvedProvider]]:
    """``(name, " in ENVIRONMENT" where it is overridden there, provider)`` of each provider that an agent names."""
    names = sorted({model.provider for one in examined.packed for model in models_of(one.source.version)})
    for name in sorted({*names, *examined.project.config.providers}):
        seen = set()
        for environment in examined.project.config.environments:
            provider = resolve_provider(examined.project, name, environment)
            overridden = name in examined.project.config.environments[environment].providers
            key = (provider.base_url, provider.api_key)
            if key not in seen:
                seen.add(key)
                yield name, f" in {environment}" if overridden else "", provider


def _ask(url: str) -> str | float | None:
    """The server's time (None: it says none), or why it gives no answer. Any status counts as one."""
    parts = urlsplit(url)
    if not parts.hostname:
        return "it has no host"
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=SECONDS)
    try:
        connection.request("GET", f"{parts.path.rstrip('/')}/models", headers={"accept": "application/json"})
        date = connection.getresponse().getheader("date")
        return parsedate_to_datetime(date).timestamp() if date else None
    except (OSError, http.client.HTTPException, ValueError) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


def _line(examined: Examined, name: str) -> int | None:
    text = (examined.project.root / PROJECT_FILE).read_text("utf-8", "replace").splitlines()
    return next((number for number, line in enumerate(text, 1) if line.strip().startswith(f"{name}:")), None)
