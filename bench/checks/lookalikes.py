"""Texts that look alike and mean something else: what a check of duplicates must let pass."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

Change = Callable[[str, random.Random], str | None]

SHORT = 15
COMMON = 200  # the most frequent words of a set are not changed: few of them decide what is asked
_PLACES = (
    "France",
    "Spain",
    "Italy",
    "Kenya",
    "Peru",
    "Japan",
    "Norway",
    "Chad",
    "Cuba",
    "Egypt",
    "Laos",
    "Mali",
)
_THINGS = (
    "milk",
    "rice",
    "butter",
    "an apple",
    "an egg",
    "a carrot",
    "honey",
    "beef",
    "tofu",
    "a banana",
    "salmon",
)
_MONEY = ("euros", "dollars", "pounds", "yen", "rupees", "pesos", "francs", "kroner")
_PARTS = (
    "the heart",
    "the liver",
    "the kidneys",
    "the lungs",
    "the spleen",
    "the skin",
    "the brain",
    "the ear",
)
_TEMPLATES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("What is the capital of {}?", _PLACES),
    ("How many people live in {} today?", _PLACES),
    ("Who was the first president of {}?", _PLACES),
    ("How many calories does {} have?", _THINGS),
    ("Can I give {} to a dog that is one year old?", _THINGS),
    ("What does {} do in the human body?", _PARTS),
    ("Which diseases can {} get, and how do they begin?", _PARTS),
    ("Where can I exchange {} near the main station?", _MONEY),
)
_SWAPPED = "How much do I get when I change {} to {}?"


def template_groups() -> Iterator[list[str]]:
    """Questions of one form each: every one asks something else."""
    for form, values in _TEMPLATES:
        yield [form.format(value) for value in values]
    yield [_SWAPPED.format(a, b) for a in _MONEY for b in _MONEY if a != b]


def change_number(text: str, rng: random.Random) -> str | None:
    """One number by another of the same length."""
    places = list(re.finditer(r"\d+", text))
    if not places:
        return None
    match = rng.choice(places)
    old = match.group()
    digits = "123456789"
    new = rng.choice(digits) + "".join(rng.choices("0123456789", k=len(old) - 1))
    if new == old:
        new = digits[int(old[0]) % 9] + old[1:]
    return text[: match.start()] + new + text[match.end() :]


def negate(text: str, rng: random.Random) -> str | None:
    """A `not` put in, or taken out."""
    if re.search(r"\bnot ", text):
        return re.sub(r"\bnot ", "", text, count=1)
    match = re.search(r"\b(?:is|are|was|were|will|can|should|would|has|have|does|do|did)\b", text)
    return None if match is None else text[: match.end()] + " not" + text[match.end() :]


def word_changer(texts: Sequence[str]) -> Change:
    """Makes the change of one word that matters, by a word of another text of the set.

    Neither word is among the most frequent of the set; both begin small or both with a capital; they begin
    unlike, so that no slip of the pen or ending is taken for another meaning. In
    texts of more than `SHORT` words one word of many may be anything, and none is changed.
    """
    counts = Counter(word for text in texts for word in set(_words(text)))
    common = {word.lower() for word, _ in counts.most_common(COMMON)}
    able = sorted(word for word in counts if word.lower() not in common and len(word) > 3)

    def change(text: str, rng: random.Random) -> str | None:
        places = [m for m in re.finditer(r"[A-Za-z]{4,}", text) if m.group().lower() not in common]
        if not places or len(text.split()) > SHORT:
            return None
        match = rng.choice(places)
        old = match.group()
        for _ in range(50):
            new = rng.choice(able)
            if new[0].isupper() == old[0].isupper() and new[:3].lower() != old[:3].lower():
                return text[: match.start()] + new + text[match.end() :]
        return None

    return change


def _words(text: str) -> list[str]:
    return re.findall(r"[A-Za-z]+", text)


def kinds(texts: Sequence[str]) -> dict[str, Change]:
    """The changes that turn a text into another one, by name."""
    return {
        "another number": change_number,
        "another word that matters": word_changer(texts),
        "negated": negate,
    }
