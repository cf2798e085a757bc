"""Which examples make a loss or a gradient that is not finite."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from luthier.errors import TrainingError
from luthier.methods.method import Item

NAMED = 5


def not_finite(what: str, items: Sequence[Item], is_finite: Callable[[Item], bool]) -> TrainingError:
    """The error that says `what`, and names the items that are not finite alone, or all."""
    culprits = [item for item in items if not is_finite(item)] or items
    places = ", ".join(item.where for item in culprits[:NAMED]) + (" ..." if len(culprits) > NAMED else "")
    return TrainingError(
        f"{what}. Examples: {places}",
        fix="look at these examples, or lower train.learning_rate",
    )


def all_finite(tensors: Iterable[torch.Tensor | None]) -> bool:
    """Whether every number of every tensor is finite; None counts as such."""
    return all(bool(torch.isfinite(tensor).all()) for tensor in tensors if tensor is not None)
