"""Kahneman-Tversky optimization: answers that are judged good or bad one by one, without pairs.

With r = log p(y|x) - log p_ref(y|x), the logistic function s, and the reference point z:

    L = desirable_weight (1 - s(beta (r - z)))     of an answer to give
        undesirable_weight (1 - s(beta (z - r)))   of one not to give

Ethayarajh et al. 2024, arXiv 2402.01306, eqs. 7 and 8. z is an estimate of KL(p || p_ref): the mean of
log p(y'|x) - log p_ref(y'|x) over the prompts of the step, each with an answer y' to another prompt, and 0
where that is negative. It gets no gradient.

A pair gives one answer of either kind. Automatic weights let both kinds weigh the same in the sum, by their
counts n among the training items: desirable_weight n_desirable = undesirable_weight n_undesirable. That is
the lower end of the range that the paper recommends, at a mean weight of 1. Where one is given, the other
follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch

from luthier.chat import ChatFormat
from luthier.errors import DataError
from luthier.examples.example import Example
from luthier.methods.judged import Answers, gather_answers, judged_items
from luthier.methods.method import Item, Method, Scoring
from luthier.methods.preference import Logps, imitation_loss

Weight = float | Literal["auto"]


def kto_losses(
    answers: Answers, *, beta: float, desirable_weight: float, undesirable_weight: float
) -> torch.Tensor:
    """The loss of each answer, `[N]`."""
    sign = answers.sign
    gain = beta * (answers.policy - answers.reference - answers.baseline)
    weights = torch.where(sign > 0, sign.new_tensor(desirable_weight), sign.new_tensor(undesirable_weight))
    return weights * torch.sigmoid(-sign * gain)  # 1 - s(x) = s(-x)


@dataclass(frozen=True)
class KTO(Method):
    """Learns to give the wanted answers more often than before, and the unwanted ones less often."""

    beta: float = 0.1
    desirable_weight: Weight = "auto"
    undesirable_weight: Weight = "auto"

    name = "kto"
    pace = 0.1
    needs_reference = True
    learns_unwanted = True

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One item per answer, with a mismatch. Raises DataError as `judged_items`."""
        return judged_items(examples, chat, system)

    def settle(self, items: Sequence[Item]) -> KTO:
        """Automatic weights become those of these items.

        Raises:
            DataError: all answers are to be given, or none is.
        """
        judged = [item for item in items if item.wanted]
        wanted = sum(all(item.wanted) for item in judged)
        unwanted = len(judged) - wanted
        if not wanted or not unwanted:
            missing = "not to give" if wanted else "to give"
            raise DataError(
                f"no answer is marked as one {missing}, and kto learns from both kinds",
                where=items[0].where if items else None,
                fix="write prompt, completion and label (true or false), or rejected answers; "
                "or use `method: sft`, which imitates",
            )
        desirable, undesirable = self.desirable_weight, self.undesirable_weight
        if isinstance(desirable, str):
            both = len(judged) / 2 if isinstance(undesirable, str) else undesirable * unwanted
            desirable = both / wanted
        if isinstance(undesirable, str):
            undesirable = desirable * wanted / unwanted
        return replace(self, desirable_weight=desirable, undesirable_weight=undesirable)

    def prepare(self, items: Sequence[Item], score: Scoring) -> list[Item]:
        """The reference point of these items as `baseline` of each that is judged: a mere number."""
        found = [item.mismatch for item in items if item.mismatch is not None]
        if any(mismatch.reference is None for mismatch in found):
            raise ValueError("a mismatch without the reference's log-probability")
        point = 0.0
        if found:
            logps = score([m.sequence.ids for m in found], needed=[m.flags for m in found])
            sums = [float(values.detach().double().sum()) for values in logps]
            known = [-m.reference for m in found if m.reference is not None]
            point = math.fsum([*sums, *known]) / len(found)  # the same in any order
        # what is not a number stays so, and training stops
        return [replace(item, baseline=max(point, 0.0)) if item.wanted else item for item in items]

    def total(self, items: Sequence[Item]) -> float:
        """Answers, and items that are only imitated."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Summed loss of the answers, and mean negative log-likelihood of each other item."""
        if isinstance(self.desirable_weight, str) or isinstance(self.undesirable_weight, str):
            raise ValueError("automatic weights: `settle` them by the training items first")
        loss = imitation_loss(items, logps)
        answers = gather_answers(items, logps)
        if answers is None:
            return loss
        own = kto_losses(
            answers,
            beta=self.beta,
            desirable_weight=self.desirable_weight,
            undesirable_weight=self.undesirable_weight,
        )
        return loss + own.sum()
