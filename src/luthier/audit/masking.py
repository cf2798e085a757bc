"""Personal data and secrets replaced by typed placeholders, or veiled where they have to be shown."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator

from luthier.audit.personal_data import mask, personal_data
from luthier.audit.secret import secrets

_PLACEHOLDER = re.compile(r"\[([A-Z][A-Z_]*)_(\d+)\]")
_KEY_BLOCK = re.compile(
    r"-----BEGIN (?P<kind>(?:[A-Z0-9]+ ){0,3}PRIVATE KEY(?: BLOCK)?)-----"
    r"(?:.*?-----END (?P=kind)-----|(?:(?:\s|\\n)*[A-Za-z0-9+/=]{16,})*)",
    re.DOTALL,
)
_NAMES = {"password in an address": "ADDRESS_WITH_PASSWORD"}
LEAST_SHOWN = 12  # characters; of a shorter password four would be much
_PASSES = 5  # what is taken out can bring two halves together


class Placeholders:
    """Numbers for what identifies somebody, within one example: the same data has the same number.

    Args:
        texts: all texts of the example; numbers that its own placeholders have are not given again.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        self._taken: dict[str, int] = defaultdict(int)
        self._given: dict[tuple[str, str], str] = {}
        for text in texts:
            for name, number in _PLACEHOLDER.findall(text):
                self._taken[name] = max(self._taken[name], int(number))

    def put(self, text: str) -> str:
        """The text with placeholders, such as `[MAIL_1]`."""
        for _ in range(_PASSES):
            found = list(find_private(text))
            if not found:
                break
            for kind, hit in sorted(dict.fromkeys(found), key=lambda pair: -len(pair[1])):
                text = text.replace(hit, self._placeholder(kind, hit))
        return text

    def _placeholder(self, kind: str, hit: str) -> str:
        name = _NAMES.get(kind, re.sub(r"\W+", "_", kind).strip("_").upper())
        key = name, _canonical(kind, hit)
        if key not in self._given:
            self._taken[name] += 1
            self._given[key] = f"[{name}_{self._taken[name]}]"
        return self._given[key]


def find_private(text: str, *, secrets_alone: bool = False) -> Iterator[tuple[str, str]]:
    """Secrets and personal data as the text has them: (kind, the text of it); a private key whole."""
    for kind, hit in secrets(text):
        if kind != "private key":
            yield kind, hit
    if "PRIVATE KEY" in text:
        yield from (("private key", match.group().rstrip()) for match in _KEY_BLOCK.finditer(text))
    for kind, hit in () if secrets_alone else personal_data(text):
        yield kind, hit if hit in text else _spaced(hit, text)


def veil(text: str, *, secrets_alone: bool = False) -> str:
    """The text with the first and last two characters alone of what is private; of what is short, none."""
    found = dict.fromkeys(find_private(text, secrets_alone=secrets_alone))
    for _, hit in sorted(found, key=lambda pair: -len(pair[1])):
        text = text.replace(hit, mask(hit) if len(hit) >= LEAST_SHOWN else "…")
    return text


def _spaced(hit: str, text: str) -> str:
    """An account number as it is written, with spaces between its parts."""
    match = re.search(r"[ -]?".join(map(re.escape, hit)), text)
    return match.group() if match else hit


def _canonical(kind: str, hit: str) -> str:
    """What two ways of writing the same thing share."""
    if kind in ("phone", "card"):
        return re.sub(r"\D", "", hit)
    return re.sub(r"\s", "", hit).casefold() if kind in ("mail", "iban") else hit
