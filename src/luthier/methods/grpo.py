"""Group relative policy optimization: GRPO (Shao et al. 2024, arXiv 2402.03300) and its unbiased forms.

An answer is compared with the other answers to the same prompt, so there is no value head. For the G
answers of a group with rewards R_i, every token of answer i gets

    A_i = (R_i - mean R) / (std R + 1e-4)       scale_rewards: group
    A_i = (R_i - mean R) / (std of all rewards of the step + 1e-4)    batch (arXiv 2508.08221)
    A_i = R_i - mean R                          none: a prompt's weight does not depend on how hard it is

(std with G - 1). A token's loss is the clipped surrogate and a KL term, both of `surrogate.py`:

    l_it = - min(r_it A_i, clip(r_it, 1 - epsilon, 1 + epsilon_high) A_i) + beta r_it k3_it

and the answers' are put together, over the N answers of an update, as `loss_type` says:

    grpo      mean over answers of (sum_t l_it / |y_i|)   the paper; a token of a long answer counts less
    dr_grpo   sum_it l_it / (N max_completion_length)     Dr. GRPO (arXiv 2503.20783): a constant instead
    dapo      sum_it l_it / sum_i |y_i|                   DAPO (arXiv 2503.14476): every token counts the same

`dapo` is the default: it has no bias by length within an update either, and needs no constant that only
changes the scale. Dr. GRPO as published is `dr_grpo` with scale_rewards: none and beta: 0. DAPO's
asymmetric clipping is `epsilon_high: 0.28`. The factor r of the KL term is not in the first paper; without
it (`use_bias_correction_kl`) what is held small is KL(p_ref || p).

Where it ends, for answers of one token and with scale_rewards: none: p proportional to p_ref exp(R (G - 1)
/ (G beta)): since an answer is in the mean that it is compared with, the gradient is (G - 1) / G of that of
the expected reward. Without the correction p = beta p_ref / (c - R (G - 1) / G). Rewards divided by their
spread are other rewards, which grow as answers agree, and p ends further from p_ref. For longer answers the
KL term of a token looks at that token only, not at what it leads to. At a temperature other than 1 the
answers are not the model's own, and neither is the gradient.

Items without a rollout (replayed answers, canaries) are imitated: - log p(y_t) in the place of l_it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Rollout
from luthier.methods.online import Online, Sample, prompt_items, spread_of
from luthier.methods.surrogate import (
    Logps,
    clipped_losses,
    k3,
    log_ratios,
    measure_update,
    reference_of,
)
from luthier.recipe.method_options import GroupLoss, RewardScale


@dataclass(frozen=True)
class GRPO(Online):
    """Makes answers likelier that were better than the others to their prompt."""

    samples: int = 8
    temperature: float = 1.0
    beta: float = 0.04
    loss_type: GroupLoss = "dapo"
    scale_rewards: RewardScale = "group"
    epsilon: float = 0.2
    epsilon_high: float | None = None
    use_bias_correction_kl: bool = True
    mask_truncated: bool = False
    max_completion_length: int = 256
    epochs: int = 1
    minibatches: int = 1

    name = "grpo"
    pace = 0.1

    @property
    def needs_reference(self) -> bool:
        """Whether there is a KL term."""
        return self.beta > 0

    @property
    def _high(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One prompt per example. Raises DataError where an example cannot be written."""
        return prompt_items(examples, chat, system, samples=self.samples)

    def learn(self, groups: Sequence[Sequence[Sample]]) -> list[Item]:
        """The answers with their advantages; those cut off are left out where they are masked.

        A masked answer still counts in its group's mean (as TRL has it), but not among the N answers.
        """
        rewards = [torch.tensor([sample.reward for sample in group], dtype=torch.float64) for group in groups]
        overall = spread_of(torch.cat(rewards))
        items = []
        for group, own in zip(groups, rewards, strict=True):
            advantages = own - own.mean() if own.min() < own.max() else torch.zeros_like(own)
            if self.scale_rewards != "none":
                spread = overall if self.scale_rewards == "batch" else spread_of(own)
                advantages = advantages / (spread + 1e-4)
            for sample, advantage in zip(group, advantages.tolist(), strict=True):
                if sample.finished or not self.mask_truncated:
                    items.append(replace(sample.item, rollout=self._rollout(sample, advantage)))
        return items

    def total(self, items: Sequence[Item]) -> float:
        """By `loss_type`: items, items times the constant, or summed weight of the trained tokens."""
        if self.loss_type == "dapo":
            return float(sum(sum(item.weights) for item in items))
        return float(len(items) * (self.max_completion_length if self.loss_type == "dr_grpo" else 1))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Sum over the items of their tokens' losses, or of their means."""
        loss = logps[0][0].new_zeros(())
        for item, sequences in zip(items, logps, strict=True):
            values = torch.cat(list(sequences))
            losses = -values if item.rollout is None else self._token_losses(item.rollout, values)
            weights = values.new_tensor(item.weights)
            summed = (losses * weights).sum()
            loss = loss + (summed / weights.sum() if self.loss_type == "grpo" else summed)
        return loss

    def measure(self, items: Sequence[Item], logps: Logps) -> dict[str, float]:
        """How far an update has moved, per token."""
        return measure_update(items, logps, low=self.epsilon, high=self._high)

    def _rollout(self, sample: Sample, advantage: float) -> Rollout:
        one_update = self.epochs * self.minibatches == 1
        return Rollout(
            advantages=torch.full_like(sample.policy, advantage),
            policy=None if one_update else sample.policy,
            reference=reference_of(sample.reference) if self.beta else None,
        )

    def _token_losses(self, rollout: Rollout, logps: torch.Tensor) -> torch.Tensor:
        ratios = log_ratios(rollout, logps).exp()
        losses = clipped_losses(ratios, rollout.advantages.to(logps), low=self.epsilon, high=self._high)
        if not self.beta:
            return losses
        kl = k3(logps, reference_of(rollout.reference))
        return losses + self.beta * (kl * ratios if self.use_bias_correction_kl else kl)
