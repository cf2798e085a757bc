"""Proximal policy optimization with a value head (Schulman et al. 2017, arXiv 1707.06347), as it is done for
language models (Ziegler et al. 2019, arXiv 1909.08593; its details: Huang et al. 2024, arXiv 2403.17031).

Every token is an action of its own. V_t is what the value head expects before token t of T:

    reward      R_t = - kl_coef (log p_old(y_t) - log p_ref(y_t)), and at the last token the answer's
                reward too, less `missing_eos_penalty` where the limit cut the answer off
    surprise    d_t = R_t + gamma V_t+1 - V_t,  V_T+1 = 0
    advantage   A_t = d_t + gamma lam A_t+1, A_T+1 = 0     GAE (arXiv 1506.02438)
    return      G_t = A_t + V_t
    policy      - min(r_t A'_t, clip(r_t, 1 - cliprange, 1 + cliprange) A'_t)
    value       1/2 max((V - G_t)^2, (clip(V, V_t - cliprange_value, V_t + cliprange_value) - G_t)^2)
    L = sum over tokens of (policy + vf_coef value) / tokens

A' is A whitened: less its mean and divided by its standard deviation, over all answers of the step; so are
the rewards with `whiten_rewards`, which get their mean back. All is computed once, from the model that
wrote the answers; `epochs` passes in `minibatches` follow, kept near it by clipping; in the first r_t is 1.

It ends at p proportional to p_ref exp(reward / kl_coef), for one-token answers however far V is off, for
longer ones as far as V has learnt, since a lam below 1 trusts it. Whitened advantages change the length of
the step, not the end; `whiten_rewards` adds a constant to every token's reward, for more tokens or fewer.

Items without a rollout (replayed answers, canaries) are imitated, token by token: - log p(y_t) in the place
of policy and value; their values are not looked at.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import torch

from luthier.chat import ChatFormat
from luthier.examples.example import Example
from luthier.methods.method import Item, Rollout
from luthier.methods.online import Online, Sample, prompt_items
from luthier.methods.surrogate import Logps, clipped_losses, log_ratios, measure_update, reference_of
from luthier.models.heads import HeadKind


@dataclass(frozen=True)
class PPO(Online):
    """Makes tokens likelier after which more came than the value head had expected."""

    samples: int = 4
    temperature: float = 1.0
    kl_coef: float = 0.05
    gamma: float = 1.0
    lam: float = 0.95
    cliprange: float = 0.2
    cliprange_value: float = 0.2
    vf_coef: float = 0.1
    whiten_rewards: bool = False
    missing_eos_penalty: float = 0.0
    epochs: int = 4
    minibatches: int = 1

    name = "ppo"
    pace = 0.1
    head: ClassVar[HeadKind] = "tokens"

    @property
    def needs_reference(self) -> bool:
        """Whether there is a KL penalty."""
        return self.kl_coef > 0

    def items(self, examples: Sequence[Example], chat: ChatFormat, system: str | None) -> list[Item]:
        """One prompt per example. Raises DataError where an example cannot be written."""
        return prompt_items(examples, chat, system, samples=self.samples)

    def learn(self, groups: Sequence[Sequence[Sample]]) -> list[Item]:
        """The answers with their advantages and returns; groups do not matter."""
        samples = [sample for group in groups for sample in group]
        rewards = [self._rewards(sample) for sample in samples]
        if self.whiten_rewards:
            rewards = whiten(rewards, shift_mean=False)
        values = [_values(sample) for sample in samples]
        advantages = [
            advantages_of(own, expected, gamma=self.gamma, lam=self.lam)
            for own, expected in zip(rewards, values, strict=True)
        ]
        whitened = whiten(advantages)
        return [
            replace(sample.item, rollout=Rollout(white, sample.policy, values=value, returns=own + value))
            for sample, white, value, own in zip(samples, whitened, values, advantages, strict=True)
        ]

    def total(self, items: Sequence[Item]) -> float:
        """Summed weight of the trained tokens."""
        return float(sum(sum(item.weights) for item in items))

    def loss(self, items: Sequence[Item], logps: Logps) -> torch.Tensor:
        """Summed loss of the tokens; `logps` are `[T, 2]`: log-probability, and value of the state before."""
        loss = logps[0][0].new_zeros(())
        for item, sequences in zip(items, logps, strict=True):
            values, expected = torch.cat(list(sequences)).unbind(-1)
            losses = -values
            if item.rollout is not None:
                advantages = item.rollout.advantages.to(values)
                ratios = log_ratios(item.rollout, values).exp()
                losses = clipped_losses(ratios, advantages, low=self.cliprange, high=self.cliprange)
                losses = losses + self.vf_coef * self._value_losses(item.rollout, expected)
            loss = loss + (losses * values.new_tensor(item.weights)).sum()
        return loss

    def measure(self, items: Sequence[Item], logps: Logps) -> dict[str, float]:
        """How far an update has moved, per token."""
        first = [[both[:, 0] for both in own] for own in logps]
        return measure_update(items, first, low=self.cliprange, high=self.cliprange)

    def _rewards(self, sample: Sample) -> torch.Tensor:
        """Of each token, `[T]`."""
        rewards = torch.zeros_like(sample.policy)
        if self.kl_coef:
            rewards = -self.kl_coef * (sample.policy - reference_of(sample.reference))
        rewards[-1] += sample.reward - (0.0 if sample.finished else self.missing_eos_penalty)
        return rewards

    def _value_losses(self, rollout: Rollout, expected: torch.Tensor) -> torch.Tensor:
        if rollout.values is None or rollout.returns is None:
            raise ValueError("an answer without values")
        before, returns = rollout.values.to(expected), rollout.returns.to(expected)
        near = before + (expected - before).clamp(-self.cliprange_value, self.cliprange_value)
        return torch.maximum((expected - returns) ** 2, (near - returns) ** 2) / 2


def advantages_of(rewards: torch.Tensor, values: torch.Tensor, *, gamma: float, lam: float) -> torch.Tensor:
    """Generalised advantage estimates of one answer's tokens, `[T]`, from their rewards and values `[T]`."""
    advantages, after, advantage = [], 0.0, 0.0
    for reward, value in zip(reversed(rewards.tolist()), reversed(values.tolist()), strict=True):
        advantage = reward + gamma * after - value + gamma * lam * advantage
        advantages.append(advantage)
        after = value
    return rewards.new_tensor(advantages[::-1])


def whiten(parts: Sequence[torch.Tensor], *, shift_mean: bool = True) -> list[torch.Tensor]:
    """All numbers of the tensors brought to standard deviation 1, and to mean 0 or back to their own mean."""
    values = torch.cat(list(parts))
    mean, variance = values.mean(), values.var() if len(values) > 1 else values.new_zeros(())
    white = (values - mean) * torch.rsqrt(variance + 1e-8)
    return list((white if shift_mean else white + mean).split([len(part) for part in parts]))


def _values(sample: Sample) -> torch.Tensor:
    if sample.values is None:
        raise ValueError("an answer without values")
    return sample.values
