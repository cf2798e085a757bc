"""`label`: the answer must be one of the labels, and the right one."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from luthier.examples.example import Example
from luthier.grade.score import Score

# What models wrap around a label. Not + - # < > % and the like: "-1", "C#" and ">5" are labels.
WRAPPING = " \t\"'`*_.,;:!?()[]{}“”‘’„«»…。，！？"


class Label:
    """1 when the answer is the reference label after `normalise_label`.

    An answer that is no label at all is wrong, never unscored: whoever uses the model gets it too.
    Its detail says `known: false`, so that wrong labels and rambling can be told apart.

    Args:
        labels: the reference answers, repeats welcome.
    """

    name = "label"
    metric = "accuracy"

    def __init__(self, labels: Iterable[str]) -> None:
        self.labels = frozenset(normalise_label(label) for label in labels)

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer: 1 or 0; detail has the normalised `label` and whether it is `known`."""
        given, expected = normalise_label(answer), normalise_label(reference)
        if not expected:
            return Score(None, "the reference is empty")
        known = given in self.labels or given == expected
        detail = {"label": given[:80], "known": known}
        if given == expected:
            return Score(1.0, None, detail)
        reason = "another label" if known else f"not one of the {len(self.labels)} labels"
        return Score(0.0, reason, detail)


def normalise_label(text: str) -> str:
    """First line with text, in NFKC, case-folded, single-spaced, without surrounding quotes and punctuation.

    A label of nothing but punctuation is kept as it is.

    >>> normalise_label('\\n **"Billing  Issue."** \\nBecause ...')
    'billing issue'
    """
    line = next((line for line in text.splitlines() if line.strip()), "")
    line = " ".join(unicodedata.normalize("NFKC", line).casefold().split())
    return line.strip(WRAPPING) or line
