"""REINFORCE with a leave-one-out baseline: RLOO (Ahmadian et al. 2024, arXiv 2402.14740, section 3.2).

A whole answer is one action. From the G answers of a group, with rewards R_i that carry the KL penalty,

    R_i = reward_i - beta sum_t (log p_old(y_it) - log p_ref(y_it))        k1, of the whole answer
    A_i = R_i - mean of the R_j, j other than i
    L   = mean over answers of - min(r_i A_i, clip(r_i, 1 - epsilon, 1 + epsilon_high) A_i)

where r_i = p(y_i) / p_old(y_i) is the ratio of the *answers*, a product over their tokens, clipped as in
TRL. With one update of a step r_i = 1, and the gradient is REINFORCE's: - A_i grad log p(y_i).

An answer is not in its own baseline, so the gradient has exactly the mean that it should: it ends at p
proportional to p_ref exp(reward / beta). A penalty inside the reward has a right gradient too, as the
reward of an answer needs none of its own. At that end every R_i of a group is the same, and there is no
noise left.

Items without a rollout (replayed answers, canaries) count as one answer each, with their mean negative
log-likelihood per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Rollout
from luthier.methods.online import Online, Sample, prompt_items
from luthier.methods.surrogate import Logps, clipped_losses, log_ratios, measure_update, reference_of


@dataclass(frozen=True)
class RLOO(Online):
    """Makes answers likelier that were better than the other answers to their prompt."""

    samples: int = 4
    temperature: float = 1.0
    beta: float = 0.05
    epsilon: float = 0.2
    epsilon_high: float | None = None
    epochs: int = 1
    minibatches: int = 1

    name = "rloo"
    pace = 0.1

    @property
    def needs_reference(self) -> bool:
        """Whether there is a KL penalty."""
        return self.beta > 0

    @property
    def _high(self) -> float:
        return self.epsilon if self.epsilon_high is None else self.epsilon_high

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One prompt per example. Raises DataError where an example cannot be written."""
        return prompt_items(examples, chat, system, samples=self.samples)

    def learn(self, groups: Sequence[Sequence[Sample]]) -> list[Item]:
        """The answers, each token with the advantage of its answer; 0 for one without others beside it."""
        one_update = self.epochs * self.minibatches == 1
        items = []
        for group in groups:
            rewards = [self._penalised(sample) for sample in group]
            for sample, reward in zip(group, rewards, strict=True):
                others = len(group) - 1
                advantage = reward - (sum(rewards) - reward) / others if others else 0.0
                rollout = Rollout(
                    advantages=torch.full_like(sample.policy, advantage),
                    policy=None if one_update else sample.policy,
                )
                items.append(replace(sample.item, rollout=rollout))
        return items

    def total(self, items: Sequence[Item]) -> float:
        """Answers, and items that are only imitated."""
        return float(len(items))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Summed loss of the answers, and mean negative log-likelihood of each other item."""
        loss = logps[0][0].new_zeros(())
        for item, sequences in zip(items, logps, strict=True):
            values = torch.cat(list(sequences))
            if item.rollout is None:
                weights = values.new_tensor(item.weights)
                loss = loss - (values * weights).sum() / weights.sum()
            else:
                ratio = log_ratios(item.rollout, values).sum().exp()
                advantage = item.rollout.advantages.to(values)[0]
                loss = loss + clipped_losses(ratio, advantage, low=self.epsilon, high=self._high)
        return loss

    def measure(self, items: Sequence[Item], logps: Logps) -> dict[str, float]:
        """How far an update has moved, per answer."""
        return measure_update(items, logps, low=self.epsilon, high=self._high, whole=True)

    def _penalised(self, sample: Sample) -> float:
        """The reward of an answer, less what it cost to leave the reference."""
        if not self.beta:
            return sample.reward
        gap = sample.policy.double() - reference_of(sample.reference).double()
        return sample.reward - self.beta * float(gap.sum())
