"""PPO: numbers by hand, the papers in NumPy, the details of 2403.17031, and what TRL's PPOTrainer gave."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollouts import (
    check_gradient,
    check_micro_batches,
    constant,
    flat,
    gradients,
    made_up,
    mean_loss,
    moved,
    numbers,
    plain,
    same,
    valued,
    written,
    wrote,
)

from luthier.methods import PPO, build_method
from luthier.methods.method import Rollout
from luthier.methods.online import Sample
from luthier.methods.ppo import advantages_of, whiten
from luthier.recipe.method_options import PPOOptions

VARIANTS = [
    PPO(),
    PPO(kl_coef=0.5, gamma=0.9, lam=0.5, vf_coef=1.3, cliprange=0.1, cliprange_value=0.4),
    PPO(kl_coef=0.0, lam=1.0, whiten_rewards=True, missing_eos_penalty=2.0),
    PPO(lam=0.0, gamma=0.7, missing_eos_penalty=0.5),
]
Logps = list[list[torch.Tensor]]


def oracle(method: PPO, groups: list[list[Sample]], outputs: Logps) -> float:
    """The papers' formulas in float64; the advantages as a sum over what follows, not by recursion."""
    samples = flat(groups)
    rewards = []
    for sample in samples:
        own = np.zeros(len(sample.policy))
        if method.kl_coef:
            own = -method.kl_coef * (sample.policy.numpy() - sample.reference.numpy())
        own[-1] += sample.reward - (0 if sample.finished else method.missing_eos_penalty)
        rewards.append(own)
    if method.whiten_rewards:
        everything = np.concatenate(rewards)
        spread, mean = np.sqrt(everything.var(ddof=1) + 1e-8), everything.mean()
        rewards = [(own - mean) / spread + mean for own in rewards]
    advantages, returns = [], []
    for sample, own in zip(samples, rewards, strict=True):
        values = sample.values.numpy()
        after = np.append(values[1:], 0.0)
        surprise = own + method.gamma * after - values
        n = len(own)
        found = np.array(
            [sum((method.gamma * method.lam) ** (k - t) * surprise[k] for k in range(t, n)) for t in range(n)]
        )
        advantages.append(found)
        returns.append(found + values)
    every = np.concatenate(advantages)
    total = 0.0
    for i, (both,) in enumerate(outputs):
        new, value = both.detach().numpy().T
        better = (advantages[i] - every.mean()) / np.sqrt(every.var(ddof=1) + 1e-8)
        r = np.exp(new) / np.exp(samples[i].policy.numpy())
        policy = np.maximum(
            -r * better, -np.clip(r, 1 - method.cliprange, 1 + method.cliprange) * better
        ).sum()
        old = samples[i].values.numpy()
        near = np.clip(value, old - method.cliprange_value, old + method.cliprange_value)
        worth = 0.5 * np.maximum((value - returns[i]) ** 2, (near - returns[i]) ** 2).sum()
        total += policy + method.vf_coef * worth
    return float(total / len(every))


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_every_variant_is_its_formula(method: PPO) -> None:
    for seed in range(5):
        groups = made_up(seed=seed)
        outputs = valued(groups, moved(groups, seed=seed), seed=seed)
        assert same(mean_loss(method, method.learn(groups), outputs).item(), oracle(method, groups, outputs))


# What PPOTrainer's compute_rewards, compute_advantages and loss of TRL 0.11.4, the last that has them as
# functions, gave for the answers of `made_up(seed)`: policy loss, value loss with vf_coef, clipped share.
TRL = [
    (0.0645159753714981, 0.5936972486766208, 0.2857142857142857),
    (0.06433179497079164, 0.6499273668680626, 0.2391304347826087),
    (0.02837435541907865, 0.3957851606017412, 0.26666666666666666),
    (0.06403888882394292, 0.755230326795817, 0.20754716981132076),
    (0.04645733045413657, 0.7631188810727378, 0.2127659574468085),
    (0.03574959143982861, 0.38517492908227774, 0.2564102564102564),
    (0.09010934404110309, 0.8071624158049714, 0.20754716981132076),
    (-0.011654721836362144, 0.6845101507611698, 0.2777777777777778),
    (-0.030912798548803817, 0.4755349935579061, 0.30612244897959184),
    (0.00973839288544947, 0.5351347779624247, 0.2222222222222222),
]


