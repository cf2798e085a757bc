"""Where the online methods end: a policy over four answers of one token, whose best policy is known.

The policy that is best for E[R] - beta KL(p || p_ref) is p proportional to p_ref exp(R / beta). Methods get
sampled answers, as from a language model, and log-probabilities from four logits.
"""

from __future__ import annotations

import math
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


# --- imitation of the best: nothing holds it, so what is known is where each round of it ends -----

NEVER = 1e-12  # a share
FIRST_OF_FOUR = BestOf(samples=4)
GOOD_ENOUGH = BestOf(samples=1, threshold=0.7)
BEST_IF_GOOD = BestOf(samples=4, threshold=0.5)
ROUNDS = {"best of 4": FIRST_OF_FOUR, "good enough": GOOD_ENOUGH, "best if good": BEST_IF_GOOD}


def next_of(method: BestOf, p: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of the kept answers, where answers come from `p`: their imitation ends there.

    The best of n answers is k where none is better and not all are worse: F_k^n - F_(k-1)^n, with F the
    chance of an answer that is no better than k. Not kept are groups of n times k, p_k^n; or, with a
    threshold, those whose best answer is below it.
    """
    n, sums = method.samples, torch.cumsum(p.exp(), 0)
    best_is = sums**n - torch.cat([numbers([0.0]), sums[:-1]]) ** n
    if method.threshold is None:
        kept = best_is - p.exp() ** n
    else:
        kept = best_is * (numbers(REWARDS) >= method.threshold)
    return (kept / kept.sum()).clamp_min(NEVER).log()


def imitate(method: BestOf, p: torch.Tensor, generator: torch.Generator, groups: int = 2500) -> torch.Tensor:
    """Log-probabilities after a round: answers of `p`, and what is kept of them imitated to the end.

    The mean loss has the gradient p - q in the logits, q the shares of what is kept; so it ends at q.
    """
    arms = torch.multinomial(p.exp(), groups * method.samples, replacement=True, generator=generator).tolist()
    answers = [Sample(ARMS[k], REWARDS[k], True, p[k : k + 1], BASE[k : k + 1]) for k in range(4)]
    samples = [answers[k] for k in arms]
    items = method.learn([samples[i : i + method.samples] for i in range(0, len(samples), method.samples)])
    logits = p.clone().requires_grad_()
    logps = [[own] for own in torch.log_softmax(logits, 0).split(1)]
    outputs = [logps[item.sequences[0].ids[1]] for item in items]
    (slope,) = torch.autograd.grad(method.loss(items, outputs) / method.total(items), logits)
    return (p.exp() - slope).clamp_min(NEVER).log()


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("method", ROUNDS.values(), ids=ROUNDS)
def test_the_imitation_of_the_best_ends_at_what_is_kept(method: BestOf, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    expected, found = BASE, BASE
    for _ in range(2):
        expected, found = next_of(method, expected), imitate(method, found, generator)
        assert divergence(found, expected) < NEAR
    assert divergence(expected, BASE) > 20 * NEAR
    assert divergence(found, BASE) > 20 * NEAR


def test_where_rounds_of_imitation_lead() -> None:
    """By hand: what is good enough keeps its proportions, and no round changes it again; n answers leave the
    best alone. A step from p to the best of n goes no further than log n - (n - 1) / n."""
    good = next_of(GOOD_ENOUGH, BASE).exp()
    assert good.tolist() == pytest.approx([0, 0, 2 / 3, 1 / 3], abs=1e-9)
    torch.testing.assert_close(next_of(GOOD_ENOUGH, good.log()).exp(), good)
    assert next_of(BEST_IF_GOOD, BASE).exp()[3].item() == pytest.approx((1 - 0.9**4) / (1 - 0.7**4))
    p = BASE
    for _ in range(12):
        q = next_of(replace(FIRST_OF_FOUR, threshold=0.0), p)
        assert divergence(q, p) < math.log(4) - 3 / 4
        p = q
    assert p.exp()[3].item() > 0.999


@pytest.mark.parametrize("seed", range(5))
def test_the_imitation_of_the_best_goes_to_the_best_answer_and_stays_above_the_threshold(seed: int) -> None:
    """Step by step, with answers of the policy as it is."""
    found = play(FIRST_OF_FOUR, prompts=8, seed=seed)
    assert found.exp()[3].item() > 0.7
    assert divergence(found, best(BETA)) > 20 * NEAR
    good = play(GOOD_ENOUGH, prompts=16, seed=seed)
    assert good.exp()[2:].sum().item() > 0.9
    assert good.exp()[2].item() > 0.3, "an answer that is good enough is not unlearnt"
