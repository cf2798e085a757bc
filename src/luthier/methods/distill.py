"""Distillation: a student imitates a teacher (Hinton et al. 2015, arXiv 1503.02531).

With q_t the teacher's distribution of the next token and p_t the student's, each the softmax of logits / T,

    L = sum_t w_t KL(q_t || p_t) / sum_t w_t,    KL(q || p) = sum_v q_v (log q_v - log p_v)

with w and the trained tokens t of SFT (`sft.py`). This forward KL makes the student cover all that the
teacher might say; its gradient is that of the cross-entropy, d / d z = (p - q) / T. Hinton multiplies by T^2,
which is left out here, as TRL does. On what texts the two are compared is `source`, in a recipe `from`:

    examples   the answers of the examples
    own        answers that the student writes itself, at temperature T, at every step: GKD
    samples    answers that the teacher wrote at temperature T; no distributions, L is SFT's loss

Generalized knowledge distillation (Agarwal et al. 2023, arXiv 2306.13649) mixes own answers and examples by a
share lambda and interpolates between forward and reverse KL by beta. `own` is lambda = 1 with the forward KL
(beta = 0 in TRL), and as there no gradient goes through the sampling. Distributions need one tokenizer.

Items without a teacher (replayed answers, canaries) are imitated: - log p(y_t) in the place of the KL.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Method
from luthier.methods.online import prompt_items
from luthier.methods.sft import SFT


@dataclass(frozen=True)
class Distill(Method):
    """Learns to write as a teacher does.

    Attributes:
        teacher: what a recipe calls it; the pipeline loads it and puts its distributions on the items.
    """

    teacher: str
    source: Literal["examples", "samples", "own"] = "examples"
    temperature: float = 1.0

    name = "distill"
    needs_reference = False

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per example: its answers as for SFT, or its prompt alone where the student answers.

        Raises:
            DataError: as `SFT.items`.
        """
        if self.source == "own":
            return prompt_items(examples, chat, system, samples=1)
        return SFT().items(examples, chat, system)

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the trained tokens."""
        return SFT().total(items)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Weighted sum of divergences from the teacher, a float32 scalar.

        Args:
            logps: where an item has a teacher, log-probabilities expected under it: -KL - its entropy.
        """
        losses = []
        for item, sequences in zip(items, logps, strict=True):
            for place, values in enumerate(sequences):
                known = item.soft[place].entropy.to(values) if item.soft else 0.0
                losses.append(-values - known)
        together = torch.cat(losses)
        return (together * together.new_tensor([w for item in items for w in item.weights])).sum()


def distill(**options: Any) -> Distill:
    """The method by a recipe's options, whose `from` is no name in Python."""
    return Distill(**{"source" if key == "from" else key: value for key, value in options.items()})
