"""Whether two requests say the same in slightly other words.

Character n-grams find texts that look alike; whether "capital of France" asks the same as "capital of
Spain" they cannot tell. So two texts that look alike are compared word by word, after what carries no
meaning is gone: courtesies ("hi", "could you tell me"), contractions, numbers as words. What is left over
on either side decides:

- slips of the pen and endings (`parcle`, `parcels`) are no difference;
- a number or a negation on one side alone makes another request, and so do two words that changed places;
- other words count by how much they tell: rare words of the file a lot, its everyday words little.

There is no dictionary of synonyms, so a request in wholly other words is not recognised.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence

AGREEMENT = 0.85
LONG_WORDS = 100  # from here on a text is a document: one number of many does not make it another one
MOST_SLIPS = 8  # with more words than these left over on both sides, none is looked at letter by letter
BLOCK_WORDS = 3  # a clause that was moved is at least this long
RARE_WORD_TEXTS = 2
_PRIOR_TEXTS = 50  # words of a small file are taken to be as rare as they would be in one of this size
_FILLER = frozenset(
    (
        *("a", "an", "the", "please", "pls", "plz", "kindly", "hi", "hello", "hey", "dear", "thanks", "thx"),
        *("just", "really", "actually", "basically", "simply", "exactly", "then", "so", "ok", "okay", "well"),
        *("oh", "um", "uh", "btw", "bitte", "danke", "hallo", "por", "favor", "gracias", "hola", "merci"),
        *("bonjour", "eigentlich", "mal", "svp", "maybe", "perhaps", "also", "now"),
    )
)
_YOU = r"(?:can|could|would|will) (?:you|u|anyone|anybody|someone|somebody)(?: please| kindly| possibly)?"
_ASK = r"(?:tell|help|explain to|show|advise|inform|let) me(?: know)?(?: out)?(?: here)?(?: with this| with)?"
_OPENING = re.compile(
    r"(?:(?:hi|hello|hey|dear)(?: there| all| team| everyone| sir| madam)?"
    rf"|good (?:morning|afternoon|evening|day)|{_YOU} {_ASK}|{_YOU} (?:tell|explain)|(?:please )?{_ASK}"
    r"|(?:do|does) (?:you|u|anyone|anybody) (?:happen to )?know"
    r"|(?:i|we) (?:want|need|would like|wanted) to (?:know|ask|find out)|i'd like to (?:know|ask)"
    r"|i (?:was|am) wondering|i'm wondering|i wonder|just wondering"
    r"|i have (?:a|one) (?:quick |short )?question"
    r"|(?:a |one )?(?:quick|short|simple) question|(?:my )?question|sorry(?: to bother(?: you)?)?|excuse me"
    r"|ok|okay|so|well|please|pls) (?=.)"
)
_CLOSING = re.compile(
    r"(?<=.) (?:thank you|thanks|thx|many thanks|cheers|please|pls|in advance|so much|very much|a lot"
    r"|(?:any|all|your) (?:help|advice|answer|info|information)(?: is| would be| will be)?"
    r"(?: much| greatly| very)? (?:welcome|appreciated)"
    r"|(?:much )?appreciated|(?:kind|best) regards|regards|asap|let me know)$"
)
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen"),
    *("eighteen", "nineteen", "twenty"),
)
_NUMBERS = {word: str(number) for number, word in enumerate(_NUMBER_WORDS)}
_NOT = {"not", "no", "never", "without", "none", "neither", "nor", "non", "nicht", "kein", "keine", "ohne"}
_ENDINGS = ("s", "es", "ed", "d", "ing", "ly", "'s", "n", "en")
_WITH_IS = {"what", "who", "where", "how", "when", "why", "that", "it", "there", "here", "he", "she"}
_SHORT = {"'m": "am", "'ve": "have", "'ll": "will", "'re": "are", "'d": "would"}
_SPECIAL = {
    **{"cannot": ["can", "not"], "can't": ["can", "not"], "cant": ["can", "not"], "won't": ["will", "not"]},
    **{"shan't": ["shall", "not"], "im": ["i", "am"], "ive": ["i", "have"], "u": ["you"], "ur": ["your"]},
    **{f"{word}nt": [word, "not"] for word in ("do", "does", "did", "is", "are", "was", "would", "should")},
    **{f"{word}s": [word, "is"] for word in ("what", "where", "how", "that")},
}


def core_words(words: Sequence[str]) -> list[str]:
    """The words of a normalised text without courtesies, contractions written out, numbers as digits."""
    text = " ".join(words)
    stripped = _without_courtesies(text)
    found = [plain for word in stripped.split() for plain in _written_out(word)]
    return [word for word in found if word not in _FILLER] or found or list(words)


def _without_courtesies(text: str) -> str:
    while match := _OPENING.match(text):
        text = text[match.end() :]
    while match := _CLOSING.search(text):
        text = text[: match.start()]
    return text


def _written_out(word: str) -> Iterator[str]:
    if number := _NUMBERS.get(word):
        yield number
        return
    if special := _SPECIAL.get(word):
        yield from special
        return
    if "'" not in word and "’" not in word:
        yield word
        return
    word = word.replace("’", "'")
    if word in _SPECIAL:
        yield from _SPECIAL[word]
    elif word.endswith("n't"):
        yield from (word[:-3], "not")
    elif word.endswith("'s") and word[:-2] in _WITH_IS:
        yield from (word[:-2], "is")
    else:
        at = word.rfind("'")
        yield from (word[:at], _SHORT[word[at:]]) if at > 0 and word[at:] in _SHORT else (word,)


class Vocabulary:
    """How much each word of a file tells.

    Args:
        texts: the words of each distinct text.
    """

    def __init__(self, texts: Sequence[Sequence[str]]) -> None:
        self._occurrences = Counter(word for words in texts for word in set(words))
        self._texts = len(texts)
        self._weights: dict[str, float] = {}

    def weight(self, word: str) -> float:
        """The rarer, the more: the square of its information, since what is asked hangs on rare words."""
        known = self._weights.get(word)
        if known is None:
            texts = self._texts + _PRIOR_TEXTS
            known = self._weights[word] = math.log(1 + texts / max(1, self._occurrences[word])) ** 2
        return known

    def is_slip(self, a: str, b: str) -> bool:
        """Whether one of two words is the other misspelt: a slip away, and hardly to be found elsewhere."""
        return min(self._occurrences[a], self._occurrences[b]) <= RARE_WORD_TEXTS and one_slip(a, b)


def one_slip(a: str, b: str) -> bool:
    """Whether one letter was left out, put in, changed or swapped with the next, in words of four or more."""
    if min(len(a), len(b)) < 4 or abs(len(a) - len(b)) > 1 or any(c.isdigit() for c in a + b):
        return False
    start = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
    a, b = a[start:], b[start:]
    swapped = len(a) > 1 and a[1] + a[0] + a[2:] == b
    return swapped or a[1:] == b or a == b[1:] or a[1:] == b[1:]


def agreement(a: Sequence[str], b: Sequence[str], vocabulary: Vocabulary) -> float:
    """How far two requests say the same: 1 for the same words, 0 where a difference or a third decides.

    Args:
        a, b: core words of the two.
    """
    if a == b:
        return 1.0
    words_a, words_b = set(a), set(b)
    if 3 * len(words_a & words_b) < 2 * max(len(words_a), len(words_b)):
        return 0.0
    only_a, only_b, spelt = _left_over(a, b, vocabulary)
    long = min(len(a), len(b)) >= LONG_WORDS
    if not long and (_decides(only_a, only_b) or _decides(only_b, only_a)):
        return 0.0
    total = sum(map(vocabulary.weight, a)) + sum(map(vocabulary.weight, b))
    found = 1.0 - 2 * _cost(only_a, only_b, vocabulary) / total
    if found < AGREEMENT or long:
        return max(0.0, found)
    return found if _same_order(a, [spelt.get(word, word) for word in b]) else 0.0


def _left_over(
    a: Sequence[str], b: Sequence[str], vocabulary: Vocabulary
) -> tuple[list[str], list[str], dict[str, str]]:
    """Words of one that the other lacks, in any order; words of `b` that are those of `a` spelt otherwise."""
    only_a, only_b = _without(a, b), _without(b, a)
    spelt: dict[str, str] = {}
    if min(len(only_a), len(only_b)) > MOST_SLIPS:
        return only_a, only_b, spelt
    for word in list(only_a):
        other = next((w for w in only_b if _same_word(word, w, vocabulary)), None)
        if other is not None:
            only_a.remove(word)
            only_b.remove(other)
            spelt[other] = word
    return only_a, only_b, spelt


def _without(words: Sequence[str], others: Sequence[str]) -> list[str]:
    kept = Counter(words)
    kept.subtract(others)
    return [word for word, times in kept.items() for _ in range(times)]


def _same_word(a: str, b: str, vocabulary: Vocabulary) -> bool:
    short, long = sorted((a, b), key=len)
    if len(short) > 2 and short.isalpha() and long[: len(short)] == short and long[len(short) :] in _ENDINGS:
        return True
    return vocabulary.is_slip(a, b)


def _decides(here: Sequence[str], there: Sequence[str]) -> bool:
    """Whether a word that one side alone has makes it another request."""
    digits = any(any(c.isdigit() for c in word) and word != "1" for word in here)
    return digits or sum(word in _NOT for word in here) > sum(word in _NOT for word in there)


def _cost(only_a: Sequence[str], only_b: Sequence[str], vocabulary: Vocabulary) -> float:
    """Weight of what is left over, halved for two sides; of two words in one place the lesser."""
    left = sorted((vocabulary.weight(word) for word in only_a), reverse=True)
    right = sorted((vocabulary.weight(word) for word in only_b), reverse=True)
    paired = [min(x, y) for x, y in zip(left, right, strict=False)]
    rest = left[len(right) :] or right[len(left) :]
    return sum(paired) + sum(rest) / 2


def _same_order(a: Sequence[str], b: Sequence[str]) -> bool:
    """Whether what was moved are clauses, and not single words that changed places."""
    count_a, count_b = Counter(a), Counter(b)
    a, b = ([word for word in words if count_a[word] == count_b[word]] for words in (a, b))
    if a == b:
        return True
    blocks = list(_blocks(a, b))
    return len(blocks) == 2 < len(a) or all(len(block) >= BLOCK_WORDS for block in blocks)


def _blocks(a: Sequence[str], b: Sequence[str]) -> Iterator[Sequence[str]]:
    """Stretches of `a` that stand in `b` as they are, from left to right, the longest first of each."""
    at = 0
    while at < len(a):
        best = 1
        for start in (place for place, word in enumerate(b) if word == a[at]):
            run = 1
            while at + run < len(a) and start + run < len(b) and a[at + run] == b[start + run]:
                run += 1
            best = max(best, run)
        yield a[at : at + best]
        at += best
