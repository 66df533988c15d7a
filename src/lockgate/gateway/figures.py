"""What a call used, asked of its provider afterwards: for streams that were cut before they told.

Not every provider can be asked. OpenAI's responses, and chat completions sent with ``store: true``, can be read again
by their id, and so can OpenRouter's generations.
"""

from __future__ import annotations

import logging
import urllib.error
import urllib.request
from typing import Any

import msgspec

from lockgate.errors import LockgateError
from lockgate.limits.accounting import Accounting
from lockgate.limits.charges import Charge, Used
from lockgate.limits.prices import Prices
from lockgate.money import to_nano
from lockgate.project.model import Project, ResolvedProvider
from lockgate.project.secrets import header_value, resolve_secret
from lockgate.project.service import resolve_provider
from lockgate.results import Usage

log = logging.getLogger(__name__)

SECONDS = 5.0
_PATHS = {"resp_": "/responses/{}", "chatcmpl-": "/chat/completions/{}", "gen-": "/generation?id={}"}


class Figures:
    """``figures(charge)`` is what the call used, or None when nobody can tell (yet)."""

    def __init__(self, project: Project, accounting: Accounting, prices: Prices) -> None:
        self._project = project
        self._accounting = accounting
        self._prices = prices

    def __call__(self, charge: Charge) -> Used | None:
        call = self._accounting.call(charge.id, charge.at) if len(charge.id) == 16 else None
        if call is None or call.response_id is None or call.model is None:
            return None
        path = next((path for start, path in _PATHS.items() if call.response_id.startswith(start)), None)
        name, _, model = call.model.partition("/")
        if path is None or not call.response_id.replace("-", "").replace("_", "").isalnum():
            return None
        try:
            provider = resolve_provider(self._project, name, call.environment, call.agent)
            answer = _get(provider.base_url + path.format(call.response_id), self._headers(provider))
            return self._used(answer, provider.kind, name, model)
        except (LockgateError, OSError, ValueError) as failure:
            log.debug("what call %s used cannot be had: %s", charge.id, failure)
            return None

    def _headers(self, provider: ResolvedProvider) -> dict[str, str]:
        root = self._project.root
        headers = {"accept": "application/json"}
        headers |= {name: header_value(value, root) for name, value in provider.headers}
        secret = resolve_secret(provider.api_key, root)
        if secret is not None:
            headers |= {"api-key": secret} if provider.kind == "azure" else {"authorization": f"Bearer {secret}"}
        return headers

    def _used(self, answer: dict[str, Any], kind: str, provider: str, model: str) -> Used | None:
        data = answer.get("data")
        if isinstance(data, dict) and isinstance(data.get("total_cost"), int | float):  # OpenRouter
            tokens = sum(int(data.get(name) or 0) for name in ("tokens_prompt", "tokens_completion"))
            return Used(to_nano(data["total_cost"]), tokens)
        usage = answer.get("usage")
        if not isinstance(usage, dict):
            return None
        given = [usage.get(name) for name in ("input_tokens", "output_tokens")]
        if given == [None, None]:
            given = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
        tokens_in, tokens_out = (one if isinstance(one, int) and one >= 0 else 0 for one in given)
        if tokens_in + tokens_out == 0:
            return None
        details = usage.get("input_tokens_details") or usage.get("prompt_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, dict) else 0
        cached = min(cached, tokens_in) if isinstance(cached, int) and cached > 0 else 0
        used = Usage(input_tokens=tokens_in, output_tokens=tokens_out, cached_tokens=cached)
        return Used(self._prices.cost(kind, provider, model, used), used.total_tokens)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The provider's key goes to the provider's own address."""

    def redirect_request(self, *_: Any) -> None:
        return None


_opener = urllib.request.build_opener(_NoRedirect)


def _get(url: str, headers: dict[str, str]) -> dict[str, Any]:
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 (a provider of the project)
    with _opener.open(request, timeout=SECONDS) as answer:
        value = msgspec.json.decode(answer.read(1 << 22))
    if not isinstance(value, dict):
        raise ValueError("the answer is no JSON object")
    return value
