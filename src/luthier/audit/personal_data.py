"""Mail addresses, phone numbers, payment cards and bank accounts in the texts.

Order, ticket and tracking numbers are digits too. So cards must carry a known issuer's prefix and pass
the Luhn check (ISO/IEC 7812), accounts the length of their country and the mod-97 check (ISO 13616),
phones must be written like phones, and no number counts that is introduced as something else.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterator

from luthier.audit.finding import Finding, Material
from luthier.examples.example import Example

_MAIL = re.compile(r"[A-Za-z0-9][A-Za-z0-9._%+-]{0,63}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}\b")
# Patterns that begin with a class of characters are looked for several times faster than others; so what
# must not stand before is looked at behind the first character.
_DIGITS = re.compile(r"[+(\d](?<![\w#./-][+(\d])(?:(?<=\d)|(?<=[+(])\d)[\d ()./-]{6,24}\d(?![\w-])")
# Digits of other scripts are two to four bytes, which begin with one of these, and go on with 80 to BF.
BEGIN_DIGITS = bytes((*range(0xD9, 0xE2), 0xEA, 0xEF, 0xF0))
_SHAPES = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789" + BEGIN_DIGITS + bytes(range(0x80, 0xC0)),
    b"A" * 26 + b"0" * (10 + len(BEGIN_DIGITS) + 0x40),
)
_RUNS = bytes.maketrans(b" ()./-", b"000000")  # what may stand between the digits of a number
_IBAN = re.compile(r"[A-Z](?<!\w[A-Z])[A-Z]\d{2}(?: ?[A-Z0-9]){11,30}\b")  # begins at a word's begin
LEAST_DIGITS = 9  # of a phone number; cards have more
_INTRODUCED = re.compile(
    r"\b(?:order|ticket|tracking|invoice|parcel|shipment|reference|ref|case|serial|article|item|sku|id|isbn|issn"
    r"|bestell\w*|auftrag\w*|rechnung\w*|pedido|commande)\s*(?:number|nummer|no|nr|num|id|code)?\s*[.:#°]*\s*$",
    re.IGNORECASE,
)
_PHONE = re.compile(
    r"\+\d{1,3}[ ./-]?(?:\(\d{1,4}\)[ ./-]?)?\d{1,5}(?:[ ./-]?\d{2,8}){1,5}"  # international
    r"|(?:1[ .-])?\(?[2-9]\d{2}\)?[ .-]\d{3}[ .-]\d{4}"  # North America: no area code starts with 0 or 1
    r"|\(?0\d{1,4}\)?[ ./-]\d{2,8}(?:[ ./-]?\d{2,6}){0,4}"  # national with a trunk 0
)
_CALLED = re.compile(
    r"\b(?:phone|telephone|tel|mobile|cell|call(?: me| us)?|whatsapp|fax|ring|text me|handy|telefon|mobil"
    r"|m[oó]vil|tel[eé]fono|t[eé]l[eé]phone|portable)\s*(?:number|nummer|no|nr)?(?: is| at| on| under)?"
    r"\s*[.:]?\s*$",
    re.IGNORECASE,
)
_MACHINE = re.compile(
    r"(?<![\w.:-])(?:(?:\d{1,3}\.){3}\d{1,3}|(?:[0-9a-fA-F]{1,4}:){2,7}[0-9a-fA-F:.]{1,22})(?![\w:-]|\.\d)"
)
_COLONS = re.compile(r":[0-9a-fA-F]{1,4}:")
_VERSION = re.compile(r"(?:version|release|build|firmware|\bv|ver|\d|==|>=)\W{0,2}$", re.IGNORECASE)
_CARD = re.compile(
    r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2(?:2[2-9]|[3-6]\d|7[01])\d{13}|3[47]\d{13}"
    r"|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}|3(?:0[0-5]|[68]\d)\d{11}|62\d{14,17}"
)
# ISO 13616 registry: countries by the length of their account numbers.
_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FO GL NL",
    19: "MK SI",
    20: "AT BA EE KZ LT LU",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL",
    24: "AD CZ ES MD PK RO SA SE SK TN",
    25: "PT",
    26: "IS TR",
    27: "FR GR IT MC SM",
    28: "AL AZ CY DO GT HU LB PL",
    29: "BR EG QA UA",
    30: "JO KW MU",
    31: "MT",
}
_IBAN_LENGTHS = {code: n for n, codes in _IBAN_COUNTRIES.items() for code in codes.split()}


def find_personal_data(material: Material) -> list[Finding]:
    """One finding per example that holds any; score is how many distinct ones. What was found is masked."""
    findings = []
    for example, texts, joined in zip(material.all, material.texts, material.joined_texts, strict=True):
        if not _may_hold(joined):
            continue
        found = dict.fromkeys(hit for text in texts for hit in personal_data(text))
        if found:
            listed = ", ".join(f"{kind} {mask(text)}" for kind, text in list(found)[:3])
            findings.append(
                Finding(
                    check="personal_data",
                    severity="warning",
                    score=float(len(found)),
                    message=f"{_place(example, found)} holds {listed}" + (", …" if len(found) > 3 else ""),
                    fix="replace it by a placeholder; a model can repeat what it was trained on",
                    examples=(example,),
                )
            )
    return findings


def personal_data(text: str) -> Iterator[tuple[str, str]]:
    """What in a text identifies somebody: (`mail`, `phone`, `card`, `iban` or `ip`; the text of it)."""
    if "@" in text:
        for match in _MAIL.finditer(text):
            yield "mail", match.group()
    shape = _shape(text)
    accounts = []
    for match in _IBAN.finditer(text) if b"AA00" in shape else ():
        if account := _account(match.group()):
            accounts.append(match.span())
            yield "iban", account
    if _may_name_machine(text, shape):
        yield from _machines(text)
    if not _may_number(shape):
        return
    for match in _DIGITS.finditer(text):
        if any(low <= match.start() < high for low, high in accounts):
            continue
        if _INTRODUCED.search(text, max(0, match.start() - 40), match.start()):
            continue
        if kind := _number_kind(match.group(), text[max(0, match.start() - 30) : match.start()]):
            yield kind, match.group()


def _may_hold(text: str) -> bool:
    """A quick look that few texts pass."""
    if "@" in text:
        return True
    shape = _shape(text)
    return b"AA00" in shape or _may_number(shape) or _may_name_machine(text, shape)


def _shape(text: str) -> bytes:
    """A for capitals, 0 for digits: looking here first takes a tenth of the time of the patterns."""
    return text.encode("utf-8", "surrogatepass").translate(_SHAPES)


def _may_number(shape: bytes) -> bool:
    """Whether as many digits as a number has, and what stands between them, are in a row."""
    return b"0" * LEAST_DIGITS in shape.translate(_RUNS)


def _may_name_machine(text: str, shape: bytes) -> bool:
    """Whether there are two of the points or of the colons of an internet address."""
    return shape.count(b"0.0") > 1 or (text.count(":") > 1 and _COLONS.search(text) is not None)


def mask(text: str) -> str:
    """The first and last two characters of a text."""
    return f"{text[:2]}…{text[-2:]}"


def passes_luhn(digits: str) -> bool:
    """The check digit of payment cards: double every second digit from the right, sum to a multiple of 10."""
    doubled = [int(d) * 2 if place % 2 else int(d) for place, d in enumerate(reversed(digits))]
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0


def _machines(text: str) -> Iterator[tuple[str, str]]:
    """Public internet addresses; versions have four numbers, too, but are small or called so."""
    for match in _MACHINE.finditer(text):
        found = match.group()
        try:
            address = ipaddress.ip_address(found)
        except ValueError:
            continue
        small = address.version == 4 and sum(len(part) > 1 for part in found.split(".")) < 2
        before = text[max(0, match.start() - 12) : match.start()]
        if address.is_global and not small and not _VERSION.search(before):
            yield "ip", found


def _number_kind(text: str, before: str) -> str | None:
    digits = re.sub(r"\D", "", text)
    if _CARD.fullmatch(digits) and re.fullmatch(r"\d+(?:[ -]\d+)*", text):
        return "card" if passes_luhn(digits) else None
    if LEAST_DIGITS <= len(digits) <= 15 and _PHONE.fullmatch(text):
        return "phone"
    if LEAST_DIGITS <= len(digits) <= 13 and _CALLED.search(before):
        return "phone"
    return None


def _account(text: str) -> str | None:
    """The account number that a match starts with: its country says how long it is."""
    compact = text.replace(" ", "")
    length = _IBAN_LENGTHS.get(compact[:2])
    if length is None or len(compact) < length:
        return None
    account = compact[:length]
    as_number = "".join(str(int(c, 36)) for c in account[4:] + account[:4])
    return account if int(as_number) % 97 == 1 else None


def _place(example: Example, found: dict[tuple[str, str], None]) -> str:
    return "the answer" if any(text in example.answer for _, text in found) else "the input"
