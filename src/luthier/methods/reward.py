"""Reward models: one number for an answer, higher for the answers that people prefer.

With r_i the reward of the i-th best of n answers to a prompt, and the logistic function s:

    L = mean over i < j of [ - log s(r_i - r_j - m_ij) + c (r_i + r_j)^2 ]

For two answers this is the model of Bradley and Terry (1952). For ranked lists all pairs of a prompt count
as one example, as in InstructGPT (Ouyang et al. 2022, arXiv 2203.02155, eq. 1): a prompt is computed once,
and weighs no more because it has more answers. Pairs, and not Plackett-Luce, since margins are of pairs.
m is the margin of Llama 2 (Touvron et al. 2023, arXiv 2307.09288, eq. 2), 0 where none is known. Only
differences count in the first term; c, small, keeps rewards near 0 (Eisenstein et al. 2023, arXiv
2312.09244).
The reward is read at the last token of prompt, answer and terminator (`models.heads`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch.nn.functional import logsigmoid

from luthier.chat import ChatFormat
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.methods.method import Item, Method, read_at_end
from luthier.methods.preference import answer_sequences
from luthier.models.heads import HeadKind


def ranking_loss(
    rewards: torch.Tensor, margins: Sequence[float] = (), *, center: float = 0.0
) -> torch.Tensor:
    """The loss of one prompt, a scalar.

    Args:
        rewards: `[n]`, of its answers, the best first.
        margins: by how much each is known to be worse than the first; m_ij is a difference of two.
        center: c.
    """
    better, worse = torch.triu_indices(len(rewards), len(rewards), offset=1, device=rewards.device)
    gaps = rewards[better] - rewards[worse]
    if margins:
        known = rewards.new_tensor(margins)
        gaps = gaps - (known[worse] - known[better])
    loss = -logsigmoid(gaps).mean()
    if center:
        loss = loss + center * ((rewards[better] + rewards[worse]) ** 2).mean()
    return loss


@dataclass(frozen=True)
class Reward(Method):
    """Learns a reward that is higher for better answers.

    Attributes:
        margin: column of the data with margins: a number, or one for each rejected answer (by how much it is
            worse than the chosen one, which never falls along the list).
        center_coefficient: c.
    """

    margin: str | None = None
    center_coefficient: float = 0.0

    name = "reward"
    needs_reference = False
    head: ClassVar[HeadKind] = "sequence"

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per example: all its answers, the best first.

        Raises:
            DataError: an example rejects no answer, or has not the margins that it should have.
        """
        items = []
        for example in examples:
            if not example.rejected:
                raise DataError(
                    "there is no rejected answer, so no answer is better than another",
                    where=example.where,
                    fix="write prompt, chosen and rejected: an answer, or a list of them, the best first",
                )
            written = answer_sequences(example, [example.answer, *example.rejected], chat, system)
            wanted = (True, *(False for _ in example.rejected))
            margins = () if self.margin is None else _read_margins(example, self.margin)
            sequences = tuple(read_at_end(sequence.ids) for sequence in written)
            items.append(Item(example.where, sequences, wanted=wanted, margins=margins))
        return items

    def total(self, items: Sequence[Item]) -> float:
        """Prompts."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Sequence[Sequence[torch.Tensor]]) -> torch.Tensor:
        """Summed loss of the prompts; `logps` are rewards, `[1]` for each answer.

        Raises:
            ValueError: an item has a single answer, so that nothing is compared.
        """
        if any(len(item.sequences) < 2 for item in items):
            raise ValueError("an item with one answer: a reward model has nothing to imitate")
        losses = [
            ranking_loss(torch.cat(list(rewards)), item.margins, center=self.center_coefficient)
            for item, rewards in zip(items, logps, strict=True)
        ]
        return torch.stack(losses).sum()


def _read_margins(example: Example, column: str) -> tuple[float, ...]:
    value = example.fields.get(column)
    given = value if isinstance(value, list | tuple) else [value]
    margins = [0.0, *map(_number, given)]
    rising = all(b >= a for a, b in itertools.pairwise(margins))
    if len(given) != len(example.rejected) or not rising:
        many = f"{len(example.rejected)} numbers from 0 up, one for each rejected answer"
        expected = "a number from 0 up" if len(example.rejected) == 1 else many
        raise DataError(
            f"the margin in {column!r} is {value!r}, expected {expected}",
            where=example.where,
            fix="write how much worse each rejected answer is than the chosen one, or take `margin` out",
        )
    return tuple(margins)


def _number(value: Any) -> float:
    """NaN, which is no margin, for what is no finite number; tables give numbers as text."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return math.nan
    try:
        number = float(value)
    except ValueError:
        return math.nan
    return number if math.isfinite(number) else math.nan
