"""Which words differ between texts that are nearly the same."""

from __future__ import annotations

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from os.path import commonprefix

from luthier.card.masked import Piece

MOST_WORDS = 250  # compared per text: the work grows with its square
_KEPT_BEFORE = 90  # characters of a long common beginning that stay
_WORD = re.compile(r"\s+|\w+|[^\w\s]")


def mark_changes(texts: Sequence[str]) -> list[list[Piece]]:
    """Each text in pieces; marked `changed` are the first's words that another lacks, and the others' own.

    Spaces and upper case are no difference. A long common beginning of texts that differ is cut to its last
    words.
    """
    differ = any(text != texts[0] for text in texts)
    prefix = len(commonprefix(list(texts))) if differ else 0  # noqa: RUF071 characters are compared
    start = max(0, prefix - _KEPT_BEFORE)
    while 0 < start < prefix and texts[0][start - 1].isalnum():
        start += 1
    all_words = [_WORD.findall(text[start:]) for text in texts]
    words = [own[:MOST_WORDS] for own in all_words]
    first = words[0] if words else []
    lost: set[int] = set()
    marked: list[list[Piece]] = []
    for other in words[1:]:
        own: set[int] = set()
        matcher = SequenceMatcher(None, _keys(first), _keys(other), autojunk=False)
        for kind, a, b, c, d in matcher.get_opcodes():
            if kind != "equal":
                lost |= set(range(a, b))
                own |= set(range(c, d))
        marked.append(_pieces(other, own))
    before = [Piece("… ")] * (start > 0)
    after = [[Piece(" …")] * (len(own) > MOST_WORDS) for own in all_words]
    shown = [_pieces(first, lost), *marked] if words else []
    return [[*before, *pieces, *more] for pieces, more in zip(shown, after, strict=True)]


def _keys(words: Sequence[str]) -> list[str]:
    return [" " if word.isspace() else word.casefold() for word in words]


def _pieces(words: Sequence[str], changed: set[int]) -> list[Piece]:
    """Neighbours with the same mark become one piece; a space between two marked words is marked too."""
    flags = [place in changed and not word.isspace() for place, word in enumerate(words)]
    for place, word in enumerate(words[1:-1], start=1):
        flags[place] = flags[place] or (word.isspace() and flags[place - 1] and flags[place + 1])
    pieces = []
    run = ""
    for place, word in enumerate(words):
        if place and flags[place] != flags[place - 1]:
            pieces.append(Piece(run, "changed" if flags[place - 1] else ""))
            run = ""
        run += word
    if words:
        pieces.append(Piece(run, "changed" if flags[-1] else ""))
    return pieces