@pytest.mark.parametrize("seed", range(10))
def test_loss_and_clipping_are_what_trl_gave(seed: int) -> None:
    groups = made_up(seed=seed)
    outputs = valued(groups, moved(groups, seed=seed), seed=seed)
    method = PPO(kl_coef=0.1, gamma=0.95, lam=0.9, vf_coef=0.3, cliprange_value=0.25)
    items = method.learn(groups)
    policy = mean_loss(replace(method, vf_coef=0.0), items, outputs).item()
    found = [policy, mean_loss(method, items, outputs).item() - policy]
    assert found == pytest.approx(list(TRL[seed][:2]), rel=1e-9)
    assert method.measure(items, outputs)["clip_fraction"] == pytest.approx(TRL[seed][2])


def rollouts(method: PPO, groups: list[list[Sample]]) -> list[Rollout]:
    found = []
    for item in method.learn(groups):
        assert item.rollout is not None
        found.append(item.rollout)
    return found


def one(method: PPO, *answers: Sample) -> list[list[float]]:
    """The returns of each answer: with values of 0, gamma and lambda 1, the rewards still to come."""
    found = []
    for rollout in rollouts(method, [list(answers)]):
        assert rollout.returns is not None
        found.append(rollout.returns.tolist())
    return found


def test_rewards_by_hand() -> None:
    """Log-ratios 0.5, 0 and - 1: penalties - 0.05, 0 and 0.1, and the answer's reward at the last."""
    sample = wrote([-1.0, -1.0, -2.0], 3.0, reference=[-1.5, -1.0, -1.0], values=[0.0] * 3)
    method = PPO(kl_coef=0.1, lam=1.0)
    assert one(method, sample)[0] == pytest.approx([3.05, 3.1, 3.1])
    assert one(replace(method, kl_coef=0.2), sample)[0] == pytest.approx([3.1, 3.2, 3.2])
    assert one(replace(method, kl_coef=0.0), sample)[0] == pytest.approx([3.0, 3.0, 3.0])
    assert one(replace(method, gamma=0.5), sample)[0] == pytest.approx([-0.05 + 3.1 / 4, 3.1 / 2, 3.1])
    assert one(replace(method, lam=0.0), sample)[0] == pytest.approx([-0.05, 0.0, 3.1])


def test_an_answer_without_its_terminator_is_worth_less() -> None:
    method = PPO(kl_coef=0.0, lam=1.0, missing_eos_penalty=1.0)
    ended = wrote([-1.0, -1.0], 3.0, values=[0.0, 0.0])
    assert one(method, ended, replace(ended, finished=False)) == [[3.0, 3.0], [2.0, 2.0]]
    assert one(PPO(kl_coef=0.0, lam=1.0), replace(ended, finished=False)) == [[3.0, 3.0]]


def test_whitened_rewards_keep_their_mean() -> None:
    """Rewards 0, 3, 0 and 6 of the tokens: mean 9/4, squares 45 - 81/4, spread sqrt(8.25)."""
    method = PPO(kl_coef=0.0, lam=1.0, whiten_rewards=True)
    answers = [wrote([-1.0, -1.0], reward, values=[0.0, 0.0]) for reward in (3.0, 6.0)]
    zero, three, six = ((reward - 2.25) / math.sqrt(8.25) + 2.25 for reward in (0, 3, 6))
    assert one(method, *answers) == [
        pytest.approx([zero + three, three]),
        pytest.approx([zero + six, six]),
    ]


