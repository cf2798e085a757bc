"""The plan's examples as the training loop takes them, and the loss that goes with its objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from bench.plan import BETA, Row
from luthier.chat import TrainingSequence
from luthier.methods import DPO, SFT, Item, Method


@dataclass(frozen=True)
class Referred(DPO):
    """Luthier's DPO on the plan's pairs: the preferred answer first.

    Attributes:
        references: log-probabilities of both answers before training, by the item's `where`.
    """

    references: Mapping[str, tuple[float, float]] = field(default_factory=dict)

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed over pairs; scalar."""
        known = [replace(item, wanted=(True, False), reference=self.references[item.where]) for item in items]
        return super().loss(known, logps)


def items_of(examples: Sequence[Sequence[Row]]) -> list[Item]:
    """Examples as the training loop takes them."""
    return [
        Item(f"example {i}", tuple(TrainingSequence(row.ids, row.weights) for row in rows))
        for i, rows in enumerate(examples)
    ]


def method_of(objective: str, references: Mapping[str, tuple[float, float]]) -> Method:
    """The loss of an objective; `references` are used by `dpo` alone."""
    return SFT() if objective == "sft" else Referred(beta=BETA, references=references)
