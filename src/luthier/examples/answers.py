"""What kind of answers a set of examples has: labels, JSON, or free text."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal, get_args

from luthier.examples.example import Example
from luthier.examples.wording import normalise

AnswerKind = Literal["label", "json", "text"]
ANSWER_KINDS: tuple[AnswerKind, ...] = get_args(AnswerKind)
LABEL_CHARACTERS = 60
LABEL_EXAMPLES = 3


def kind_of_answers(examples: Sequence[Example]) -> AnswerKind:
    """A guess from the answers alone, for those who did not say.

    `json` when at least half of the answers are JSON objects or lists; `label` when at least nine in
    ten answers are short (60 characters) and the distinct ones are few: no more than one for every
    three examples, or two; `text` otherwise.
    """
    answers = [example.answer for example in examples]
    structures = sum(parse_structure(answer) is not None for answer in answers)
    short = [answer for answer in answers if is_short(answer)]
    distinct = len({normalise(answer) for answer in short})
    return kind_by_counts(len(answers), structures=structures, short=len(short), distinct=distinct)


def kind_by_counts(answers: int, *, structures: int, short: int, distinct: int) -> AnswerKind:
    """The guess of `kind_of_answers` from counts; `distinct` are the short answers that differ."""
    if not answers:
        return "text"
    if 2 * structures >= answers:
        return "json"
    few = distinct <= max(2, answers // LABEL_EXAMPLES)
    return "label" if 10 * short >= 9 * answers and few else "text"


def is_short(answer: str) -> bool:
    """Whether an answer is short enough for a label."""
    return len(answer) <= LABEL_CHARACTERS and "\n" not in answer.strip()


def parse_structure(answer: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or list that an answer is, or None."""
    if answer.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
