"""Supervised fine-tuning: the negative log-likelihood of the assistant's tokens.

    L = - sum_i sum_t w_it log p(y_it | y_i<t) / sum_i sum_t w_it

with w = 1 on the assistant's tokens and the turn's terminator, 0 elsewhere (prompt masking). Every
trained token counts the same, whichever example or micro-batch it is in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item


class SFT:
    """Learns to write the answers of the examples."""

    name = "sft"

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per example, one sequence per trained assistant turn."""
        return [Item(example.where, tuple(chat.training(example, system))) for example in examples]

    def total(self, items: Sequence[Item]) -> float:
        """Trained tokens."""
        return float(sum(sum(sequence.weights) for item in items for sequence in item.sequences))

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed negative log-likelihood, float32 scalar."""
        return -torch.cat([values for sequences in logps for values in sequences]).sum()
