"""Whether two answers of one model are the same, in the eyes of the grader but without the truth."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from luthier.examples.example import Example
from luthier.grade.answer_json import NotJson, parse_answer
from luthier.grade.json_fields import same_value
from luthier.grade.score import Grader
from luthier.grade.text import TextSimilarity

GRADED = ("label", "string_check", "numeric", "text_similarity")  # read the two texts alone
JSON = ("json_fields", "json_schema")
NOWHERE = Example("", (), "", 0)  # the graders used here read nothing of the example

Alike = Callable[[str, str], float]  # a sampled answer, the greedy one -> 0 to 1


def measure_alike(grader: Grader) -> Alike:
    """How alike a sampled answer and the greedy one are, from 0 (another answer) to 1 (the same).

    - `label`, `string_check`, `numeric`: the same where the grader would take one for the other.
    - `json_fields`, `json_schema`: the same JSON value, however it is written.
    - `text_similarity`: the similarity of the recipe's own metric.
    - A rule of the user's own or a judge may look at the reference, and a confidence that knows the right
      answer is worth nothing: JSON is compared as JSON, other answers by chrF.
    """
    if grader.name in GRADED:
        return lambda sample, greedy: _graded(grader, sample, greedy)
    if grader.name in JSON:
        return lambda sample, greedy: float(_same_json(sample, greedy))
    similarity = TextSimilarity()

    def alike(sample: str, greedy: str) -> float:
        if _is_json(greedy):
            return float(_same_json(sample, greedy))
        return _graded(similarity, sample, greedy)

    return alike


def measure_agreement(samples: Sequence[str], greedy: str, alike: Alike) -> float:
    """The mean of how alike the samples are to the greedy answer, in [0, 1].

    Raises:
        ValueError: there is no sample.
    """
    if not samples:
        raise ValueError("no sampled answer to compare with")
    return sum(alike(sample, greedy) for sample in samples) / len(samples)


def _graded(grader: Grader, sample: str, greedy: str) -> float:
    """The sample's score with the greedy answer as reference; by their texts where that is no reference."""
    value = grader.grade(sample, greedy, NOWHERE).value
    return float(sample.strip() == greedy.strip()) if value is None else value


def _same_json(sample: str, greedy: str) -> bool:
    """Two texts that are no JSON are the same where they are the same text."""
    try:
        value = parse_answer(greedy)
    except NotJson:
        return sample.strip() == greedy.strip()
    try:
        return same_value(parse_answer(sample), value)
    except NotJson:
        return False


def _is_json(text: str) -> bool:
    try:
        parse_answer(text)
    except NotJson:
        return False
    return True
