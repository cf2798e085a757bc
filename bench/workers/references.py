"""Reference log-probabilities of preference pairs, with the adapter off."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel

from luthier.forest import score
from luthier.methods import Item


def reference_logps(model: PeftModel, items: Sequence[Item]) -> dict[str, tuple[float, float]]:
    """Summed log-probabilities of both answers of every pair, by `where`."""
    sequences = [sequence for item in items for sequence in item.sequences]
    needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
    with torch.inference_mode(), model.disable_adapter():
        values = score(model, [list(sequence.ids) for sequence in sequences], needed=needed)
    sums = iter([float(value.sum()) for value in values])
    return {item.where: (next(sums), next(sums)) for item in items}