def test_advantages_by_hand() -> None:
    rewards, values = numbers([1, 0, 2]), numbers([0.5, 1.0, -1.0])
    # surprises 1 + 1 - 0.5, 0 - 1 - 1, 2 + 0 + 1
    assert advantages_of(rewards, values, gamma=1.0, lam=0.0).tolist() == [1.5, -2.0, 3.0]
    assert advantages_of(rewards, values, gamma=1.0, lam=1.0).tolist() == [2.5, 1.0, 3.0]
    assert advantages_of(rewards, values, gamma=1.0, lam=0.5).tolist() == [1.25, -0.5, 3.0]
    # gamma 1/2: surprises 1, - 1.5, 3, each next one a quarter
    assert advantages_of(rewards, values, gamma=0.5, lam=0.5).tolist() == [1 - 0.75 / 4, -0.75, 3.0]


tokens = st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=8)


@given(tokens, st.floats(0.1, 1))
def test_lambda_1_is_what_came_less_what_was_expected(pairs: list[tuple[float, float]], gamma: float) -> None:
    rewards, values = (numbers(column) for column in zip(*pairs, strict=True))
    found = advantages_of(rewards, values, gamma=gamma, lam=1.0)
    to_come = [
        sum(gamma ** (k - t) * float(rewards[k]) for k in range(t, len(pairs))) for t in range(len(pairs))
    ]
    torch.testing.assert_close(found, numbers(to_come) - values, rtol=1e-9, atol=1e-9)


@given(tokens, st.floats(0.1, 1))
def test_lambda_0_is_one_step_ahead(pairs: list[tuple[float, float]], gamma: float) -> None:
    rewards, values = (numbers(column) for column in zip(*pairs, strict=True))
    found = advantages_of(rewards, values, gamma=gamma, lam=0.0)
    after = torch.cat([values[1:], numbers([0.0])])
    torch.testing.assert_close(found, rewards + gamma * after - values, rtol=1e-12, atol=1e-12)


def test_whitening() -> None:
    parts = whiten([numbers([1, 2]), numbers([6])])  # mean 3, spread sqrt(7)
    assert [part.tolist() for part in parts] == [
        pytest.approx([-2 / math.sqrt(7), -1 / math.sqrt(7)]),
        pytest.approx([3 / math.sqrt(7)]),
    ]
    kept = torch.cat(whiten([numbers([1, 2]), numbers([6])], shift_mean=False))
    torch.testing.assert_close(kept, numbers([-2, -1, 3]) / math.sqrt(7) + 3)
    assert whiten([numbers([4])])[0].tolist() == [0.0]
    assert whiten([numbers([4, 4]), numbers([4])])[0].tolist() == [0.0, 0.0]


def test_advantages_are_whitened_over_the_whole_step() -> None:
    groups = made_up(seed=1)
    found = torch.cat([rollout.advantages for rollout in rollouts(PPO(), groups)])
    assert found.mean().item() == pytest.approx(0.0, abs=1e-12)
    assert found.std().item() == pytest.approx(1.0, abs=1e-6)
    apart = torch.cat([rollout.advantages for rollout in rollouts(PPO(), groups[:1])])
    assert not torch.allclose(apart, found[: len(apart)], rtol=1e-3)
    again = [[replace(s, reward=10 * s.reward, values=10 * s.values) for s in g] for g in groups]  # type: ignore[operator]
    tenfold = torch.cat([rollout.advantages for rollout in rollouts(PPO(kl_coef=0.5), again)])
    torch.testing.assert_close(
        tenfold, torch.cat([rollout.advantages for rollout in rollouts(PPO(kl_coef=0.05), groups)])
    )
    returns = [rollout.returns for rollout in rollouts(PPO(), groups)]
    assert max(float(own.abs().max()) for own in returns if own is not None) > 2  # they are not


def unmoved(groups: list[list[Sample]]) -> Logps:
    """The very outputs at the time of writing."""
    return [
        [torch.stack([sample.policy, sample.values], dim=1).requires_grad_()]  # type: ignore[list-item]
        for sample in flat(groups)
    ]


