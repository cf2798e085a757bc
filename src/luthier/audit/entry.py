"""What is remembered of one example of a file that is too large to hold: hashes, lengths and flags."""

from __future__ import annotations

import enum
import functools
import json

from luthier.audit.copied_answer import is_copied
from luthier.audit.exact_duplicate import copy_key
from luthier.audit.inconsistent_answers import keys_of
from luthier.audit.label_conflict import LONG_ANSWER_WORDS
from luthier.audit.refusal import first_words, is_long, last_words, talks
from luthier.audit.sentence_ends import ends, is_sentence, stops
from luthier.audit.unfinished_answer import open_answer
from luthier.examples.answers import is_short, parse_structure
from luthier.examples.example import Example
from luthier.examples.wording import normalise, own_system


class Flag(enum.IntEnum):
    """What an example is, as bits."""

    WANTED = 1
    ASKED = 2
    PREFERRED = 4  # to a worse answer
    LONG = 8  # an answer that may vary
    SHORT = 16  # an answer that may be a label
    SPACED = 32  # an answer with spaces at an end
    COPIED = 64  # an answer that repeats the input
    OPEN = 128  # an answer with an open bracket or block of code
    SENTENCE = 256  # an answer with a mark at its end, as a rule
    ENDED = 512  # an answer with such an end
    STOPS = 1024  # an answer without, at a word that ends no sentence
    TALKS = 2048  # an answer with small talk at its start


COLUMNS = (
    *("request", "asked", "copy", "system", "answer", "letters", "structure", "keys"),
    *("first", "last", "characters", "words"),
)


def entry(example: Example, request: str, answer: str) -> tuple[int, ...]:
    """A number for each of `COLUMNS`.

    Args:
        request, answer: the normalised ones.
    """
    written = example.answer
    system = own_system(example)
    structure = parse_structure(written)
    keys = keys_of(structure)
    asked = (_normalised(system) if system else "", request)
    long = is_long(answer)
    return (
        hash(request),
        hash(asked),
        hash((request, *copy_key(example, answer))),
        0 if system is None else hash((system,)),
        hash(answer),
        hash(written.strip()),
        0 if structure is None else hash(json.dumps(structure, sort_keys=True)),
        0 if keys is None else hash((keys,)),
        hash(first_words(answer)) if long else 0,
        hash(last_words(answer)) if long else 0,
        len(written),
        len(written.split()),
    )


def flags_of(example: Example, words: int) -> int:
    """The `Flag`s of an example whose answer has so many words."""
    written = example.answer
    flags: int = _WANTED if example.wanted else 0
    if len(example.messages) > 1:
        flags |= _ASKED
    if example.rejected:
        flags |= _PREFERRED
    if is_short(written):
        flags |= _SHORT
    if words > LONG_ANSWER_WORDS:
        flags |= _LONG
    if written != written.strip():
        flags |= _SPACED
    if is_copied(example):
        flags |= _COPIED
    if open_answer(example) is not None:
        flags |= _OPEN
    if talks(written):
        flags |= _TALKS
    if ends(written):
        flags |= _ENDED
    if is_sentence(written):
        flags |= _SENTENCE
        if not flags & _ENDED and stops(written):
            flags |= _STOPS
    return flags


_WANTED, _ASKED, _PREFERRED, _LONG, _SHORT, _SPACED, _COPIED, _OPEN, _SENTENCE, _ENDED, _STOPS, _TALKS = map(
    int, Flag
)
_normalised = functools.lru_cache(maxsize=64)(normalise)  # one system prompt stands in many examples
