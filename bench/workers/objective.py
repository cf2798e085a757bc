"""The plan's examples as the training loop takes them, and the loss that goes with its objective."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from bench.plan import BETA, KL, Row
from bench.w4_rollouts import advantages
from bench.workers.references import References
from luthier.chat import TrainingSequence
from luthier.methods import DPO, GRPO, SFT, Item, Method
from luthier.methods.method import Rollout

REFERRED = ("dpo", "grpo")  # compare with the model before training


@dataclass(frozen=True)
class Referred(DPO):
    """Luthier's DPO on the plan's pairs: the preferred answer first.

    Attributes:
        references: log-probabilities of both answers before training, by the item's `where`.
    """

    references: References = field(default_factory=dict)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed over pairs; scalar."""
        known = []
        for item in items:
            chosen, rejected = (float(values.sum()) for values in self.references[item.where])
            known.append(replace(item, wanted=(True, False), reference=(chosen, rejected)))
        return super().loss(known, logps)


@dataclass(frozen=True)
class Frozen(SFT):
    """Luthier's GRPO on the plan's groups, which nobody writes anew: an item is all answers to a prompt.

    Attributes:
        references: log-probabilities of the answers before training, by the item's `where`.
    """

    references: References = field(default_factory=dict)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed over the tokens of all answers; scalar."""
        return GRPO(beta=KL).loss([self._known(item) for item in items], logps)

    def _known(self, item: Item) -> Item:
        reference = self.references[item.where]
        drawn = advantages([sequence.ids for sequence in item.sequences])
        spread = [torch.full_like(values, one) for values, one in zip(reference, drawn, strict=True)]
        return replace(item, rollout=Rollout(torch.cat(spread), reference=torch.cat(list(reference))))


def items_of(examples: Sequence[Sequence[Row]]) -> list[Item]:
    """Examples as the training loop takes them."""
    return [
        Item(f"example {i}", tuple(TrainingSequence(row.ids, row.weights) for row in rows))
        for i, rows in enumerate(examples)
    ]


def method_of(objective: str, references: References) -> Method:
    """The loss of an objective; `references` are used by those in `REFERRED` alone."""
    if objective == "sft":
        return SFT()
    if objective == "dpo":
        return Referred(beta=BETA, references=references)
    return Frozen(references=references)
