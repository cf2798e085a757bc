"""RLOO: numbers by hand, the paper in NumPy, invariants, and TRL's own loss."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rollouts import (
    Anything,
    Metrics,
    check_gradient,
    check_micro_batches,
    constant,
    descend,
    flat,
    gradients,
    made_up,
    mask_of,
    mean_loss,
    moved,
    numbers,
    padded,
    plain,
    same,
    written,
    wrote,
)

from luthier.methods import RLOO, Item, build_method
from luthier.methods.online import Sample
from luthier.recipe.method_options import RLOOOptions

VARIANTS = [
    RLOO(epochs=2),
    RLOO(epochs=2, beta=0.7),
    RLOO(minibatches=2, beta=0.0, epsilon=0.1, epsilon_high=0.5),
]
Logps = list[list[torch.Tensor]]


def oracle(method: RLOO, groups: list[list[Sample]], logps: Logps) -> float:
    """The paper's estimator with plain probabilities of whole answers, in float64."""
    high = method.epsilon if method.epsilon_high is None else method.epsilon_high
    losses = []
    left = iter(logps)
    for group in groups:
        rewards = []
        for sample in group:
            kl = np.log(np.prod(np.exp(sample.policy.numpy())))
            if method.beta:
                kl -= np.log(np.prod(np.exp(sample.reference.numpy())))
            rewards.append(sample.reward - method.beta * kl)
        for i, sample in enumerate(group):
            advantage = rewards[i] - np.mean(rewards[:i] + rewards[i + 1 :])
            (own,) = next(left)
            r = np.prod(np.exp(own.detach().numpy())) / np.prod(np.exp(sample.policy.numpy()))
            losses.append(-min(r * advantage, min(max(r, 1 - method.epsilon), 1 + high) * advantage))
    return float(np.mean(losses))


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_every_variant_is_its_formula(method: RLOO) -> None:
    for seed in range(5):
        groups = made_up(seed=seed)
        logps = moved(groups, seed=seed)
        assert same(mean_loss(method, method.learn(groups), logps).item(), oracle(method, groups, logps))


def trl_loss(method: RLOO, groups: list[list[Sample]], items: list[Item], logps: Logps) -> torch.Tensor:
    """The loss that TRL's trainer computes when a model gives these log-probabilities."""
    pytest.importorskip("trl")
    from trl import RLOOTrainer

    rows = [own for (own,) in logps]
    mask, values = mask_of(rows), padded(rows)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=Anything(),
        _get_per_token_logps_and_entropies=lambda *given, **named: (values, torch.zeros_like(values), None),
        aux_loss_enabled=False,
        epsilon_low=method.epsilon,
        epsilon_high=method.epsilon if method.epsilon_high is None else method.epsilon_high,
        _metrics={"train": Metrics()},
    )
    prompt = torch.ones(len(rows), 1, dtype=torch.long)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "old_logps": torch.stack([sample.policy.sum() for sample in flat(groups)]),
        "advantages": torch.stack([i.rollout.advantages[0] for i in items if i.rollout is not None]),
    }
    loss: torch.Tensor = RLOOTrainer._compute_loss(trainer, None, inputs)
    return loss


