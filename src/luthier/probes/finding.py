"""What a paired loss amounts to: a non-inferiority decision with a margin stated beforehand."""

from __future__ import annotations

from typing import Literal

Finding = Literal["worse", "within_margin", "not_powered", "failed"]


def judge_loss(loss: float | None, low: float | None, high: float | None, margin: float) -> Finding:
    """Decide from the 90% two-sided interval of a loss (positive is worse): two one-sided 5% tests.

    Returns:
        `within_margin` when a loss of `margin` or more is ruled out; `worse` when the loss is real
        (its interval lies above 0) and its estimate is at least the margin; `not_powered` when the
        items cannot tell; `failed` when the loss is undefined.
    """
    if loss is None or low is None or high is None:
        return "failed"
    if high < margin:
        return "within_margin"
    return "worse" if loss >= margin and low > 0 else "not_powered"
