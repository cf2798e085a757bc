"""What a rater holds of the answers to one question: who is at least as good as whom.

An opinion is a set of pairs (a, b), each for "a is at least as good as b". With (b, a) besides, they are
tied; without it, a is better; where neither is in the set, they were not compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from luthier.ranking.judgements import Judgement

Opinion = frozenset[tuple[str, str]]


def stated(judgements: Sequence[Judgement]) -> Opinion:
    """What judgements of one question by one rater say, without what follows from them together.

    Where two contradict each other, the later word counts and the earlier judgement is left out.

    Args:
        judgements: in the order they were said.
    """
    accepted: list[Opinion] = []
    for judgement in reversed(judgements):
        says = _says(judgement)
        if _consistent([*accepted, says]):
            accepted.append(says)
    return frozenset[tuple[str, str]]().union(*accepted)


def closed(opinion: Opinion) -> Opinion:
    """The opinion with all that follows from it: a > b and b = c say a > c."""
    pairs = set(opinion)
    answers = sorted({answer for pair in opinion for answer in pair})
    for middle, first, last in product(answers, repeat=3):  # the middle one in the outermost loop (Warshall)
        if first != last and (first, middle) in pairs and (middle, last) in pairs:
            pairs.add((first, last))
    return frozenset(pairs)


def compare(opinion: Opinion, a: str, b: str) -> int | None:
    """1 where a is better, -1 where b is, 0 where they are tied; None where they were not compared."""
    forth, back = (a, b) in opinion, (b, a) in opinion
    return int(forth) - int(back) if forth or back else None


def _says(judgement: Judgement) -> Opinion:
    named = {answer for level in judgement.order for answer in level}
    rest = tuple(answer for answer in judgement.shown if answer not in named)
    levels = judgement.order
    pairs = set()
    for place, level in enumerate(levels):
        worse = [*(answer for later in levels[place + 1 :] for answer in later), *rest]
        pairs |= {(a, b) for a in level for b in (*level, *worse) if a != b}
    return frozenset(pairs)


def _consistent(opinions: Sequence[Opinion]) -> bool:
    """Whether nothing that one of them calls better comes out as no better, all taken together."""
    together = closed(frozenset[tuple[str, str]]().union(*opinions))
    return all(compare(together, a, b) == compare(opinion, a, b) for opinion in opinions for a, b in opinion)
