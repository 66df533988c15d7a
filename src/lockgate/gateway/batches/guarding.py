"""A batch's lines through the guardrails: requests on their way to the provider, answers on their way to the client.
Pure but for the clock that measures the checks.

Nobody waits for a batch, so nobody can be asked: no model judges a line, and no answer is asked for once more.
"""

from __future__ import annotations

import json
from typing import Any

import msgspec

from lockgate.errors import InputError, LockgateError, Refused, UpstreamError
from lockgate.gateway.batches.lines import MAX_SCHEMA, Counted, Lines, dialect_of
from lockgate.gateway.guardrails import schemas
from lockgate.gateway.guardrails.answers import checked_answer, decoded
from lockgate.gateway.guardrails.policy import Policy
from lockgate.gateway.guardrails.requests import checked_request, with_canary
from lockgate.gateway.guardrails.stages import Chain, check_fit, outcomes_of, within_value
from lockgate.gateway.guardrails.streams import STREAMS
from lockgate.gateway.protocols.model import Request


class Terms(msgspec.Struct, frozen=True, kw_only=True):
    """What the checks of a batch's answers go by, kept from when it was made."""

    behaviour_digest: str = ""  # of the version that made it
    schema: dict[str, Any] | None = None  # that each line asks its answer to fit; see Counted
    one_schema: bool = True
    canary: str = ""  # that was planted in the lines


def check_batch(policy: Policy, counted: Counted) -> None:
    """Raises where a batch of these lines could not be checked, or was not checked, as this policy wants it."""
    check_able(policy)
    if policy and dialect_of(counted.endpoint) is None:
        raise _unread(counted.endpoint)
    if policy.lines and counted.guarded != policy.lines:
        raise InputError(
            "the file's lines were checked by other guardrails than those that hold for this batch",
            remedy="upload the file again, under the key or the run that makes the batch",
        )
    if policy.schemas and not counted.one_schema:
        raise _many_schemas()


def check_able(policy: Policy) -> None:
    """:class:`Refused` for checks that batches cannot have."""
    if policy.asks_model:
        raise Refused(
            "the guardrail 'injection' asks a model about each request, which is not done for a batch's lines",
            remedy="make the calls one by one, or use a key of a tenant whose guardrail names no `model`",
        )


class RequestLines:
    """The requests of one input file."""

    def __init__(self, policy: Policy) -> None:
        self.outcomes = outcomes_of(policy.input, "input")
        self.requests = 0
        self._policy = policy

    def begin(self) -> Counted:
        """What is counted of no line. Raises Refused where a batch's lines cannot have these checks."""
        check_able(self._policy)
        return Counted(guarded=self._policy.lines, canary=self._policy.planted or "")

    def checked(self, request: Request, schema: dict[str, Any] | None, counted: Counted) -> Request:
        """The request as it may go on. ``schema``: what it asks its answer to fit; ``counted``: the lines before it.
        Raises Blocked."""
        policy = self._policy
        self.requests += 1
        if policy.schemas and counted.requests and schema != counted.schema:
            raise _many_schemas()
        if policy.input:
            request = checked_request(request, request.texts(), policy, self.outcomes)
        return request if policy.planted is None else with_canary(request, policy.planted)

    def refuse(self, url: str) -> None:
        """For a line of a protocol that nobody reads here."""
        raise _unread(url)


class AnswerLines:
    """The answers of one output file, and the errors of one that tells those: of protocols in which no model says
    anything (embeddings), there is nothing else to check. A line that a check stops becomes an error, as OpenAI's
    batches write them."""

    def __init__(self, policy: Policy, dialect: str, schema: dict[str, Any] | None) -> None:
        self.outcomes = outcomes_of(policy.output, "output")
        self.requests = 0
        self._policy = policy
        self._dialect = dialect
        self._asked = schemas.asked_of(schema) if policy.schemas and schema is not None else None
        self._lines = Lines()

    def feed(self, data: bytes) -> bytes:
        """Takes what came; gives what may go out."""
        return b"".join([self._line(line) + b"\n" for line in self._lines.feed(data)])

    def finish(self) -> bytes:
        """What is left to go out."""
        return b"".join([self._line(line) for line in self._lines.finish()])

    def _line(self, line: bytes) -> bytes:
        if not line.strip():
            return line
        self.requests += 1
        told: dict[str, Any] = {}
        try:
            told = _object(decoded(line))
            checked = self._checked(told)
        except LockgateError as stopped:
            return error_line(stopped, told)
        except RecursionError:
            return error_line(_misshapen("it is nested too deep"), told)
        if checked == told:
            return line
        # Written with escapes: UTF-8 has no way to write half of a surrogate pair.
        return json.dumps(checked, separators=(",", ":")).encode()

    def _checked(self, told: dict[str, Any]) -> dict[str, Any]:
        """The line with what the model or the provider says in it checked: the names in it are the client's own."""
        error, response = told.get("error"), told.get("response")
        checked = told if error is None else {**told, "error": self._error(error)}
        if response is None and error is not None:
            return checked
        response = _object(response)
        body, status = response.get("body"), response.get("status_code")
        failed = isinstance(status, int) and status != 200
        said = self._error(body) if failed else self._answer(_object(body))
        return {**checked, "response": {**response, "body": said}}

    def _error(self, said: Any) -> Any:
        """A provider's words about what went wrong, of any shape: they may repeat what the request says."""
        return within_value(said, self._whole)

    def _whole(self, text: str) -> str:
        return Chain(self._policy.output, self.outcomes).whole(text)

    def _answer(self, body: dict[str, Any]) -> dict[str, Any]:
        policy, outcomes = self._policy, self.outcomes
        if body.get("error") is not None:  # of a response that failed on its way
            body = {**body, "error": self._error(body["error"])}
        if policy.reads_answers and self._dialect in STREAMS:
            body = checked_answer(self._dialect, body, self._whole)
        if self._asked is not None:
            for said in schemas.said_texts(self._dialect, json.dumps(body).encode()):
                check_fit(self._asked, said, policy, outcomes)
        return body


def answer_lines(policy: Policy, endpoint: str, terms: Terms) -> AnswerLines | None:
    """The checks of a batch's output; None when there are none. Raises Refused where they cannot be had."""
    if not policy.output:
        return None
    dialect = dialect_of(endpoint)
    if dialect is None:
        raise _unread(endpoint)
    if policy.schemas and not terms.one_schema:
        raise _many_schemas()
    return AnswerLines(policy.with_planted(terms.canary), dialect.name, terms.schema)


def error_line(error: LockgateError, told: dict[str, Any]) -> bytes:
    """What stands in place of a line that may not go out."""
    shown = {
        "id": told.get("id"),
        "custom_id": told.get("custom_id"),
        "response": None,
        "error": {"code": error.code, "message": error.message},
    }
    return json.dumps(shown, separators=(",", ":")).encode()


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _misshapen("it has not the shape of a batch's")
    return value


def _misshapen(how: str) -> UpstreamError:
    return UpstreamError(f"the provider's answer cannot be checked: {how}", sent=True)


def _unread(url: str) -> Refused:
    return Refused(
        f"guardrails apply to this caller, and they cannot read a batch for {url!r}",
        remedy="ask /v1/chat/completions or /v1/responses, or use a key of a tenant without guardrails",
    )


def _many_schemas() -> Refused:
    return Refused(
        "the guardrail 'schema' checks a batch's answers by what its requests ask for, and these do not all ask for "
        f"the same schema of at most {MAX_SCHEMA} bytes",
        remedy="send a batch for each schema",
    )
