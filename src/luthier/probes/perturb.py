"""Small damage to a text that leaves its meaning: typing errors, casing, spacing, punctuation."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

KEYS = {  # neighbours on a keyboard
    "a": "sq", "b": "vn", "c": "xv", "d": "sf", "e": "wr", "f": "dg", "g": "fh", "h": "gj", "i": "uo",
    "j": "hk", "k": "jl", "l": "k", "m": "n", "n": "bm", "o": "ip", "p": "o", "q": "wa", "r": "et",
    "s": "ad", "t": "ry", "u": "yi", "v": "cb", "w": "qe", "x": "zc", "y": "tu", "z": "x",
}  # fmt: skip
TYPO_EVERY = 8  # words, and at least one
WORD = re.compile(r"[A-Za-z]{4,}")


def mistype(text: str, dice: random.Random) -> str:
    """One word in eight with a letter swapped, dropped, doubled or struck beside; never its first letter.

    Words of four letters or more only, so that codes and numbers stay what they are.
    """
    words = list(WORD.finditer(text))
    chosen = dice.sample(words, min(len(words), max(1, len(words) // TYPO_EVERY)))
    for match in sorted(chosen, key=lambda found: -found.start()):
        text = text[: match.start()] + _misspell(match[0], dice) + text[match.end() :]
    return text


def _misspell(word: str, dice: random.Random) -> str:
    place = dice.randrange(1, len(word) - 1)
    how = dice.randrange(4)
    letter, after = word[place], word[place + 1]
    if how == 0 and letter != after:
        return word[:place] + after + letter + word[place + 2 :]
    if how == 1:
        return word[:place] + word[place + 1 :]
    if how == 2:
        return word[:place] + letter + word[place:]
    return word[:place] + dice.choice(KEYS[letter.lower()]) + word[place + 1 :]


def lower_case(text: str, dice: random.Random) -> str:
    """All small letters."""
    return text.lower()


def upper_case(text: str, dice: random.Random) -> str:
    """All capitals."""
    return text.upper()


def respace(text: str, dice: random.Random) -> str:
    """Spaces doubled here and there, and around the text."""
    return "  " + re.sub(r"(?<=\S) (?=\S)", lambda _: "  " if dice.random() < 0.3 else " ", text) + " \n"


def drop_stop(text: str, dice: random.Random) -> str:
    """Without the punctuation at its end; with a full stop where there was none."""
    bare = text.rstrip().rstrip(".!?")
    return bare if bare != text.rstrip() else f"{bare}."


PERTURBATIONS: dict[str, Callable[[str, random.Random], str]] = {
    "typing errors": mistype,
    "small letters": lower_case,
    "capitals": upper_case,
    "spacing": respace,
    "last full stop": drop_stop,
}


def perturb(text: str, how: str, *, seed: str) -> str:
    """`text` damaged in one of the ways of `PERTURBATIONS`: always the same for the same seed."""
    return PERTURBATIONS[how](text, random.Random(f"{seed}/{how}"))
