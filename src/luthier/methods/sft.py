"""Supervised fine-tuning: the negative log-likelihood of the assistant's tokens.

    L = - sum_i sum_t w_it log p(y_it | y_i<t) / sum_i sum_t w_it

with w = 1 on the assistant's tokens and the turn's terminator, 0 elsewhere (prompt masking), unless the
items give other weights. Tokens of one weight count the same, whichever example or micro-batch they are in.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Method, refuse_unwanted


class SFT(Method):
    """Learns to write the answers of the examples."""

    name = "sft"
    needs_reference = False

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per example, one sequence per trained assistant turn.

        Raises:
            DataError: as `ChatFormat.training`, or an answer should not be given.
        """
        refuse_unwanted(examples)
        return [Item(example.where, tuple(chat.training(example, system))) for example in examples]

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the trained tokens."""
        return float(sum(sum(item.weights) for item in items))

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Weighted sum of negative log-likelihoods, float32 scalar."""
        values = torch.cat([values for sequences in logps for values in sequences])
        weights = [weight for item in items for weight in item.weights]
        return -(values * torch.tensor(weights, dtype=values.dtype, device=values.device)).sum()

    def losses(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> list[float]:
        """Weighted mean of each item's negative log-likelihoods, in nats."""
        together = torch.cat([values for sequences in logps for values in sequences])
        values = iter(together.tolist())  # one transfer from the device
        means = []
        for item in items:
            weights = item.weights
            means.append(-sum(weight * next(values) for weight in weights) / sum(weights))
        return means
