"""Where an answer ends: with a mark, as sentences, lists, code and formulas do; at a word; or within one."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence

SENTENCE_WORDS = 8
_MARKS = ".!?…"  # how nearly all answers end
_GOES_ON = (",", "-", "–")
# Words that end no sentence; and those that end a question, a choice or a name all the same.
_NEVER_LAST = frozenset(
    (
        *("the", "an", "and", "or", "but", "because", "its", "their"),
        *("der", "das", "und", "oder", "eine", "mit", "von", "zum", "zur", "weil"),
        *("le", "les", "une", "des", "du", "et", "ou", "avec", "el", "los", "las", "una", "con", "del"),
    )
)
_NO_END = _NEVER_LAST | {"a", "of", "with", "from", "than", "be", "die", "ein", "la", "un", "y"}
_CLOSERS = "\"'”’»›)]}*_`>」』）】"
_LIST_ITEM = re.compile(r"^\s*(?:[-*•|#>]|\d{1,3}[.)]|[a-z][.)])\s?", re.IGNORECASE)
_LEAST_STOPS, _STOPS_SHARE = 2, 0.03  # written questions without a mark have 0.002 of them
_LEAST_ENDED = 20  # show how often words are the beginnings of others by chance
_LEAST_BEGUN, _BEGUN_SHARE, _BEGUN_TIMES = 5, 0.1, 3.0


def is_sentence(answer: str) -> bool:
    """Whether an answer is long enough for a sentence, with a mark at its end."""
    return answer.count(" ") >= SENTENCE_WORDS - 1


def ends(answer: str) -> bool:
    """Whether a text ends as sentences, lists, code and formulas do."""
    text = answer.rstrip()
    if text[-1:] in _MARKS and text:
        return True
    last = text.rsplit("\n", 1)[-1]
    body = last.rstrip(_CLOSERS)
    if len(body) < len(last.rstrip()) or _LIST_ITEM.match(last):
        return True  # something was closed, or a list ends, whose items are no sentences
    kind = unicodedata.category(text[-1:] or " ")
    return (
        kind in ("Po", "Pe", "Pf", "So", "Sm", "Sk", "Sc") and text[-1:] not in ",;&@/\\"
    ) or "://" in last


def stops(answer: str) -> bool:
    """Whether a text stops at a word that ends no sentence, or at a comma."""
    last = _last(answer)
    return last in _NO_END or last.endswith(_GOES_ON)


def _last(answer: str) -> str:
    return answer.casefold().split()[-1]


class Words:
    """The words of many answers, to tell the beginning of a word from a word."""

    def __init__(self, answers: Iterable[str]) -> None:
        self._counts = Counter(word for answer in answers for word in answer.casefold().split())
        self._repeated = sorted(word for word, n in self._counts.items() if n > 1)

    def is_begun(self, answer: str) -> bool:
        """Whether the last word of one of the answers stands nowhere else, and begins one that does."""
        written = _last(answer)
        last = written.rstrip(_CLOSERS + _MARKS)
        if len(last) < 3 or self._counts[last] > (last == written):
            return False
        at = bisect_left(self._repeated, last)
        return at < len(self._repeated) and self._repeated[at].startswith(last)


def are_cut(bare: Sequence[str], ended: Sequence[str], words: Words) -> bool:
    """Whether answers without a mark at their end were cut off; otherwise they are written so.

    Cut answers stop at words that are never last, at more than one of them, or within words, far oftener than
    those with a mark do without it.

    Args:
        bare, ended: answers without a mark at their end, and with one.
        words: of both.
    """
    lasts = [_last(answer) for answer in bare]
    found = ["," if last.endswith(_GOES_ON) else last for last in lasts]
    found = [last for last in found if last == "," or last in _NEVER_LAST]
    if len(set(found)) > 1 and len(found) >= max(_LEAST_STOPS, _STOPS_SHARE * len(bare)):
        return True
    if len(ended) < _LEAST_ENDED:
        return False
    begun = sum(map(words.is_begun, bare))
    usual = sum(map(words.is_begun, ended)) / len(ended)
    return begun >= max(_LEAST_BEGUN, _BEGUN_SHARE * len(bare), _BEGUN_TIMES * usual * len(bare))
