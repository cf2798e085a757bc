"""Where the online methods end: a policy over four answers of one token, whose best policy is known.

The policy that is best for E[R] - beta KL(p || p_ref) is p proportional to p_ref exp(R / beta). Methods get
sampled answers, as from a language model, and log-probabilities from four logits.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from rollouts import numbers

from luthier.chat import TrainingSequence
from luthier.methods import GRPO, PPO, RLOO, BestOf, Item
from luthier.methods.online import Online, Sample

REWARDS = (0.0, 0.3, 0.7, 1.0)
BASE = numbers([0.4, 0.3, 0.2, 0.1]).log()
BETA = 0.4
ARMS = [Item(f"arm {k}", (TrainingSequence((9, k), (0.0, 1.0)),)) for k in range(4)]
NEAR = 0.005  # nats

GROUPED = GRPO(beta=BETA, scale_rewards="none")
LEFT_OUT = RLOO(beta=BETA, samples=8)
VALUED = PPO(kl_coef=BETA, samples=8, epochs=2, minibatches=2, vf_coef=1.0)


def best(beta: float, rewards: Sequence[float] = REWARDS) -> torch.Tensor:
    """Log-probabilities of the best policy."""
    return torch.log_softmax(BASE + numbers(rewards) / beta, 0)


def end_of(method: Online) -> torch.Tensor:
    """Where a method should end; an answer is in the mean that GRPO compares it with."""
    return best(BETA * method.samples / (method.samples - 1) if isinstance(method, GRPO) else BETA)


def play(
    method: Online, *, seed: int = 0, rewards: Sequence[float] = REWARDS, steps: int = 60, prompts: int = 2
) -> torch.Tensor:
    """Log-probabilities of the arms after training with a step size that goes to 0."""
    generator = torch.Generator().manual_seed(seed)
    logits = BASE.clone().requires_grad_()
    value = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.Adam([logits, value], lr=0.1, betas=(0.9, 0.99))
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * (1 - step / steps)
        now = torch.log_softmax(logits, 0).detach()
        arms = torch.multinomial(now.exp(), prompts * method.samples, replacement=True, generator=generator)
        samples = [
            Sample(ARMS[k], rewards[k], True, now[k : k + 1], BASE[k : k + 1], value.detach().clone())
            for k in arms.tolist()
        ]
        items = method.learn(
            [samples[i : i + method.samples] for i in range(0, len(samples), method.samples)]
        )
        for _ in range(method.epochs):
            order = torch.randperm(len(items), generator=generator).tolist()
            for part in (order[i :: method.minibatches] for i in range(method.minibatches)):
                update(method, [items[i] for i in part], logits, value, optimizer)
    return torch.log_softmax(logits, 0).detach()


def update(
    method: Online,
    items: list[Item],
    logits: torch.Tensor,
    value: torch.Tensor,
    optimizer: torch.optim.Optimizer,
) -> None:
    """One update, as the training loop makes it."""
    if not items:
        return
    logps = torch.log_softmax(logits, 0)
    outputs = []
    for item in items:
        arm = item.sequences[0].ids[1]
        own = logps[arm : arm + 1]
        outputs.append([own if method.head is None else torch.stack([own, value], dim=1)])
    optimizer.zero_grad()
    (method.loss(items, outputs) / method.total(items)).backward()
    optimizer.step()


def divergence(p: torch.Tensor, q: torch.Tensor) -> float:
    """KL(p || q) in nats, of log-probabilities."""
    return float((p.exp() * (p - q)).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", [GROUPED, LEFT_OUT, VALUED], ids=lambda method: method.name)
def test_the_best_policy_is_reached(method: Online, seed: int) -> None:
    assert divergence(BASE, end_of(method)) > 20 * NEAR  # there is a way to go
    assert divergence(play(method, seed=seed), end_of(method)) < NEAR


@pytest.mark.parametrize("method", [GROUPED, LEFT_OUT, VALUED], ids=lambda method: method.name)
def test_other_rewards_end_elsewhere(method: Online) -> None:
    """What the test above would see of a sign that is wrong."""
    turned = [-reward for reward in REWARDS]
    assert divergence(play(method, rewards=turned), end_of(method)) > 20 * NEAR


@pytest.mark.parametrize(
    "method",
    [replace(GROUPED, beta=0.0), replace(LEFT_OUT, beta=0.0), replace(VALUED, kl_coef=0.0)],
    ids=lambda method: method.name,
)
def test_without_the_divergence_it_ends_at_the_best_answer(method: Online) -> None:
    """What the test above would see of a penalty that is dropped."""
    found = play(method)
    assert divergence(found, end_of(method)) > 20 * NEAR
    assert found.exp()[3] > end_of(method).exp()[3] + 0.2


def test_a_gradient_of_the_estimate_ends_where_another_divergence_is_least() -> None:
    """Uncorrected, k3 pulls as KL(p_ref || p) does, to p = beta p_ref / (c - R (G - 1) / G)."""
    method = replace(GROUPED, use_bias_correction_kl=False)
    rewards = numbers(REWARDS) * (method.samples - 1) / method.samples
    low, high = rewards.max().item(), 10.0
    for _ in range(100):  # c makes it sum to 1
        middle = (low + high) / 2
        low, high = (middle, high) if (BETA * BASE.exp() / (middle - rewards)).sum() > 1 else (low, middle)
    end = (BETA * BASE.exp() / (high - rewards)).log()
    assert end.exp().sum().item() == pytest.approx(1.0)
    assert divergence(end, end_of(method)) > 2 * NEAR
    for seed in range(2):
        found = play(method, seed=seed)
        assert divergence(found, end) < NEAR
        assert divergence(found, end_of(method)) > NEAR


def test_rewards_divided_by_their_spread_go_further() -> None:
    found = play(replace(GROUPED, scale_rewards="group"))
    assert divergence(found, end_of(GROUPED)) > 5 * NEAR
    assert found.exp()[3] > end_of(GROUPED).exp()[3] + 0.1


def test_the_imitation_of_the_best_ends_at_the_best_answer() -> None:
    found = play(BestOf(samples=4), prompts=8)
    assert found.exp()[3].item() > 0.7
    assert divergence(found, best(BETA)) > 20 * NEAR
