"""Tempering after training: the mildest scale of the update that is as good on validation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from luthier.errors import TrainingError
from luthier.progress import Show

if TYPE_CHECKING:
    from luthier.forest.logprobs import Model
    from luthier.methods import Item


def temper_adapter(
    model: Model, held: Sequence[Item], general: Sequence[Item], scales: Sequence[float], show: Show
) -> dict[str, Any]:
    """Scale the model's update by the chosen one of `scales`, in place.

    The rule of one standard error (Breiman et al. 1984, section 3.4.3), paired: of the scales whose mean
    validation loss is within one standard error of the lowest, the smallest. A smaller update forgets less.

    Args:
        held: validation items; they chose the epoch too, so their losses estimate nothing.
        general: the base model's own answers, on which the drift of each scale is shown.

    Returns:
        `chosen`; `rows`: per scale `scale`, `validation_loss` (mean over examples of nats per token),
        `above_lowest` with `standard_error` (paired), `drift` (nats per token, None without `general`).

    Raises:
        TrainingError: there are no validation examples.
        ModelError: the update is not a plain low-rank one.
    """
    from luthier.models.temper import temper, tempered

    if not held:
        fix = "raise split.validation, or take train.temper out"
        raise TrainingError("tempering chooses on validation examples, and there are none", fix=fix)
    ordered = sorted(set(scales))
    with show.task("tuned: tempering", len(ordered) + 1) as advance:
        with tempered(model, 0.0):
            before = _losses(model, general)
        advance(1)
        losses, drifts = [], []
        for scale in ordered:
            with tempered(model, scale):
                losses.append(_losses(model, held))
                after = _losses(model, general)
            drifts.append(float((after - before).mean()) if len(before) else None)
            advance(1)
    rows = weigh(ordered, np.array(losses), drifts)
    chosen = choose(rows)
    temper(model, chosen)
    return {"chosen": chosen, "rows": rows}


def weigh(
    scales: Sequence[float], losses: np.ndarray, drifts: Sequence[float | None]
) -> list[dict[str, Any]]:
    """Each scale with how far its loss is above the lowest, and the standard error of that distance.

    Args:
        losses: `[scales, examples]`.
    """
    lowest = losses[int(losses.mean(1).argmin())]
    rows = []
    for scale, own, drift in zip(scales, losses, drifts, strict=True):
        gaps = own - lowest
        error = float(gaps.std(ddof=1) / np.sqrt(len(gaps))) if len(gaps) > 1 else None
        rows.append(
            {
                "scale": scale,
                "validation_loss": float(own.mean()),
                "above_lowest": float(gaps.mean()),
                "standard_error": error,
                "drift": drift,
            }
        )
    return rows


def choose(rows: Sequence[dict[str, Any]]) -> float:
    """The smallest scale within one standard error of the lowest loss."""
    near = [row["scale"] for row in rows if row["above_lowest"] <= (row["standard_error"] or 0.0)]
    return float(min(near))


def _losses(model: Model, items: Sequence[Item]) -> np.ndarray:
    """Loss of each item in nats per trained token, `[items]`."""
    from luthier.forest import score

    sequences = [list(sequence.ids) for item in items for sequence in item.sequences]
    needed = [row for item in items for row in item.flags]
    values = iter(score(model, sequences, needed=needed))
    sums = [sum(float(next(values).sum()) for _ in item.sequences) for item in items]
    return np.array([-total / item.trained_tokens for total, item in zip(sums, items, strict=True)])
