"""What is logged of a step's answers and of an update; the shared estimates, by hand and by counting."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from rollouts import answer, made_up, moved, numbers, plain, written, wrote

from luthier.methods import GRPO, METHODS, PPO, RLOO
from luthier.methods.method import Rollout
from luthier.methods.online import Sample, diagnose, is_online, spread_of
from luthier.methods.surrogate import clipped_losses, k3, log_ratios, measure_update


def worth(*rewards: float) -> list[Sample]:
    return [wrote([-1.0], reward) for reward in rewards]


def test_which_methods_are_online() -> None:
    found = {name: METHODS[name]() for name in ("sft", "dpo", "grpo", "rloo", "ppo", "best_of")}
    assert [name for name in found if is_online(found[name])] == ["grpo", "rloo", "ppo", "best_of"]
    assert [name for name in found if found[name].head == "tokens"] == ["ppo"]


def test_numbers_of_a_step_by_hand() -> None:
    first = wrote([-1.0, -1.0], 1.0, reference=[-1.5, -1.0])
    again = replace(first, reward=3.0)
    other = wrote([-2.0, -1.0, -0.5], 2.0, reference=[-2.0, -1.0, -0.7], finished=False)
    found = diagnose([[first, again], [other, other]])
    assert found["reward"] == pytest.approx(2.0)
    assert found["reward_std"] == pytest.approx(math.sqrt(2 / 3))  # by N - 1
    assert found["length"] == pytest.approx(2.5)
    assert found["finished"] == pytest.approx(0.5)
    assert found["distinct"] == pytest.approx(0.5)
    assert found["no_variance"] == pytest.approx(0.5)
    assert found["kl"] == pytest.approx((0.5 + 0.2) / 2)
    assert found["kl_k3"] == pytest.approx((math.exp(-0.5) + 0.5 - 1 + math.exp(-0.2) + 0.2 - 1) / 2)


def test_numbers_are_finite_and_leave_out_what_is_not_known() -> None:
    found = diagnose([[wrote([-1.0], 5.0)]])
    assert set(found) == {"reward", "reward_std", "length", "finished", "distinct", "no_variance"}
    assert found["reward_std"] == 0.0 and found["no_variance"] == 1.0 and found["distinct"] == 1.0
    assert all(math.isfinite(value) for value in diagnose(made_up()).values())


def test_how_many_answers_differ() -> None:
    samples = [replace(wrote([-1.0] * n, float(n)), item=answer(n)) for n in (1, 2, 2, 3)]
    assert diagnose([samples])["distinct"] == pytest.approx(0.75)
    assert diagnose([samples, worth(1.0, 2.0)])["distinct"] == pytest.approx((0.75 + 0.5) / 2)


def test_spread() -> None:
    assert spread_of(numbers([1, 2, 3, 6])).item() == pytest.approx(math.sqrt(14 / 3))
    assert spread_of(numbers([5])).item() == 0.0


def test_k3_by_hand() -> None:
    """p = 1/2, p_ref = 1/4: their ratio is 1/2."""
    logps, reference = numbers([math.log(0.5)]), numbers([math.log(0.25)])
    assert k3(logps, reference).item() == pytest.approx(0.5 - 1 + math.log(2))
    assert k3(reference, logps).item() == pytest.approx(2 - 1 - math.log(2))
    assert k3(logps, logps).item() == 0.0


@given(st.floats(-30, 0), st.floats(-30, 0))
def test_k3_is_never_negative(logp: float, reference: float) -> None:
    estimate = k3(numbers([logp]), numbers([reference])).item()
    assert estimate >= 0
    if abs(logp - reference) > 1e-3:
        assert estimate > 1e-7


def test_what_the_estimates_and_their_gradients_are_on_average() -> None:
    """All answers of a policy over four, weighted by their probabilities, in the place of samples."""
    logits = numbers([0.3, -0.4, 1.1, 0.0]).requires_grad_()
    reference = torch.log_softmax(numbers([1.0, 0.2, -0.3, 0.5]), 0)
    logps = torch.log_softmax(logits, 0)
    p = logps.detach().exp()
    divergence = (logps.exp() * (logps - reference)).sum()
    assert (p * (logps - reference)).sum().item() == pytest.approx(divergence.item())
    assert (p * k3(logps, reference)).sum().item() == pytest.approx(divergence.item())

    def slope(loss: torch.Tensor) -> torch.Tensor:
        return torch.autograd.grad(loss, logits, retain_graph=True)[0]

    ratios = (logps - logps.detach()).exp()
    forward = (reference.exp() * (reference - logps)).sum()
    torch.testing.assert_close(slope((p * k3(logps, reference)).sum()), slope(forward))
    torch.testing.assert_close(slope((p * ratios * k3(logps, reference)).sum()), slope(divergence))
    torch.testing.assert_close(
        slope((p * (logps - reference)).sum()), torch.zeros(4).double(), atol=1e-15, rtol=0
    )
    assert not torch.allclose(slope(forward), slope(divergence), rtol=0.1)


def test_the_surrogate_by_hand() -> None:
    ratios = numbers([0.5, 0.9, 1.0, 1.1, 1.5])
    good, bad = torch.full_like(ratios, 2.0), torch.full_like(ratios, -2.0)
    torch.testing.assert_close(
        clipped_losses(ratios, good, low=0.2, high=0.3), -2 * numbers([0.5, 0.9, 1.0, 1.1, 1.3])
    )
    torch.testing.assert_close(
        clipped_losses(ratios, bad, low=0.2, high=0.3), 2 * numbers([0.8, 0.9, 1.0, 1.1, 1.5])
    )


@given(st.floats(0.01, 5), st.floats(-3, 3))
def test_the_surrogate_is_a_bound(ratio: float, advantage: float) -> None:
    """Clipping only ever makes the loss larger: it is pessimistic."""
    loss = clipped_losses(numbers([ratio]), numbers([advantage]), low=0.2, high=0.2).item()
    assert loss >= -ratio * advantage - 1e-12
    if 0.8 <= ratio <= 1.2:
        assert loss == pytest.approx(-ratio * advantage)


def test_a_model_is_its_own_measure_in_its_one_update() -> None:
    logps = numbers([-1.0, -2.0]).requires_grad_()
    ratios = log_ratios(Rollout(numbers([1, 1])), logps).exp()
    assert ratios.tolist() == [1.0, 1.0]
    assert torch.autograd.grad(ratios.sum(), logps)[0].tolist() == [1.0, 1.0]
    other = log_ratios(Rollout(numbers([1, 1]), policy=numbers([-1.5, -1.5])), logps)
    torch.testing.assert_close(other, numbers([0.5, -0.5]))


def test_numbers_of_an_update_by_hand() -> None:
    rollout = Rollout(numbers([1, 1, -1, -1]), policy=numbers([-1, -1, -1, -1]))
    item = replace(answer(4), rollout=rollout)
    logs = [math.log(1.5), math.log(0.5), math.log(1.5), math.log(0.5)]
    logps = [[numbers([-1 + log for log in logs])]]
    found = measure_update([item, plain()], [*logps, [numbers([-9.0] * 5)]], low=0.2, high=0.2)
    assert found["clip_fraction"] == pytest.approx(0.5)  # up where it is good, down where it is bad
    assert found["approx_kl"] == pytest.approx((0.5 - logs[0] - 0.5 - logs[1]) / 2)
    assert found["entropy"] == pytest.approx(1 - sum(logs) / 4)
    assert measure_update([item], logps, low=0.2, high=0.6)["clip_fraction"] == pytest.approx(0.25)
    whole = measure_update([item], logps, low=0.2, high=0.2, whole=True)
    log = sum(logs)
    assert whole["approx_kl"] == pytest.approx(math.exp(log) - 1 - log)
    assert whole["clip_fraction"] == 0.0
    assert measure_update([plain()], [[numbers([-9.0] * 5)]], low=0.2, high=0.2) == {}


@pytest.mark.parametrize("method", [GRPO(epochs=2), RLOO(epochs=2), PPO()], ids=lambda m: m.name)
def test_nothing_has_moved_in_the_first_pass(method: GRPO | RLOO | PPO) -> None:
    groups = made_up(seed=4)
    items = method.learn(groups)
    first, later = written(groups), moved(groups)
    if method.head:
        first, later = ([[torch.stack([v, v], 1)] for (v,) in own] for own in (first, later))
    found = method.measure(items, first)
    assert found["approx_kl"] == 0.0 and found["clip_fraction"] == 0.0
    surprise = sum(-float(sample.policy.sum()) for group in groups for sample in group)
    tokens = sum(len(sample.policy) for group in groups for sample in group)
    assert found["entropy"] == pytest.approx(surprise / tokens)
    after = method.measure(items, later)
    assert after["approx_kl"] > 0 and 0 < after["clip_fraction"] < 1