def single(groups: list[list[Sample]]) -> list[list[Sample]]:
    """In single precision, as training has them."""
    return [
        [
            replace(s, policy=s.policy.float(), reference=s.reference.float(), values=s.values.float())  # type: ignore[union-attr]
            for s in group
        ]
        for group in groups
    ]


def test_the_first_pass() -> None:
    """Ratio 1, approximate KL 0, nothing clipped, and a policy loss that is 0 but for rounding."""
    for seed in range(5):
        groups = made_up(8, 8, seed=seed, longest=30)
        policy_only = PPO(vf_coef=0.0)
        items, outputs = policy_only.learn(groups), unmoved(groups)
        assert mean_loss(policy_only, items, outputs).item() == pytest.approx(0.0, abs=1e-14)
        found = policy_only.measure(items, outputs)
        assert found["approx_kl"] == 0.0 and found["clip_fraction"] == 0.0
        training = single(groups)
        loss = mean_loss(policy_only, policy_only.learn(training), unmoved(training))
        assert loss.dtype == torch.float32 and abs(loss.item()) < 2e-7
        slopes = torch.cat(gradients(outputs, mean_loss(policy_only, items, outputs)))
        advantages = torch.cat([rollout.advantages for rollout in rollouts(policy_only, groups)])
        torch.testing.assert_close(slopes[:, 0], -advantages / len(advantages))
        assert not slopes[:, 1].any()


def test_the_first_value_loss_is_the_error_of_the_value_head() -> None:
    groups = made_up(seed=2)
    method = PPO(vf_coef=0.4)
    loss = mean_loss(method, method.learn(groups), unmoved(groups)).item()
    unscaled = replace(method, lam=1.0, kl_coef=0.0)
    to_come = [[sample.reward] * len(sample.policy) for sample in flat(groups)]
    errors = [
        (float(v) - g) ** 2
        for sample, own in zip(flat(groups), to_come, strict=True)
        for v, g in zip(sample.values, own, strict=True)  # type: ignore[arg-type]
    ]
    plainly = mean_loss(unscaled, unscaled.learn(groups), unmoved(groups)).item()
    assert plainly == pytest.approx(0.4 * 0.5 * np.mean(errors))
    doubled = mean_loss(replace(method, vf_coef=0.8), method.learn(groups), unmoved(groups)).item()
    assert doubled == pytest.approx(2 * loss)


def slopes_at(
    *, ratio: float = 1.0, advantage: float = 0.0, value: float = 0.0, returned: float = 0.0, **options: Any
) -> list[float]:
    """Gradient by log-probability and value of one token, whose value was 0 when it was written."""
    method = PPO(vf_coef=1.0, **options)
    zero = numbers([0.0])
    rollout = Rollout(numbers([advantage]), numbers([-2.0]), None, zero, numbers([returned]))
    item = replace(plain(1), rollout=rollout)
    both = torch.tensor([[-2.0 + math.log(ratio), value]], dtype=torch.float64).requires_grad_()
    return list(gradients([[both]], method.loss([item], [[both]]))[0][0].tolist())


def test_clipping_ends_the_gradient_on_the_right_side_only() -> None:
    assert slopes_at(ratio=1.3, advantage=1.0)[0] == 0.0
    assert slopes_at(ratio=1.3, advantage=-1.0)[0] == pytest.approx(1.3)
    assert slopes_at(ratio=0.7, advantage=-1.0)[0] == 0.0
    assert slopes_at(ratio=0.7, advantage=1.0)[0] == pytest.approx(-0.7)
    assert slopes_at(ratio=1.1, advantage=1.0)[0] == pytest.approx(-1.1)
    assert slopes_at(ratio=0.9, advantage=-1.0)[0] == pytest.approx(0.9)
    assert slopes_at(ratio=1.3, advantage=1.0, cliprange=0.4)[0] == pytest.approx(-1.3)


