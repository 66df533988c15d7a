"""What goes out of a growing text, piece by piece, is what the whole text would have become."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from lockgate.gateway.guardrails import canaries, personal, rules, secrets
from lockgate.gateway.guardrails.model import Detector
from lockgate.gateway.guardrails.windows import Window, findings, redacted

DETECTORS: list[Detector] = [
    *personal.detectors(tuple(personal.KINDS)),
    *secrets.detectors(),
    canaries.Canaries(["lgc-0011223344", "lgc-00abc"]),
    rules.Topics([rules.BUILT_IN["self_harm"], rules.Rule(name="law", any=("law suit*", "sue", "court of law"))]),
]
SEEDS = [
    "alice@example.com", "bob.o'hara+x@mail.example.co.uk", "4111 1111 1111 1111", "4111-1111-1111-1111 12/27",
    "378282246310005", "DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "my ssn is 123-45-6789", "123 45 6789",
    "+49 30 901820", "call (415) 555-2671", "tel 030 1234567", "AB123456C", "NHS 943 476 5919", "born 12/03/1984",
    "192.168.0.1", "fe80::1:2", "2001:db8:0:0:0:0:0:1", "sk-abcdefghijklmnopqrstuvwx", "AKIAIOSFODNN7EXAMPLE",
    "-----BEGIN RSA PRIVATE KEY-----\nMIIabc\n-----END RSA PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----\nMII",
    "password = 'hunter22'", "api_key: q1w2e3r4t5", "Bearer abcdefghijklmnop1234", "https://u:pw@host/",
    "dGhpc0lzQVNlY3JldEtleTEyMzQ1Njc4OTBhYmNkZWY=", "eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.SflKxwRJSMeKKF2QT4",
    "lgc-0011223344", "lgc-00abc", "I want to die", "law suits", "court of law", "kill myself",
    " ", "-", "@", ".", ",", "\n", "'", "word", "Wort ", "1", "12", "+", "(", "é", "字", "-----", "0", "://",
]  # fmt: skip
texts = st.lists(
    st.one_of(
        st.sampled_from(SEEDS),
        st.sampled_from(SEEDS).flatmap(lambda seed: st.integers(0, len(seed)).map(lambda end: seed[:end])),
        st.sampled_from(SEEDS).flatmap(lambda seed: st.integers(0, len(seed)).map(lambda start: seed[start:])),
    ),
    max_size=8,
).map("".join)


def in_pieces(text: str, sizes: list[int]) -> str:
    window, out, place, turn = Window(DETECTORS), "", 0, 0
    while place < len(text):
        size = sizes[turn % len(sizes)]
        out += window.feed(text[place : place + size])
        place, turn = place + size, turn + 1
    return out + window.finish()


@settings(max_examples=300)
@given(texts, st.lists(st.integers(1, 20), min_size=1, max_size=6))
@example("'law suits", [1])
@example("Bearer abcdefghijklmnop12344111 1111 1111 1111 12/27\n", [1])
def test_pieces_become_what_the_whole_becomes(text: str, sizes: list[int]) -> None:
    assert in_pieces(text, sizes) == redacted(text, DETECTORS)[0]


@settings(max_examples=60)
@given(texts)
def test_nothing_goes_out_early_wherever_the_text_is_cut(text: str) -> None:
    whole = redacted(text, DETECTORS)[0]
    for cut in range(len(text) + 1):
        window = Window(DETECTORS)
        assert whole.startswith(window.feed(text[:cut]))
        assert whole.startswith(Window(DETECTORS).feed(text[:cut]) + window.feed(""))


@settings(max_examples=200)
@given(texts, st.text(max_size=12))
def test_a_detector_keeps_its_word_on_what_is_settled(text: str, more: str) -> None:
    for detector in DETECTORS:
        settled = detector.tail(text)
        before = [found for found in detector.scan(text) if found.start < settled]
        after = [found for found in detector.scan(text + more) if found.start < settled]
        assert before == after, type(detector).__name__


def test_prose_waits_for_no_more_than_its_last_word() -> None:
    window = Window(DETECTORS)
    held = 0
    for piece in (
        "Thank you for",
        " your patience. ",
        "The parcel was sent on",
        " Tuesday and ought to",
        " arrive soon",
    ):
        window.feed(piece)
        held = max(held, window.held)
    assert held <= len("arrive soon")


def test_a_text_without_an_end_is_held_to_a_bound() -> None:
    window = Window(DETECTORS)
    out = sum(len(window.feed("a" * 1000)) for _ in range(100))
    assert window.held < 17_000
    assert out + window.held == 100_000


def test_the_first_finding_wins_and_what_it_overlaps_is_looked_at_from_its_end() -> None:
    text = "4111 1111 1111 1111 and alice@example.com"
    assert [found.kind for found in findings(text, DETECTORS)] == ["card", "email"]


def test_findings_can_be_left_to_stand_and_counted() -> None:
    seen: list[str] = []
    window = Window(DETECTORS, replace=None, note=lambda found: seen.append(found.kind))
    out = window.feed("write to alice@exam") + window.feed("ple.com now") + window.finish()
    assert (out, seen) == ("write to alice@example.com now", ["email"])
