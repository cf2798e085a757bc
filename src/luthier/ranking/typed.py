"""What a rater types: `2 1 3`, ties as `2=1 3`, the best alone as `2`; of a pair `a`, `b` or `=`."""

from __future__ import annotations

import re

Order = tuple[tuple[int, ...], ...]

RANKS = "2 1 3: from best to worst; 2=1 3: a tie; 2: the best"
PAIR = "a or b: the better one; =: a tie"
COMMANDS = "s skip, u undo the last, q stop"
_PAIRS: dict[str, Order] = {
    "a": ((0,), (1,)),
    "b": ((1,), (0,)),
    "=": ((0, 1),),
}


def parse_ranks(text: str, count: int) -> Order:
    """Places of the answers shown (0 is the first), from best to worst, tied ones together.

    Every answer is named, or one alone: the best, which says nothing of the others among themselves.

    Args:
        count: answers shown.

    Raises:
        ValueError: what is wrong with it, in words for the rater.
    """
    tokens = re.findall(r"\d+|\S", text.replace(",", " ").replace(";", " "))
    levels: list[list[int]] = []
    joined = separated = False
    for token in tokens:
        if token in "=>":
            if not levels or joined or separated:
                raise ValueError(f"there is no number before {token!r}")
            joined, separated = token == "=", token == ">"
            continue
        place = _place(token, count, levels)
        if joined:
            levels[-1].append(place)
        else:
            levels.append([place])
        joined = separated = False
    if not levels:
        raise ValueError("nothing was typed")
    if joined or separated:
        raise ValueError("there is no number at the end")
    named = {place for level in levels for place in level}
    if len(named) not in (1, count):
        left = ", ".join(str(place + 1) for place in range(count) if place not in named)
        raise ValueError(f"{left} left out: name every answer, or the best alone")
    return tuple(tuple(sorted(level)) for level in levels)


def parse_pair(text: str) -> Order:
    """As `parse_ranks`, of the two answers `a` and `b`.

    Raises:
        ValueError: it is none of `a`, `b` and `=`.
    """
    if text not in _PAIRS:
        raise ValueError(f"{text!r} is none of a, b, =" if text else "nothing was typed")
    return _PAIRS[text]


def _place(token: str, count: int, levels: list[list[int]]) -> int:
    if not token.isdecimal():
        raise ValueError(f"{token!r} is not the number of an answer")
    place = int(token) - 1
    if not 0 <= place < count:
        raise ValueError(f"there is no answer {token}: they are 1 to {count}")
    if any(place in level for level in levels):
        raise ValueError(f"answer {token} is named twice")
    return place
