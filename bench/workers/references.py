"""What losses need of the model before training: log-probabilities with the adapter off."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft import PeftModel

from luthier.forest import score
from luthier.methods import Item

References = Mapping[str, Sequence[torch.Tensor]]


def reference_logps(model: PeftModel, items: Sequence[Item]) -> dict[str, list[torch.Tensor]]:
    """Log-probabilities of the trained tokens of every sequence, by the item's `where`."""
    sequences = [sequence for item in items for sequence in item.sequences]
    needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in sequences]
    with torch.inference_mode(), model.disable_adapter():
        values = iter(score(model, [list(sequence.ids) for sequence in sequences], needed=needed))
    return {item.where: [next(values) for _ in item.sequences] for item in items}
