"""`numeric`: the number in the answer is the number in the reference, give or take a tolerance."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from decimal import Decimal, localcontext

from luthier.examples.example import Example
from luthier.grade.score import Score

CURRENCIES = {
    "$": "$",
    "€": "€",
    "£": "£",
    "¥": "¥",
    "₹": "₹",
    "usd": "$",
    "eur": "€",
    "gbp": "£",
    "jpy": "¥",
}
MULTIPLES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
SPACES = " \u00a0\u2009\u202f"  # between groups of three digits
MAX_DIGITS = 300
_UNIFIED = str.maketrans("−–﹣－＋．，％٪٫٬’", "----+.,%%.,'")  # full width, Arabic, typographic
_MONEY = r"[$€£¥₹]|\b(?:USD|EUR|GBP|JPY)\b"
_NUMBER = re.compile(
    rf"""(?<![\w.,^])                                   # C02, v1.2 and 10^3 are no numbers
    (?P<sign>[-+]|\bminus\s)? (?:(?P<before>{_MONEY})\s?)? (?P<inner>[-+])?  # "- 5" is an item of a list
    (?P<digits> \d{{1,3}}(?:[{SPACES}]\d{{3}})+(?!\d)(?:[.,]\d+)? | \d+(?:[.,']\d+)* | \.\d+ )
    (?P<exponent>[eE][-+]?\d+)?
    (?: \s?(?P<percent>%|\bpercent\b|\bper\ cent\b) | \s?(?P<after>{_MONEY}) )?
    (?: \s(?P<multiple>thousand|million|billion|trillion)\b )?
    (?P<glued>(?:[kmb]|bn|mn|mio|mrd)\b|\^|[/:]\d|-\d|x[\da-f])?""",
    re.VERBOSE | re.IGNORECASE,
)
_MARKED = (re.compile(r"\\boxed\{([^{}]*)\}"), re.compile(r"^####\s*(.+?)\s*$", re.MULTILINE))


@dataclass(frozen=True)
class Reading:
    """A number as a text says it.

    Attributes:
        value: exact; a percentage is in hundredths, so 45% is 0.45.
        currency: its sign, None where the text names none.
    """

    value: Decimal
    currency: str | None = None


class NotANumber(Exception):  # noqa: N818 - a finding about an answer, not an error of ours
    """The text holds no number, or more than one; the message says which."""


class Numeric:
    """1 when the one number of the answer is the reference's, within the tolerance.

    An answer without a number, or with several different ones, is wrong and says why. A reference
    like that leaves the answer unscored. Two currencies that are both named must be the same.

    Args:
        tolerance: largest difference that is still right, inclusive.
        relative: whether it is a share of the reference's number instead.
    """

    name = "numeric"

    def __init__(self, *, tolerance: float = 0.0, relative: bool = False) -> None:
        self._tolerance = Decimal(str(tolerance))
        self._relative = relative
        within = f"{tolerance * 100:g}%" if relative else f"{tolerance:g}"
        self.metric = "right number" if tolerance == 0 else f"right number, within {within}"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer: 1 or 0. Detail: `number` and `expected` as read, in decimal notation."""
        try:
            expected = read_number(reference)
        except NotANumber as problem:
            return Score(None, f"the reference has no number to compare with: {problem}")
        shown = {"expected": f"{expected.value:f}"}
        try:
            given = read_number(answer)
        except NotANumber as problem:
            return Score(0.0, str(problem), shown | {"number": None})
        detail = shown | {"number": f"{given.value:f}"}
        if given.currency and expected.currency and given.currency != expected.currency:
            return Score(0.0, f"in {given.currency}, not in {expected.currency}", detail)
        with localcontext(prec=2 * MAX_DIGITS):
            allowed = self._tolerance * (abs(expected.value) if self._relative else 1)
            off = abs(given.value - expected.value)
        return Score(1.0, None, detail) if off <= allowed else Score(0.0, f"off by {off:.6g}", detail)


def read_number(text: str) -> Reading:
    """The one number that a text says.

    The content of the last `\\boxed{}` or of a line `#### ...` is read alone where there is one.
    Understood: thousands separators (1,234.5, 1.234,5, 1 234, 1'234), currencies, percentages,
    exponents, and the words thousand to trillion. A single comma before exactly three digits
    separates thousands, a single point is always decimal.

    Raises:
        NotANumber: there is none; there are different ones; or it could be read in two ways (5k, 1/2,
            3-4, 10:30).
    """
    plain = _as_ascii_digits(text)
    for pattern in _MARKED:
        if found := pattern.findall(plain):
            plain = found[-1].replace(r"\%", "%").replace(r"\$", "$")
            break
    readings = [_read(match) for match in _NUMBER.finditer(plain)]
    if not readings:
        raise NotANumber("no number in it")
    values = {reading.value for reading in readings}
    if len(values) > 1:
        shown = ", ".join(f"{reading.value:f}" for reading in readings[:4])
        raise NotANumber(f"several numbers: {shown}{' ...' if len(readings) > 4 else ''}")
    currencies = {reading.currency for reading in readings if reading.currency}
    return Reading(values.pop(), currencies.pop() if len(currencies) == 1 else None)


def _read(match: re.Match[str]) -> Reading:
    whole = match[0].strip()
    if match["glued"]:
        raise NotANumber(f"{whole!r:.60} can be read in more than one way")
    if match["sign"] and match["inner"]:
        raise NotANumber(f"{whole!r:.60} has two signs")
    power = match["exponent"] or "e0"
    if len(match["digits"]) > MAX_DIGITS or len(power) > 6 or abs(int(power[1:])) > MAX_DIGITS:
        raise NotANumber(f"a number of more than {MAX_DIGITS} digits")
    with localcontext(prec=2 * MAX_DIGITS):
        value = Decimal(_plain_digits(match["digits"]) + power)
        if (match["sign"] or match["inner"] or "+") != "+":
            value = -value
        if match["percent"]:
            value /= 100
        if match["multiple"]:
            value *= MULTIPLES[match["multiple"].lower()]
        value = value.normalize() if value else Decimal(0)
    money = match["before"] or match["after"]
    return Reading(value, CURRENCIES[money.lower()] if money else None)


def _plain_digits(digits: str) -> str:
    """Digits with a decimal point at most.

    Raises:
        NotANumber: the separators follow no convention, as in 1,23,4.5.6.
    """
    body = digits
    for space in SPACES + "'":
        body = body.replace(space, "")
    marks = [character for character in body if character in ".,"]
    if not marks:
        return body
    last = marks[-1]
    head, _, tail = body.rpartition(last)
    others = set(marks[:-1])
    if len(marks) == 1:
        groups = last == "," and len(tail) == 3 and 1 <= len(head) <= 3 and head[:1] != "0" and body == digits
        return head + tail if groups else f"{head or '0'}.{tail}"
    if last not in others and len(others) == 1:
        return _joined(head, others.pop(), digits) + "." + tail
    if others == {last}:
        return _joined(body, last, digits)
    raise NotANumber(f"{digits!r:.60} has separators that make no number")


def _joined(grouped: str, mark: str, whole: str) -> str:
    first, *groups = grouped.split(mark)
    # 12,34,567 is how India groups: pairs before the last three
    western = all(len(group) == 3 for group in groups)
    indian = mark == "," and len(groups[-1]) == 3 and all(len(group) == 2 for group in groups[:-1])
    if 1 <= len(first) <= 3 and (western or indian):
        return first + "".join(groups)
    raise NotANumber(f"{whole!r:.60} has separators that make no number")


def _as_ascii_digits(text: str) -> str:
    """Decimal digits of every script as 0 to 9; other signs for numbers (² ½ ①) as ^, which is no digit."""
    unified = text.translate(_UNIFIED)
    if unified.isascii():
        return unified
    kinds = [(character, unicodedata.category(character)) for character in unified]
    return "".join(
        str(unicodedata.decimal(character)) if kind == "Nd" else "^" if kind == "No" else character
        for character, kind in kinds
    )
