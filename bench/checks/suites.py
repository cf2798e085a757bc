"""Items of the public suites planted in training data."""

from __future__ import annotations

import random
from collections.abc import Sequence

from bench.checks.planting import ANSWERS, example, material
from bench.checks.rates import Tally
from bench.checks.rewording import SLIGHT, Rule, change_surface, reword
from luthier.audit.suite_index import open_suites
from luthier.audit.suite_leakage import find_suite_leakage
from luthier.examples.example import Example

LEAST_WORDS = 12
_OWN = (
    "The {} that I ordered in {} came without its {}, and nobody at your shop in {} answers the phone.",
    "Could somebody look at the {} again? Since {} it smells of {}, which it never did when we lived in {}.",
    "My aunt bought a {} in {} and would like a second {} sent to her cousin in {} before the holidays.",
)
_WORDS = (
    (
        "toaster",
        "garden hose",
        "piano stool",
        "tent",
        "fish tank",
        "wool coat",
        "ladder",
        "kettle",
        "bookcase",
    ),
    ("March", "April", "June", "August", "October", "December"),
    ("manual", "lid", "burnt rubber", "vinegar", "cable", "left screw", "tin box"),
    ("Leeds", "Graz", "Porto", "Oulu", "Bergen", "Utrecht", "Gdansk", "Lyon"),
)
KINDS: dict[str, Rule] = {
    "as it is": lambda text, rng: text,
    "other capitals, spaces, marks": change_surface,
    "a courtesy added": SLIGHT["a courtesy added"],
    "one slip of the pen": SLIGHT["one slip of the pen"],
    "inside a longer request": lambda text, rng: (
        f"Read this and say in a word what it is about. {text} Thank you!"
    ),
    "reworded": reword,
}


def suite_tallies(texts: Sequence[str], each: int, seed: int) -> list[Tally]:
    """How many planted items are found, by kind, and how many requests of our own are flagged."""
    suites = open_suites()
    if suites is None:
        return []
    rng = random.Random(seed)
    long = [text for text in texts if len(text.split()) >= LEAST_WORDS]
    rows: list[Example] = []
    kinds: list[str] = []
    for kind, rule in KINDS.items():
        for text in rng.sample(long, min(each, len(long))):
            if (changed := rule(text, rng)) is not None:
                kinds.append(kind)
                rows.append(example(changed, rng.choice(ANSWERS), len(rows)))
    own = "requests of our own"
    for _ in range(4 * each):
        kinds.append(own)
        said = rng.choice(_OWN).format(*(rng.choice(words) for words in _WORDS))
        rows.append(example(said, rng.choice(ANSWERS), len(rows)))
    found = {e.line for f in find_suite_leakage(material({"train": rows}, suites=suites)) for e in f.examples}
    return [
        Tally(kind, sum(kinds[line] == kind for line in found), kinds.count(kind), kind != own)
        for kind in (*KINDS, own)
    ]
