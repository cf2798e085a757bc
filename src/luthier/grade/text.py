"""Graders of plain text: `string_check` (all or nothing) and `text_similarity` (chrF, BLEU, ROUGE)."""

from __future__ import annotations

import importlib
import unicodedata
from collections.abc import Callable, Mapping
from itertools import groupby
from typing import Any

from luthier.errors import RecipeError
from luthier.examples.example import Example
from luthier.grade.score import Score
from luthier.recipe.grader_options import SimilarityMetric

NOT_REFERENCE = "not the reference text"
Similarity = Callable[[str, str], float]  # answer, reference -> 0 to 1


class StringCheck:
    """1 when answer and reference are the same text, outer whitespace aside; inner space counts.

    Args:
        ignore_case: whether case does not count; it is folded, so that ß and SS are the same.
    """

    name = "string_check"

    def __init__(self, *, ignore_case: bool = False) -> None:
        self.metric = "exact match, any case" if ignore_case else "exact match"
        self._fold: Callable[[str], str] = str.casefold if ignore_case else str

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer: 1 or 0."""
        same = self._fold(answer.strip()) == self._fold(reference.strip())
        return Score(1.0) if same else Score(0.0, NOT_REFERENCE)


class TextSimilarity:
    """Similarity of answer and reference, from 0 to 1, as the metric's own library computes it.

    - `chrf`: F2 of character 1- to 6-grams (Popovic 2015, sacrebleu's defaults).
    - `bleu`: sentence BLEU with effective order and exponential smoothing (Papineni et al. 2002;
      Chen and Cherry 2014, method 3), sacrebleu's 13a words.
    - `rouge_1`, `rouge_2`, `rouge_l`: F1 of words, of pairs, of the longest common subsequence
      (Lin 2004, rouge-score), without stemming, over `rouge_words`.

    Raises:
        RecipeError: ROUGE's package is not installed.
    """

    name = "text_similarity"

    def __init__(self, metric: SimilarityMetric = "chrf") -> None:
        self.metric = f"text similarity ({METRIC_NAMES[metric]})"
        self._similarity = {"chrf": _chrf, "bleu": _bleu}.get(metric, lambda: _rouge(metric))()

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer; a reference without text leaves it unscored."""
        if not reference.strip():
            return Score(None, "the reference is empty")
        return Score(min(1.0, max(0.0, self._similarity(answer, reference))))


METRIC_NAMES: Mapping[SimilarityMetric, str] = {
    "chrf": "chrF",
    "bleu": "BLEU",
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
}


def rouge_words(text: str) -> list[str]:
    """Runs of letters, marks and digits in lower case; every Han, kana and hangul character alone.

    For English this is rouge-score's own tokenizer. Its own drops all letters but a to z, which would
    score a right answer in Greek or Chinese 0.
    """
    words: list[str] = []
    for kind, run in groupby(unicodedata.normalize("NFC", text.lower()), key=_word_kind):
        if kind == "alone":
            words += run
        elif kind == "word":
            words.append("".join(run))
    return words


def _word_kind(character: str) -> str:
    if "\u3040" <= character <= "\u9fff" or "\uac00" <= character <= "\ud7a3" or character >= "\U00020000":
        return "alone" if character.isalnum() else "between"
    return "word" if unicodedata.category(character)[0] in "LMN" else "between"


def _chrf() -> Similarity:
    from sacrebleu.metrics.chrf import CHRF

    chrf = CHRF()
    return lambda answer, reference: float(chrf.sentence_score(answer, [reference]).score) / 100


def _bleu() -> Similarity:
    from sacrebleu.metrics.bleu import BLEU

    bleu = BLEU(effective_order=True)
    return lambda answer, reference: float(bleu.sentence_score(answer, [reference]).score) / 100


def _rouge(metric: SimilarityMetric) -> Similarity:
    try:
        rouge: Any = importlib.import_module("rouge_score.rouge_scorer")  # an extra, without types
    except ImportError:
        raise RecipeError(
            f"metric {metric} needs the package rouge-score, which is not installed",
            fix="pip install 'luthier[rouge]', or use `metric: chrf`",
        ) from None
    name = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}[metric]
    scorer = rouge.RougeScorer([name], tokenizer=_Words())
    return lambda answer, reference: float(scorer.score(reference, answer)[name].fmeasure)


class _Words:
    """`rouge_words` in the form that rouge-score takes."""

    def tokenize(self, text: str) -> list[str]:
        return rouge_words(text)
