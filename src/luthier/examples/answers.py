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
    if not answers:
        return "text"
    if 2 * sum(parse_structure(answer) is not None for answer in answers) >= len(answers):
        return "json"
    short = [answer for answer in answers if len(answer) <= LABEL_CHARACTERS and "\n" not in answer.strip()]
    distinct = len({normalise(answer) for answer in short})
    few = distinct <= max(2, len(answers) // LABEL_EXAMPLES)
    return "label" if 10 * len(short) >= 9 * len(answers) and few else "text"


def parse_structure(answer: str) -> dict[str, Any] | list[Any] | None:
    """The JSON object or list that an answer is, or None."""
    if answer.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict | list) else None
