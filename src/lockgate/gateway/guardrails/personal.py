"""Personal data that has a form: e-mail addresses, phone numbers, cards, bank accounts, social security numbers. Pure.

What has a checksum is held against it (Luhn for cards: ISO/IEC 7812-1; mod 97 for IBANs: ISO 13616; mod 11 for NHS
numbers), what has rules is held against them (numbers the SSA never gave out). Names and places have no form: they
need a model, see :mod:`lockgate.gateway.guardrails.entities`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from lockgate.gateway.guardrails.model import Detector, Finding

_DIGIT = re.compile(r"[0-9]")
_PHONE_STARTS = re.compile(r"[0-9(+]")
_CAPITAL_OR_DIGIT = re.compile(r"[A-Z0-9]")
_ALNUM = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
_NUMERIC = "0123456789 -.()/+"
_WITHIN = _ALNUM + " -"
_CONTEXT = 40


def _matches(form: re.Pattern[str], starts: re.Pattern[str], text: str, start: int) -> Iterator[re.Match[str]]:
    """As ``form.finditer``, tried only where ``starts`` is: one that begins with a look back is tried everywhere."""
    place = start
    while (at := starts.search(text, place)) is not None:
        found = form.match(text, at.start())
        if found is None:
            place = at.end()
        else:
            yield found
            place = found.end()


def _before(text: str, place: int) -> str:
    return text[max(0, place - _CONTEXT) : place].lower()


class Emails:
    """``local@domain.tld``, as people write them (RFC 5321 lengths, ASCII)."""

    kind = "email"
    longest = 64 + 1 + 8 * 64 + 24 + 1
    _alphabet = _ALNUM + "._%+-'@"
    _local = frozenset(_ALNUM + "._%+-'")
    _domain = re.compile(r"@((?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24})(?![A-Za-z0-9-])")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        at = text.find("@", start)
        floor = start
        while at >= 0:
            match = self._domain.match(text, at)
            if match is not None:
                first = at
                least = max(floor, at - 64)
                while first > least and text[first - 1] in self._local:
                    first -= 1
                while first < at and text[first] in ".'%":  # a quote or a full stop before it
                    first += 1
                if first < at:
                    floor = match.end()
                    yield Finding(first, floor, self.kind)
                    at = text.find("@", floor)
                    continue
            at = text.find("@", at + 1)

    def tail(self, text: str, start: int = 0) -> int:
        return _run(text, start, self._alphabet, self.longest)


class Cards:
    """Payment card numbers of 13 to 19 digits, in groups or not: prefix and length of a network, and a Luhn sum."""

    kind = "card"
    _groups = re.compile(r"[0-9]+")
    _longest = 40

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        groups = [match.span() for match in self._groups.finditer(text, start)]
        if groups and start and groups[0][0] == start and "0" <= text[start - 1] <= "9":
            del groups[0]  # the end of a group that began before
        skip = -1
        for number, (first, _) in enumerate(groups):
            if first < skip:
                continue
            if first and (text[first - 1].isalnum() or text[first - 1] == "_"):
                continue
            end = self._longest_card(text, groups, number)
            if end:
                skip = end
                yield Finding(first, end, self.kind)

    def _longest_card(self, text: str, groups: list[tuple[int, int]], number: int) -> int:
        digits, found, previous = "", 0, None
        for first, end in groups[number : number + 19]:
            if previous is not None and not (first == previous + 1 and text[previous] in " -"):
                break
            digits += text[first:end]
            if len(digits) > 19:
                break
            previous = end
            if len(digits) >= 13 and not text[end : end + 1].isalpha() and _is_card(digits):
                found = end
        return found

    def tail(self, text: str, start: int = 0) -> int:
        return _numeric_tail(text, start, self._longest)


def _is_card(digits: str) -> bool:
    if digits.count(digits[0]) == len(digits):
        return False
    size, two, four = len(digits), int(digits[:2]), int(digits[:4])
    return (
        (digits[0] == "4" and size in (13, 16, 19))
        or ((51 <= two <= 55 or 2221 <= four <= 2720) and size == 16)
        or (two in (34, 37) and size == 15)
        or ((four == 6011 or two in (64, 65)) and size in (16, 19))
        or (two == 62 and 16 <= size <= 19)
        or ((two in (36, 38, 39) or 300 <= int(digits[:3]) <= 305) and 14 <= size <= 19)
        or (3528 <= four <= 3589 and size in (16, 19))
        or (two in (50, 56, 57, 58, 63, 67) and 16 <= size <= 19)
    ) and luhn(digits)


def luhn(digits: str) -> bool:
    """Whether the digits satisfy the Luhn sum.

    >>> luhn("4111111111111111"), luhn("4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + place % 2)
        total += value - 9 if value > 9 else value
    return total % 10 == 0


IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18,
    "NO": 15, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SD": 18,
    "SE": 24, "SI": 19, "SK": 24, "SM": 27, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26, "UA": 29, "VA": 22,
    "VG": 24, "XK": 20,
}  # fmt: skip


