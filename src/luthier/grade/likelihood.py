"""Texts that were scored by how likely a model finds them: nothing is graded, and perplexity is added."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from luthier.examples.example import Example
from luthier.grade.score import Score
from luthier.stats.units import ratio_interval, unit_rows


class Likelihood:
    """The grader of rows that bring their `score` along: exp(mean log p) of the tokens of a text."""

    name = "likelihood"
    metric = "probability per token"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """No score: there is no answer to compare."""
        return Score(None, "nothing was asked, so there is no answer to grade")

    def summarise(self, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        """Perplexity over all tokens, exp(- sum log p / tokens), which long texts weigh more in than short.

        Args:
            rows: with `detail`: `logprob` in nats and `tokens`.

        Returns:
            `perplexity`: `value`, `low`, `high` (a 95% bootstrap over texts or their clusters; None where
            they are too few), `tokens`.
        """
        if not rows:
            return {"perplexity": {"value": None, "low": None, "high": None, "tokens": 0}}
        units = unit_rows(clusters, len(rows))
        sums, sizes = (
            np.bincount(units, weights=[sign * row["detail"][key] for row in rows]).astype(np.float64)
            for sign, key in ((-1.0, "logprob"), (1.0, "tokens"))
        )
        low, high = None, None
        if len(sums) > 1:
            low, high, _ = ratio_interval(sums, sizes, confidence=0.95, seed=0, bounds=None)
        return {
            "perplexity": {
                "value": math.exp(sums.sum() / sizes.sum()),
                "low": None if low is None else math.exp(max(0.0, low)),  # no text is more than certain
                "high": None if high is None else math.exp(high),
                "tokens": int(sizes.sum()),
            }
        }
