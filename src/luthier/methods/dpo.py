"""Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290, eq. 7) and its variants.

With log-ratios r = log p(y|x) - log p_ref(y|x) of the chosen (w) and the rejected answer (l):

    sigmoid       - (1 - e) log s(beta (r_w - r_l)) - e log s(-beta (r_w - r_l))
    sigmoid_norm  the same with each r divided by the tokens of its answer
    ipo           (r_w / |y_w| - r_l / |y_l| - 1 / (2 beta))^2
    hinge         max(0, 1 - beta (r_w - r_l))

s is the logistic function. e is `label_smoothing`, the share of pairs that may be the wrong way round
(conservative DPO, https://ericmitchell.ai/cdpo.pdf). IPO is eq. 17 of Azar et al. (arXiv 2310.12036) with
tau = `beta`; the paper writes sums, but its results come from means over tokens (its authors told TRL), which
are taken here. `hinge` is SLiC's (arXiv 2305.10425). `reference_free` takes a uniform reference: r = log p.
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
from luthier.recipe.method_options import LossType


def dpo_losses(
    pairs: Pairs, *, beta: float, loss_type: LossType = "sigmoid", label_smoothing: float = 0.0
) -> torch.Tensor:
    """The loss of each pair, `[N]`."""
    chosen = pairs.chosen - pairs.reference_chosen
    rejected = pairs.rejected - pairs.reference_rejected
    if loss_type in ("ipo", "sigmoid_norm"):
        chosen, rejected = chosen / pairs.chosen_tokens, rejected / pairs.rejected_tokens
    gap = chosen - rejected
    if loss_type == "ipo":
        return (gap - 1 / (2 * beta)) ** 2
    if loss_type == "hinge":
        return torch.relu(1 - beta * gap)
    right, wrong = logsigmoid(beta * gap), logsigmoid(-beta * gap)
    return -(1 - label_smoothing) * right - label_smoothing * wrong


@dataclass(frozen=True)
class DPO(Method):
    """Learns to prefer the chosen answer, without leaving the model it starts from more than it must."""

    beta: float = 0.1
    loss_type: LossType = "sigmoid"
    label_smoothing: float = 0.0
    reference_free: bool = False

    name = "dpo"
    pace = 0.1

    @property
    def needs_reference(self) -> bool:
        """Whether items need the log-probabilities of the model before training."""
        return not self.reference_free

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per rejected answer. Raises DataError where an example rejects none."""
        return pair_items(examples, chat, system)

    def total(self, items: Sequence[Item]) -> float:
        """Pairs, and items that are only imitated."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Summed loss of the pairs, and mean negative log-likelihood of each other item."""
        loss = imitation_loss(items, logps)
        pairs = gather_pairs(items, logps, reference=self.needs_reference)
        if pairs is None:
            return loss
        own = dpo_losses(
            pairs, beta=self.beta, loss_type=self.loss_type, label_smoothing=self.label_smoothing
        )
        return loss + own.sum()