class Ibans:
    """Bank accounts: a known country, its length, and the remainder 1 modulo 97."""

    kind = "iban"
    _longest = 72
    _digits = re.compile(r"[0-9](?<=[A-Za-z]{2}[0-9])[0-9]")  # the check digits: rarer than letters

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in self._digits.finditer(text, start):
            first = match.start() - 2
            size = IBAN_LENGTHS.get(text[first : first + 2].upper(), 0)
            if first < start or not size or (first and text[first - 1] in _ALNUM):
                continue
            if end := _account_end(text, first, size):
                start = end
                yield Finding(first, end, self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        for match in self._digits.finditer(text, max(start, len(text) - self._longest)):
            first = match.start() - 2
            if first >= start and text[first : first + 2].upper() in IBAN_LENGTHS and not text[first:].strip(_WITHIN):
                return min(first, _run(text, start, _ALNUM, 8))
        return _run(text, start, _ALNUM, 8)


def _account_end(text: str, start: int, size: int) -> int:
    """Where an account of ``size`` characters that begins at ``start`` ends; 0 when there is none."""
    found: list[str] = []
    place = start
    while len(found) < size:
        letter = text[place : place + 1]
        if letter in (" ", "-") and text[place + 1 : place + 2] not in ("", " ", "-"):
            place += 1
            continue
        if not letter or letter not in _ALNUM:
            return 0
        found.append(letter.upper())
        place += 1
    following = text[place : place + 1]
    if following and following in _ALNUM:
        return 0
    account = "".join(found)
    return place if mod97(account) == 1 else 0


def mod97(account: str) -> int:
    """The remainder of an IBAN: 1 when it is right.

    >>> mod97("DE89370400440532013000")
    1
    """
    return int("".join(str(int(letter, 36)) for letter in account[4:] + account[:4])) % 97


class SocialSecurity:
    """United States numbers (SSN, ITIN) with separators, or bare beside words that say what they are."""

    kind = "ssn"
    _longest = 14
    _form = re.compile(r"(?<![\w-])([0-9]{3})([ -]?)([0-9]{2})\2([0-9]{4})(?![\w-])")
    _words = ("ssn", "social security", "social-security", "itin", "tax id", "taxpayer")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in _matches(self._form, _DIGIT, text, start):
            area, separator, group, serial = match.groups()
            if area in ("000", "666") or group == "00" or serial == "0000":
                continue
            if area[0] == "9" and not (50 <= int(group) <= 65 or 70 <= int(group) <= 99):  # an ITIN's groups
                continue
            if separator != "-" and not any(word in _before(text, match.start()) for word in self._words):
                continue
            yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        return _numeric_tail(text, start, self._longest)


class Phones:
    """Phone numbers: international with ``+``, North American, and others beside words that say what they are."""

    kind = "phone"
    _longest = 50
    _form = re.compile(
        r"(?<![\w.+/-])(?:"
        r"(?:\+|00)[1-9](?:[ .()/-]{0,2}[0-9]){6,14}"
        r"|(?:1[ .-]?)?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}[ .-])[2-9][0-9]{2}[ .-][0-9]{4}"
        r"|\(?0[1-9](?:[ ()/-]{0,2}[0-9]){7,10}"
        r"|[2-9][0-9]{9}"
        r")(?![\w]|[.,-][0-9])"
    )
    _words = (
        "phone",
        "tel",
        "mobile",
        "cell",
        "call",
        "whatsapp",
        "fax",
        "handy",
        "sms",
        "text me",
        "ring",
        "rufnummer",
    )
    _separators = frozenset(" .()/-")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in _matches(self._form, _PHONE_STARTS, text, start):
            written = match[0]
            if written[0] == "+" or written[:2] == "00":
                known = written[0] == "+" or any(mark in self._separators for mark in written)
            else:
                known = written[0] not in "0(" and any(mark in " .-" for mark in written[2:])
                known = known or written[:2] in ("(2", "(3", "(4", "(5", "(6", "(7", "(8", "(9")
            if known or any(word in _before(text, match.start()) for word in self._words):
                yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        return _numeric_tail(text, start, self._longest)


class NationalInsurance:
    """United Kingdom: National Insurance numbers, and NHS numbers (mod 11) beside a word that says so."""

    kind = "national_id"
    _longest = 16
    _form = re.compile(
        r"(?<!\w)(?:(?!BG|GB|NK|KN|TN|NT|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-D]"
        r"|([0-9]{3})[ -]?([0-9]{3})[ -]?([0-9]{4}))(?!\w)"
    )
    _open = re.compile(r"(?<!\w)[A-Z]{1,2}[0-9 ]*\Z")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        if _DIGIT.search(text, start) is None:
            return
        for match in _matches(self._form, _CAPITAL_OR_DIGIT, text, start):
            if match[1] is not None:
                digits = match[1] + match[2] + match[3]
                if "nhs" not in _before(text, match.start()) or not _nhs(digits):
                    continue
            yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        closed = min(_run(text, start, _ALNUM, self._longest), _numeric_tail(text, start, self._longest))
        match = self._open.search(text, max(start, len(text) - self._longest))
        return closed if match is None else min(closed, match.start())


def _nhs(digits: str) -> bool:
    check = 11 - sum(int(digit) * (10 - place) for place, digit in enumerate(digits[:9])) % 11
    return check % 11 == int(digits[9])


class Addresses:
    """IP addresses, version 4 (each part at most 255) and version 6."""

    kind = "ip"
    _longest = 48
    _alphabet = "0123456789abcdefABCDEF.:"
    _form = re.compile(
        r"(?<![\w.:])(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![0-9]|\.[0-9])"
        r"|(?=[0-9A-Fa-f:]{0,39}::|(?:[0-9A-Fa-f]{1,4}:){7})[0-9A-Fa-f:]{3,39})(?![\w:])"
    )

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in self._form.finditer(text, start):
            if "." in match[0]:
                parts = match[0].split(".")
                if any(int(part) > 255 or (len(part) > 1 and part[0] == "0") for part in parts):
                    continue
            elif match[0].count("::") > 1 or match[0].count(":") > 7 or not any(mark != ":" for mark in match[0]):
                continue
            yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        return _run(text, start, self._alphabet, self._longest)


class BirthDates:
    """Dates beside a word that says they are somebody's birth."""

    kind = "birth_date"
    _longest = 26
    _form = re.compile(
        r"(?<![\w/.-])(?:[0-9]{1,2}[./-][0-9]{1,2}[./-](?:19|20)?[0-9]{2}|(?:19|20)[0-9]{2}-[0-9]{2}-[0-9]{2})(?![\w/-])"
    )
    _words = ("born", "birth", "dob", "d.o.b", "geboren", "geburt", "naissance", "née", "né le")

    def scan(self, text: str, start: int = 0) -> Iterator[Finding]:
        for match in _matches(self._form, _DIGIT, text, start):
            if any(word in _before(text, match.start()) for word in self._words):
                yield Finding(match.start(), match.end(), self.kind)

    def tail(self, text: str, start: int = 0) -> int:
        return _numeric_tail(text, start, self._longest)


KINDS: dict[str, Callable[[], Detector]] = {
    "email": Emails,
    "phone": Phones,
    "card": Cards,
    "iban": Ibans,
    "ssn": SocialSecurity,
    "national_id": NationalInsurance,
    "ip": Addresses,
    "birth_date": BirthDates,
}
DEFAULT_KINDS = ("email", "phone", "card", "iban", "ssn", "national_id", "birth_date")
"""All but IP addresses: those name machines more often than people."""


def detectors(kinds: tuple[str, ...] = DEFAULT_KINDS) -> list[Detector]:
    """The detectors for some kinds of :data:`KINDS`, those with a checksum first: they know best."""
    order = ("card", "iban", "ssn", "national_id", "email", "birth_date", "phone", "ip")
    return [KINDS[kind]() for kind in order if kind in kinds]


def _run(text: str, start: int, alphabet: str, longest: int) -> int:
    """Where the run of characters of ``alphabet`` at the end of the text begins; at most ``longest`` are open."""
    least = max(start, len(text) - longest)
    return least + len(text[least:].rstrip(alphabet))


def _numeric_tail(text: str, start: int, longest: int) -> int:
    """As :func:`_run` for digits and what stands between them; blanks alone are open to nobody."""
    least = max(start, len(text) - longest)
    end = text[least:]
    run = len(end.rstrip(_NUMERIC))
    while run < len(end) and end[run] in " -./)":
        run += 1
    return least + run
