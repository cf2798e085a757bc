"""Inputs and answers that are far longer or shorter than the others."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from luthier.audit.finding import Finding, Material, NotApplicableError, counted
from luthier.examples.example import Example

LEAST_EXAMPLES = 30
DEVIATIONS = 6.0
TIMES = 8.0  # and so many times the middle length: lengths that hardly vary make any other look far
_SPREAD_OF_MAD = 1.4826  # standard deviations in a median absolute deviation of a normal distribution
_NARROWEST = 0.25  # of log lengths: lengths within 28% of each other are not told apart
_SHORT = 20  # characters; a short one among short ones is no fault


def find_length_outliers(material: Material) -> list[Finding]:
    """At most four findings: long and short inputs, long and short answers; score is the largest |z|.

    z is the distance of the logarithm of the length from the median, in robust standard deviations
    (1.4826 times the median absolute deviation; Iglewicz and Hoaglin, 1993), since lengths are spread
    like log-normals. Characters decide; tokens are told too where a model is given.

    Raises:
        NotApplicableError: there are fewer than 30 examples.
    """
    if len(material.all) < LEAST_EXAMPLES:
        raise NotApplicableError(f"{len(material.all)} examples show no usual length, {LEAST_EXAMPLES} would")
    findings = []
    parts = {"answer": [len(example.answer) for example in material.all]}
    if any(example.request for example in material.all):
        parts["input"] = [sum(len(m.content) for m in example.request) for example in material.all]
    if material.answer_kind == "label":
        del parts["answer"]  # a label has the length that it has
    for part, lengths in parts.items():
        scores, middle = robust_scores(lengths)
        for word, sign in (("long", 1.0), ("short", -1.0)):
            places = [
                m
                for m, (z, length) in enumerate(zip(scores, lengths, strict=True))
                if sign * z > DEVIATIONS and _is_far(length, middle)
            ]
            if places:
                findings.append(_finding(material, part, word, places, lengths, middle, scores))
    return findings


def robust_scores(lengths: Sequence[int]) -> tuple[list[float], float]:
    """z of each log length, and the median length."""
    logs = [math.log1p(length) for length in lengths]
    middle = statistics.median(logs)
    spread = _SPREAD_OF_MAD * statistics.median(abs(value - middle) for value in logs)
    return [(value - middle) / max(spread, _NARROWEST) for value in logs], math.expm1(middle)


def _is_far(length: int, middle: float) -> bool:
    longer, shorter = max(length, middle) + 1, min(length, middle) + 1
    return longer > TIMES * shorter and max(length, middle) > TIMES * _SHORT


def _finding(
    material: Material,
    part: str,
    word: str,
    places: Sequence[int],
    lengths: Sequence[int],
    middle: float,
    scores: Sequence[float],
) -> Finding:
    farthest = max(places, key=lambda m: abs(scores[m]))
    members = tuple(material.all[m] for m in places)
    what = f"{counted(len(places), part)} far {'longer' if word == 'long' else 'shorter'} than the others"
    sizes = f"{lengths[farthest]:,} characters, where half have at most {middle:,.0f}"
    if word == "short":
        sizes = f"{lengths[farthest]:,} characters, where half have {middle:,.0f} or more"
    advice = {
        "long": "see whether several texts run together, and shorten them; they cost most of the time",
        "short": "see whether something is missing, and leave them out if so",
    }
    return Finding(
        check="length_outlier",
        severity="info",
        score=abs(scores[farthest]),
        message=f"{what}: {sizes}{_in_tokens(material, material.all[farthest])}",
        fix=advice[word],
        examples=members,
    )


def _in_tokens(material: Material, farthest: Example) -> str:
    if material.tokens is None:
        return ""
    return f" ({material.tokens(farthest):,} tokens with its request and answer)"
