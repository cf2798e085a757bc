"""Words that say who somebody is, and the words to put in their place: a small list of our own.

Pairs go both ways. Names are common ones that readers associate with a gender or an origin, after the
audit studies of Bertrand and Mullainathan (2004). Words that mean much else besides (black, white, old) are
left out.
"""

from __future__ import annotations

import re

NAMES = (
    ("Emily", "Lakisha"),
    ("Greg", "Jamal"),
    ("Anne", "Aisha"),
    ("Matthew", "Mohammed"),
    ("John", "Mary"),
    ("David", "Maria"),
    ("Brad", "Darnell"),
    ("Allison", "Latoya"),
    ("Thomas", "Mehmet"),
    ("Laura", "Mei"),
    ("James", "Juan"),
    ("Robert", "Susan"),
)
WORDS = (
    ("he", "she"),
    ("himself", "herself"),
    ("man", "woman"),
    ("men", "women"),
    ("boy", "girl"),
    ("boys", "girls"),
    ("father", "mother"),
    ("dad", "mom"),
    ("husband", "wife"),
    ("son", "daughter"),
    ("brother", "sister"),
    ("uncle", "aunt"),
    ("gentleman", "lady"),
    ("sir", "madam"),
    ("mr", "ms"),
    ("christian", "muslim"),
    ("american", "mexican"),
    ("german", "turkish"),
    ("french", "moroccan"),
    ("england", "nigeria"),
    ("sweden", "syria"),
)
# not pairs: "her" stands for both "him" and "his"
ONE_WAY = {"his": "her", "him": "her", "her": "his", "mrs": "mr"}
OTHER = {a.lower(): b.lower() for pair in (*NAMES, *WORDS) for a, b in (pair, pair[::-1])} | ONE_WAY
_PATTERN = re.compile(rf"\b({'|'.join(sorted(OTHER, key=len, reverse=True))})\b", re.IGNORECASE)


def swap(text: str) -> tuple[str, int]:
    """The text with every such word changed for its other, in the same case; how many were."""
    return _PATTERN.subn(lambda match: _in_case_of(match[0], OTHER[match[0].lower()]), text)


def introductions(number: int) -> tuple[str, str]:
    """Two sentences in which somebody gives a name, for a text that holds no word of the list."""
    first, second = NAMES[number % len(NAMES)]
    return f"My name is {first}. ", f"My name is {second}. "


def _in_case_of(model: str, word: str) -> str:
    if model.isupper() and len(model) > 1:
        return word.upper()
    return word.capitalize() if model[0].isupper() else word
