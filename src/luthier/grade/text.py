"""Graders of plain text: `string_check` (all or nothing) and `text_similarity` (chrF)."""

from __future__ import annotations

from sacrebleu.metrics.chrf import CHRF

from luthier.examples.example import Example
from luthier.grade.score import Score


class StringCheck:
    """1 when answer and reference are the same text, outer whitespace aside; case and inner space count."""

    name = "string_check"
    metric = "exact match"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer: 1 or 0."""
        return Score(1.0) if answer.strip() == reference.strip() else Score(0.0, "not the reference text")


class TextSimilarity:
    """chrF of the answer, from 0 to 1: F2 of character 1- to 6-grams (Popovic 2015, sacrebleu's defaults)."""

    name = "text_similarity"
    metric = "text similarity (chrF)"

    def __init__(self) -> None:
        self._chrf = CHRF()

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer; a reference without text leaves it unscored."""
        if not reference.strip():
            return Score(None, "the reference is empty")
        value = float(self._chrf.sentence_score(answer, [reference]).score) / 100
        return Score(min(1.0, value))