@pytest.mark.parametrize("epochs", [1, 2])
def test_loss_and_gradient_are_trls(epochs: int) -> None:
    for seed in range(10):
        method = RLOO(epochs=epochs, beta=[0.0, 0.3][seed % 2], epsilon_high=[None, 0.4][seed % 3 == 0])
        groups = made_up(4, 3, seed=seed)
        items = method.learn(groups)
        # its one update is made by the very model that wrote the answers
        logps = written(groups) if epochs == 1 else moved(groups, seed=seed, by=0.1)
        ours, theirs = mean_loss(method, items, logps), trl_loss(method, groups, items, logps)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-10, abs=1e-14)
        for one, other in zip(gradients(logps, ours), gradients(logps, theirs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


def test_ten_steps_down_the_loss_are_trls() -> None:
    method = RLOO(beta=0.1, epochs=10)
    groups = made_up(seed=7)
    items, ours, theirs = method.learn(groups), written(groups), written(groups)
    seen = []
    for _ in range(10):
        mine, reference = mean_loss(method, items, ours), trl_loss(method, groups, items, theirs)
        assert mine.item() == pytest.approx(reference.item(), rel=1e-10, abs=1e-14)
        seen.append(mine.item())
        descend(ours, mine, 0.1)
        descend(theirs, reference, 0.1)
    assert seen[-1] < seen[0]


def advantages(method: RLOO, *groups: list[Sample]) -> list[float]:
    found = []
    for item in method.learn(groups):
        assert item.rollout is not None
        own = item.rollout.advantages.tolist()
        assert own == [own[0]] * len(own)
        found.append(own[0])
    return found


def test_the_baseline_leaves_the_answer_out() -> None:
    group = [wrote([-1.0] * n, reward) for n, reward in ((1, 1.0), (2, 2.0), (3, 6.0))]
    plainly = RLOO(beta=0.0)
    assert advantages(plainly, group) == pytest.approx([1 - 4.0, 2 - 3.5, 6 - 1.5])
    assert advantages(plainly, group[:2]) == pytest.approx([-1.0, 1.0])
    assert advantages(plainly, group[:1]) == [0.0]  # the others could not be scored
    assert advantages(plainly, group, group[1:]) == pytest.approx([-3.0, -1.5, 4.5, -4.0, 4.0])
    means = [reward - 3.0 for reward in (1.0, 2.0, 6.0)]
    assert advantages(plainly, group) == pytest.approx([a * 3 / 2 for a in means])  # G / (G - 1)


def test_the_penalty_is_in_the_reward() -> None:
    """Log-ratios of whole answers: 1 and - 1."""
    group = [
        wrote([-1.0, -1.0], 1.0, reference=[-1.5, -1.5]),
        wrote([-2.0], 0.0, reference=[-1.0]),
    ]
    assert advantages(RLOO(beta=0.25), group) == pytest.approx([0.5, -0.5])  # 0.75 and 0.25
    assert advantages(RLOO(beta=0.5), group) == pytest.approx([0.0, 0.0])
    assert advantages(RLOO(beta=1.0), group) == pytest.approx([-1.0, 1.0])
    assert advantages(RLOO(beta=0.0), group) == pytest.approx([1.0, -1.0])
    assert RLOO().needs_reference and not RLOO(beta=0.0).needs_reference
    with pytest.raises(ValueError, match="without the reference"):
        RLOO().learn([[wrote([-1.0], 1.0), wrote([-1.0], 0.0)]])


def test_a_constant_added_to_the_rewards_of_a_group_changes_nothing() -> None:
    groups = made_up(2, 5, seed=2)
    more = [[replace(sample, reward=sample.reward + 7 * (g + 1)) for sample in groups[g]] for g in range(2)]
    assert advantages(RLOO(), *more) == pytest.approx(advantages(RLOO(), *groups), abs=1e-12)
    assert sum(advantages(RLOO(), groups[0])) == pytest.approx(0.0, abs=1e-12)
    alike = [wrote([-1.0] * n, 0.5) for n in (1, 2, 3)]
    assert advantages(RLOO(beta=0.0), alike) == pytest.approx([0.0] * 3, abs=1e-15)


def test_the_first_gradient_is_reinforce() -> None:
    group = [wrote([-1.0] * 3, 3.0), wrote([-0.5], 1.0)]
    logps = written([group])
    for method in (RLOO(beta=0.0), RLOO(beta=0.0, epochs=2)):
        loss = mean_loss(method, method.learn([group]), logps)
        assert loss.item() == pytest.approx(0.0, abs=1e-15)
        slopes = gradients(logps, loss)
        assert slopes[0].tolist() == pytest.approx([-1.0] * 3)  # - 2 / 2 at every token, however many
        assert slopes[1].tolist() == pytest.approx([1.0])


def test_only_several_updates_need_what_the_writer_thought() -> None:
    groups = made_up()
    assert all(item.rollout is not None and item.rollout.policy is None for item in RLOO().learn(groups))
    for method in (RLOO(epochs=2), RLOO(minibatches=2)):
        assert all(
            item.rollout is not None and item.rollout.policy is not None for item in method.learn(groups)
        )


def slope_at(ratio: float, reward: float, **options: float) -> list[float]:
    """The gradient of two tokens whose answer has this ratio, and is better (1) or worse (0)."""
    method = RLOO(beta=0.0, epochs=2, **options)  # type: ignore[arg-type]
    group = [wrote([-2.0, -1.0], reward), wrote([-2.0], 1 - reward)]
    log = math.log(ratio)
    logps = [[numbers([-2.0 + 2 * log, -1.0 - log]).requires_grad_()], [numbers([-2.0]).requires_grad_()]]
    return list(gradients(logps, method.loss(method.learn([group]), logps))[0].tolist())


def test_clipping_ends_the_gradient_on_the_right_side_only() -> None:
    """Of the whole answer's ratio: the tokens' own are far outside, and nothing is clipped for that."""
    assert slope_at(1.3, 1.0) == [0.0, 0.0]
    assert slope_at(1.3, 0.0) == pytest.approx([1.3, 1.3])
    assert slope_at(0.7, 0.0) == [0.0, 0.0]
    assert slope_at(0.7, 1.0) == pytest.approx([-0.7, -0.7])
    assert slope_at(1.1, 1.0) == pytest.approx([-1.1, -1.1])
    assert slope_at(0.9, 0.0) == pytest.approx([0.9, 0.9])
    assert slope_at(1.3, 1.0, epsilon_high=0.4) == pytest.approx([-1.3, -1.3])
    assert slope_at(0.7, 0.0, epsilon_high=0.4) == [0.0, 0.0]
    assert slope_at(0.7, 0.0, epsilon=0.4) == pytest.approx([0.7, 0.7])


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_what_every_online_loss_keeps_to(method: RLOO) -> None:
    groups = made_up(seed=5)
    items, logps = method.learn(groups), moved(groups, seed=5, by=0.1)
    assert check_gradient(method, items, logps)
    check_micro_batches(method, items, logps)


def test_what_is_imitated_counts_as_one_answer() -> None:
    groups = made_up(1, 2)
    logps = moved(groups)
    method = RLOO(epochs=2)
    items = method.learn(groups)
    for tokens in (1, 8):
        beside = [items[0], plain(tokens), items[1]]
        all_logps = [logps[0], constant(plain(tokens), -0.4), logps[1]]
        assert method.total(beside) == 3 and method.total(items) == 2
        added = method.loss(beside, all_logps) - method.loss(items, logps)
        assert added.item() == pytest.approx(0.4)
    assert mean_loss(method, [plain()], [constant(plain(), -0.25)]).item() == pytest.approx(0.25)


def test_a_recipe_builds_it() -> None:
    assert build_method(RLOOOptions()) == RLOO()
    assert build_method(RLOOOptions(samples=2, beta=0, epsilon_high=0.3)) == RLOO(
        samples=2, beta=0.0, epsilon_high=0.3
    )
