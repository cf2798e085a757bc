"""The plan's examples as the training loop takes them, and the loss that goes with its objective."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch

from bench.plan import BETA, Row
from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples.example import Example
from luthier.methods import SFT, Item, Method


class Preferences:
    """Direct preference optimisation (arXiv 2305.18290), a stand-in until Luthier has the method.

        L = - mean over pairs of log sigmoid(beta * ((log p(w) - log q(w)) - (log p(l) - log q(l))))

    with w the preferred answer, l the other, p the model, q the reference.

    Args:
        references: log q of both answers, by the item's `where`.
    """

    name = "preferences"

    def __init__(self, references: Mapping[str, tuple[float, float]]) -> None:
        self.references = references

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """Unused: the plan has token ids already."""
        raise NotImplementedError

    def total(self, items: Sequence[Item]) -> float:
        """Pairs."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed over pairs; scalar."""
        terms = []
        for item, (preferred, other) in zip(items, logps, strict=True):
            q_preferred, q_other = self.references[item.where]
            margin = (preferred.sum() - q_preferred) - (other.sum() - q_other)
            terms.append(-torch.nn.functional.logsigmoid(BETA * margin))
        return torch.stack(terms).sum()


def items_of(examples: Sequence[Sequence[Row]]) -> list[Item]:
    """Examples as the training loop takes them."""
    return [
        Item(f"example {i}", tuple(TrainingSequence(row.ids, row.weights) for row in rows))
        for i, rows in enumerate(examples)
    ]


def method_of(objective: str, references: Mapping[str, tuple[float, float]]) -> Method:
    """The loss of an objective; `references` are used by `dpo` alone."""
    return SFT() if objective == "sft" else Preferences(references)
