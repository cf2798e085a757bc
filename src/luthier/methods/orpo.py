"""Odds-ratio preference optimization: imitation and preference in one step, without a reference.

With l = mean log-probability per token of an answer, p = exp(l) and odds = p / (1 - p):

    L = - l_w - beta log s(log odds(y_w) - log odds(y_l))

Hong et al. 2024, arXiv 2403.07691, eqs. 3 to 7; `beta` is the paper's lambda (TRL's name). As in the paper
the likelihood is that of the answer alone (TRL counts the prompt too), here the mean over its tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import logsigmoid

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Method
from luthier.methods.preference import Logps, Pairs, gather_pairs, imitation_loss, pair_items

CERTAIN = -1e-6  # an answer that is as good as certain has no finite odds; it gets no more gradient


def log_odds(mean: torch.Tensor) -> torch.Tensor:
    """log(p / (1 - p)) of `mean` = log p, below 0."""
    low = mean.clamp(max=-math.log(2))
    high = mean.clamp(min=-math.log(2), max=CERTAIN)
    rest = torch.where(mean < -math.log(2), torch.log1p(-low.exp()), torch.log(-torch.expm1(high)))
    return mean.clamp(max=CERTAIN) - rest


def orpo_losses(pairs: Pairs, *, beta: float) -> torch.Tensor:
    """The loss of each pair, `[N]`."""
    chosen, rejected = pairs.chosen / pairs.chosen_tokens, pairs.rejected / pairs.rejected_tokens
    return -chosen - beta * logsigmoid(log_odds(chosen) - log_odds(rejected))


@dataclass(frozen=True)
class ORPO(Method):
    """Learns to write the chosen answers and to make the rejected ones less likely than they are."""

    beta: float = 0.1

    name = "orpo"
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
        own = 0.0 if pairs is None else orpo_losses(pairs, beta=self.beta).sum()
        return imitation_loss(items, logps) + own
