"""Takes a JSON object apart at its top level only: what is used is decoded, the rest stays as it was written. Pure.

What is forwarded is the object encoded anew. So a key that stood twice (``model`` once for the policy, once for the
bill) stands there once, with the value that was checked.
"""

from __future__ import annotations

import re
from typing import Any

import msgspec

from lockgate.errors import InputError

MAX_MODEL = 256
"""Characters of a model's name."""
MOST_COUNTED = 2**31 - 1
"""Tokens, or answers, that a request may ask for: what is multiplied with prices has to have an end."""
_OTHER_MODELS = frozenset(("models", "fallbacks", "context_window_fallbacks", "content_policy_fallbacks", "model_list"))
_ELSEWHERE = frozenset(
    ("base_url", "api_base", "api_key", "user_config", "custom_llm_provider", "litellm_params", "extra_body",
     "extra_headers", "headers")
)  # fmt: skip
_TRIES = frozenset(("num_retries", "max_retries"))
_STEERS = _OTHER_MODELS | _ELSEWHERE | _TRIES

Fields = dict[str, msgspec.Raw]

_fields = msgspec.json.Decoder(Fields).decode
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
TRUE = msgspec.Raw(b"true")
FALSE = msgspec.Raw(b"false")

_strings = msgspec.json.Decoder(str).decode
_flags = msgspec.json.Decoder(bool | None).decode
_counts = msgspec.json.Decoder(int | None).decode
_HIDDEN_LETTER = re.compile(rb"\\u00[4-7]")
_COMPRESSED = (b"\x1f\x8b", b"\x28\xb5\x2f\xfd")  # gzip, zstandard
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding raises for bytes that are no JSON, no UTF-8, or nested too deep."""


def take_apart(body: bytes, what: str) -> Fields:
    """The fields of the object; :class:`InputError` when it is none. ``what``: what ought to have been sent."""
    try:
        if not body.isascii():
            str(body, "utf-8")  # what is kept raw is not looked at otherwise
        return _fields(body)
    except UNREADABLE as wrong:
        if body.startswith(_COMPRESSED):
            raise InputError("the body is compressed", remedy="send it as it is, without Content-Encoding") from wrong
        raise InputError(f"the body is no JSON object: {wrong}", remedy=f"send {what}") from wrong


def field(fields: Fields, name: str, kind: Any, default: Any = None) -> Any:
    """One field as ``kind``; ``...`` as the default says that it has to be there."""
    raw = fields.get(name)
    if raw is None:
        if default is ...:
            raise InputError(f"{name!r} is missing", remedy="name it in the request")
        return default
    try:
        return msgspec.json.decode(raw, type=kind)
    except UNREADABLE as wrong:
        raise _wrong(name, raw, wrong) from wrong


def anything(fields: Fields, name: str) -> Any:
    """One field as Python values; None when it is not there."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        return _decode(raw)
    except UNREADABLE as wrong:
        raise _wrong(name, raw, wrong) from wrong


def is_given(fields: Fields, name: str) -> bool:
    """Whether the field is there, and not null."""
    raw = fields.get(name)
    return raw is not None and bytes(raw) != b"null"


def flag(fields: Fields, name: str) -> bool:
    raw = fields.get(name)
    if raw is None:
        return False
    try:
        return bool(_flags(raw))
    except UNREADABLE as wrong:
        raise _wrong(name, raw, wrong) from wrong


def count(fields: Fields, name: str) -> int | None:
    """A whole number from 1 to :data:`MOST_COUNTED`, or None."""
    raw = fields.get(name)
    if raw is None:
        return None
    try:
        value: int | None = _counts(raw)
    except UNREADABLE as wrong:
        raise _wrong(name, raw, wrong) from wrong
    if value is not None and value < 1:
        raise InputError(f"{name!r} is {value!r}", remedy="it is at least 1")
    if value is not None and value > MOST_COUNTED:
        raise InputError(f"{name!r} is {value!r}", remedy=f"it is at most {MOST_COUNTED}")
    return value


def model_name(fields: Fields) -> str:
    """The model asked for. :class:`InputError` also for what gateways as upstreams (LiteLLM, OpenRouter) take in a body
    to go elsewhere: to other models, to an address of the caller's with a key of ours, with headers of the caller's, or
    more often than is held for."""
    if not _STEERS.isdisjoint(fields):
        _check_steering(fields)
    raw = fields.get("model")
    if raw is None:
        raise InputError("'model' is missing", remedy="name it in the request")
    try:
        name = _strings(raw)
    except UNREADABLE as wrong:
        raise _wrong("model", raw, wrong) from wrong
    if len(name) > MAX_MODEL:
        raise InputError(f"'model' has {len(name)} characters", remedy=f"use at most {MAX_MODEL}")
    return name


def _check_steering(fields: Fields) -> None:
    for name in sorted(_STEERS.intersection(fields)):
        if not is_given(fields, name):
            continue
        if name in _OTHER_MODELS:
            raise InputError(
                f"{name!r} names models that this request was not checked for",
                remedy="name one in 'model', and others in the header x-lockgate-fallbacks",
            )
        if name in _TRIES:
            raise InputError(
                f"{name!r} would have a gateway behind this one ask again, past every budget",
                remedy="`retries` of a provider in lockgate.yaml says how often",
            )
        raise InputError(
            f"{name!r} would send the request elsewhere, or as somebody else", remedy=f"leave {name!r} out"
        )


def raw(value: Any) -> msgspec.Raw:
    return msgspec.Raw(encode(value))


def plain(raw: msgspec.Raw) -> bytes:
    """The bytes of a field, letters written as escapes turned into letters: for looking for words in it."""
    data = bytes(raw)
    if b"\\u00" in data and _HIDDEN_LETTER.search(data):
        try:
            return encode(_decode(data))
        except (*UNREADABLE, UnicodeEncodeError):
            return data
    return data


def dicts(value: Any) -> list[dict[str, Any]]:
    """The objects in a list; none where it is no list."""
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def obj(value: Any) -> dict[str, Any]:
    """The value if it is an object, else an empty one."""
    return value if isinstance(value, dict) else {}


def mentions(raw: msgspec.Raw | None, words: tuple[bytes, ...]) -> int:
    """How often any of the words stands in the field."""
    if raw is None:
        return 0
    data, found = plain(raw), 0
    for word in words:
        found += data.count(word)
    return found


def _wrong(name: str, raw: msgspec.Raw, wrong: Exception) -> InputError:
    shown = bytes(raw)[:80].decode("utf-8", "replace")
    return InputError(f"{name!r} is {shown!r}: {wrong}")
