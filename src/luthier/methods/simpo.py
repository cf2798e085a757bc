"""Simple preference optimization: mean log-probabilities as rewards, a margin, no reference.

    L = - log s(beta (log p(y_w|x) / |y_w| - log p(y_l|x) / |y_l|) - gamma)

Meng et al. 2024, arXiv 2405.14734, eq. 6; TRL calls gamma `simpo_gamma`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Method
from luthier.methods.preference import Logps, Pairs, gather_pairs, imitation_loss, pair_items


def simpo_losses(pairs: Pairs, *, beta: float, gamma: float) -> torch.Tensor:
    """The loss of each pair, `[N]`."""
    gap = pairs.chosen / pairs.chosen_tokens - pairs.rejected / pairs.rejected_tokens
    return -logsigmoid(beta * gap - gamma)


@dataclass(frozen=True)
class SimPO(Method):
    """Learns to make the chosen answer likelier per token than the rejected one, by a margin."""

    beta: float = 2.0
    gamma: float = 1.0

    name = "simpo"
    pace = 0.1
    needs_reference = False

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per rejected answer. Raises DataError where an example rejects none."""
        return pair_items(examples, chat, system)

    def total(self, items: Sequence[Item]) -> float:
        """Pairs, and items that are only imitated."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Summed loss of the pairs, and mean negative log-likelihood of each other item."""
        pairs = gather_pairs(items, logps, reference=False)
        own = 0.0 if pairs is None else simpo_losses(pairs, beta=self.beta, gamma=self.gamma).sum()
        return imitation_loss(items, logps) + own
