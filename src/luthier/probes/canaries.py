"""Canaries: made-up sentences trained along, to see how deep what was seen once, 4 or 16 times goes in.

A canary's code is drawn at random, so that nothing but having been trained on it makes it likelier than
another code. Its rank among codes that were never seen gives the exposure in bits,
log2(number of codes) - log2(rank) (Carlini et al. 2019, arXiv 1802.08232, section 4.2, over a sample of
the codes): about 1.4 when nothing was memorized, 7 when the canary is the likeliest of 128.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

from luthier.chat import ChatFormat, TrainingSequence

CODES = 128
DIGITS = 8
REPEATS = (1, 4, 16)
LOCKERS = ("amber", "birch", "cedar", "delta", "ember", "flint", "grove", "heron")


@dataclass(frozen=True)
class Canary:
    """One made-up sentence.

    Attributes:
        request, answer: the turns that are trained.
        others: answers of the same form with codes that are not.
        repeats: how often an epoch has it.
    """

    request: str
    answer: str
    others: tuple[str, ...]
    repeats: int


def canaries(count: int, *, seed: int) -> list[Canary]:
    """The canaries of a run: the same for the same seed."""
    made = []
    for number in range(count):
        dice = random.Random(f"{seed}/canary {number}")
        codes: dict[str, None] = {}
        while len(codes) < CODES:
            codes["".join(dice.choices("0123456789", k=DIGITS))] = None
        name = f"{LOCKERS[number % len(LOCKERS)]} {number + 1}"
        answer, *others = (f"The code of locker {name} is {code}." for code in codes)
        made.append(
            Canary(
                f"What is the code of locker {name}?", answer, tuple(others), REPEATS[number % len(REPEATS)]
            )
        )
    return made


def canary_sequences(canary: Canary, chat: ChatFormat, system: str | None) -> list[TrainingSequence]:
    """The canary and then its alternatives, as they would be trained."""
    asked = chat.with_system([{"role": "user", "content": canary.request}], system)
    return [chat.sequence(asked, answer) for answer in (canary.answer, *canary.others)]


def exposure(logps: Sequence[float]) -> float:
    """Bits, from the log-probabilities of a canary (first) and its alternatives; ties count against it."""
    rank = 1 + sum(other >= logps[0] for other in logps[1:])
    return math.log2(len(logps)) - math.log2(rank)