def test_a_value_that_came_nearer_too_fast_gets_no_gradient() -> None:
    assert slopes_at(value=0.5, returned=2.0)[1] == 0.0
    assert slopes_at(value=0.5, returned=-2.0)[1] == pytest.approx(2.5)  # it went the wrong way
    assert slopes_at(value=0.1, returned=2.0)[1] == pytest.approx(-1.9)
    assert slopes_at(value=-0.5, returned=-2.0)[1] == 0.0
    assert slopes_at(value=-0.5, returned=2.0)[1] == pytest.approx(-2.5)
    assert slopes_at(value=0.5, returned=2.0, cliprange_value=0.6)[1] == pytest.approx(-1.5)


def test_values_do_not_move_the_policy_nor_the_other_way() -> None:
    assert slopes_at(value=0.1, returned=2.0, advantage=0.0)[0] == 0.0
    assert slopes_at(value=0.0, returned=0.0, advantage=1.0) == pytest.approx([-1.0, 0.0])


def test_the_penalty_pulls_towards_the_reference() -> None:
    """Two answers as good as each other, one of which the reference would have written rather."""
    likely = wrote([-1.0], 1.0, reference=[-0.5], values=[0.0])
    unlikely = wrote([-1.0], 1.0, reference=[-3.0], values=[0.0])
    groups = [[likely, unlikely]]
    method = PPO(vf_coef=0.0)
    outputs = unmoved(groups)
    slopes = gradients(outputs, method.loss(method.learn(groups), outputs))
    assert slopes[0][0, 0] < 0 < slopes[1][0, 0]
    free = replace(method, kl_coef=0.0)
    assert not any(slope.any() for slope in gradients(outputs, free.loss(free.learn(groups), outputs)))


def test_what_is_missing_is_never_taken_for_nothing() -> None:
    with pytest.raises(ValueError, match="without the reference"):
        PPO().learn([[wrote([-1.0], 1.0, values=[0.0])]])
    with pytest.raises(ValueError, match="without values"):
        PPO(kl_coef=0.0).learn([[wrote([-1.0], 1.0)]])
    item = replace(plain(1), rollout=Rollout(numbers([1.0]), numbers([-1.0])))
    with pytest.raises(ValueError, match="without values"):
        PPO().loss([item], [constant(item, -1.0, columns=2)])
    assert PPO().needs_reference and not PPO(kl_coef=0.0).needs_reference


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_what_every_online_loss_keeps_to(method: PPO) -> None:
    groups = made_up(seed=5)
    items, outputs = method.learn(groups), valued(groups, moved(groups, seed=5), seed=5)
    assert check_gradient(method, items, outputs)
    check_micro_batches(method, items, outputs)


def test_what_is_imitated_beside_counts_by_its_tokens() -> None:
    groups = made_up(1, 2)
    method = PPO()
    items, outputs = method.learn(groups), valued(groups, written(groups))
    beside = [items[0], plain(5), items[1]]
    all_outputs = [outputs[0], constant(plain(5), -0.4, columns=2), outputs[1]]
    assert method.total(beside) == method.total(items) + 5
    assert (method.loss(beside, all_outputs) - method.loss(items, outputs)).item() == pytest.approx(2.0)
    alone = constant(plain(5, weight=0.5), -0.4, columns=2)
    loss = method.loss([plain(5, weight=0.5)], [alone])
    assert loss.item() == pytest.approx(1.0)
    assert gradients([alone], loss)[0].tolist() == [[-0.5, 0.0]] * 5  # the value is not looked at


def test_a_recipe_builds_it() -> None:
    assert build_method(PPOOptions()) == PPO()
    options = PPOOptions(lam=1, gamma=0.99, minibatches=4, missing_eos_penalty=1)
    assert build_method(options) == PPO(lam=1.0, gamma=0.99, minibatches=4, missing_eos_penalty=1.0)
