"""What a training method is: its items, their total weight, and their summed loss."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from luthier.chat import ChatFormat, TrainingSequence
from luthier.examples.example import Example
from luthier.forest.soft_targets import SoftTargets


@dataclass(frozen=True)
class Item:
    """One example as the loss sees it: all sequences that must be scored together.

    A token is *trained* where its weight is above 0 and a token precedes it: the first of a sequence is
    predicted from nothing.

    Attributes:
        where: what messages call it.
        soft: a teacher's distributions at the trained tokens of each sequence, which then take the place of
            the tokens themselves; empty where there is no teacher.
        wanted: whether each sequence is an answer to give or one not to give; empty where the item states
            no preference and is simply imitated.
        reference: log-probability of each sequence's trained tokens before training; empty where the method
            needs none.
    """

    where: str
    sequences: tuple[TrainingSequence, ...]
    soft: tuple[SoftTargets, ...] = field(default=(), repr=False, compare=False)
    wanted: tuple[bool, ...] = ()
    reference: tuple[float, ...] = field(default=(), repr=False, compare=False)

    @property
    def tokens(self) -> int:
        """Tokens before sharing: what the batch budget counts."""
        return sum(len(sequence.ids) for sequence in self.sequences)

    @property
    def trained_tokens(self) -> int:
        """Tokens with a loss, before sharing, whatever their weights."""
        return sum(map(sum, self.flags))

    @property
    def flags(self) -> list[list[bool]]:
        """Which predictions are trained: `len - 1` flags for each sequence, for `forest.logprobs`."""
        return [[weight > 0 for weight in sequence.weights[1:]] for sequence in self.sequences]

    @property
    def weights(self) -> list[float]:
        """The trained tokens' weights, sequence after sequence: one for each log-probability of the item."""
        return [weight for sequence in self.sequences for weight in sequence.weights[1:] if weight > 0]


class Method(Protocol):
    """Loss of a batch = `loss(items) / total(items)`, over the whole effective batch.

    `loss` is a sum, so that gradients accumulated over micro-batches of any sizes equal the
    gradient of the batch in one piece.
    """

    @property
    def name(self) -> str:
        """What recipes and records call it."""
        ...

    @property
    def needs_reference(self) -> bool:
        """Whether items need `reference`: computed once before training, where it is asked for."""
        ...

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """The training items of examples, in order. Raises DataError where nothing is trained."""
        ...

    def total(self, items: Sequence[Item]) -> float:
        """What the summed loss is divided by: trained tokens, pairs, ..."""
        ...

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed loss, given log-probabilities of the trained tokens of every item's sequences."""
        ...
