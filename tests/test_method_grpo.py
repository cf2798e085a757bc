"""GRPO and its unbiased forms: numbers by hand, the papers in NumPy, invariants, and TRL's own loss."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

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

from luthier.methods import GRPO, Item, build_method
from luthier.methods.online import Sample
from luthier.recipe.method_options import GRPOOptions

VARIANTS = [
    GRPO(epochs=2),
    GRPO(epochs=2, loss_type="grpo", scale_rewards="batch", beta=0.3),
    GRPO(epochs=2, loss_type="dr_grpo", scale_rewards="none", beta=0.0, max_completion_length=9),
    GRPO(epochs=2, loss_type="grpo", use_bias_correction_kl=False, beta=0.5),
    GRPO(epochs=2, epsilon=0.1, epsilon_high=0.28, scale_rewards="none", mask_truncated=True),
]
Logps = list[list[torch.Tensor]]


def oracle(method: GRPO, groups: list[list[Sample]], logps: Logps) -> float:
    """The papers' formulas, token by token, in float64."""
    high = method.epsilon if method.epsilon_high is None else method.epsilon_high
    everything = np.array([sample.reward for sample in flat(groups)])
    sums, lengths = [], []
    left = iter(logps)
    for group in groups:
        rewards = np.array([sample.reward for sample in group])
        advantages = rewards - rewards.mean()
        if method.scale_rewards == "group":
            advantages = advantages / (rewards.std(ddof=1) + 1e-4)
        if method.scale_rewards == "batch":
            advantages = advantages / (everything.std(ddof=1) + 1e-4)
        for sample, advantage in zip(group, advantages, strict=True):
            (own,) = next(left)
            if method.mask_truncated and not sample.finished:
                continue
            new, old = own.detach().numpy(), sample.policy.numpy()
            total = 0.0
            for t in range(len(new)):
                r = np.exp(new[t]) / np.exp(old[t])
                gain = min(r * advantage, min(max(r, 1 - method.epsilon), 1 + high) * advantage)
                if method.beta:
                    q = np.exp(sample.reference.numpy()[t]) / np.exp(new[t])
                    k3 = q - np.log(q) - 1
                    gain -= method.beta * (r * k3 if method.use_bias_correction_kl else k3)
                total -= gain
            sums.append(total)
            lengths.append(len(new))
    if method.loss_type == "grpo":
        return float(np.mean(np.array(sums) / np.array(lengths)))
    if method.loss_type == "dr_grpo":
        return float(np.sum(sums) / (len(sums) * method.max_completion_length))
    return float(np.sum(sums) / np.sum(lengths))


def learnt(method: GRPO, groups: list[list[Sample]], logps: Logps) -> tuple[list[Item], Logps]:
    """The items, and the log-probabilities of those that are left."""
    items = method.learn(groups)
    of = dict(zip([sample.item.where for sample in flat(groups)], logps, strict=True))
    return items, [of[item.where] for item in items]


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_every_variant_is_its_formula(method: GRPO) -> None:
    for seed in range(5):
        groups = made_up(seed=seed)
        logps = moved(groups, seed=seed)
        ours = mean_loss(method, *learnt(method, groups, logps)).item()
        assert same(ours, oracle(method, groups, logps))


def trl_loss(method: GRPO, items: list[Item], logps: Logps) -> torch.Tensor:
    """The loss that TRL's trainer computes when a model gives these log-probabilities."""
    pytest.importorskip("trl")
    from trl import GRPOTrainer

    rows = [own for (own,) in logps]
    rollouts = [item.rollout for item in items if item.rollout is not None]
    mask, values = mask_of(rows), padded(rows)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=Anything(),
        args=SimpleNamespace(
            use_bias_correction_kl=method.use_bias_correction_kl, delta=None, steps_per_generation=1
        ),
        _get_per_token_logps_and_entropies=lambda *given, **named: (values, torch.zeros_like(values), None),
        aux_loss_enabled=False,
        top_entropy_quantile=1.0,
        off_policy_mask_threshold=None,
        importance_sampling_level="token",
        beta=method.beta,
        epsilon_low=method.epsilon,
        epsilon_high=method.epsilon if method.epsilon_high is None else method.epsilon_high,
        loss_type=method.loss_type,
        use_vllm=False,
        current_gradient_accumulation_steps=1,
        max_completion_length=method.max_completion_length,
        _entropy_bonus_enabled=False,
        _metrics={"train": Metrics()},
    )
    prompt = torch.ones(len(rows), 1, dtype=torch.long)
    inputs: dict[str, Any] = {
        "prompt_ids": prompt,
        "prompt_mask": prompt,
        "completion_ids": mask.long(),
        "completion_mask": mask,
        "advantages": torch.stack([rollout.advantages[0] for rollout in rollouts]),
        "num_items_in_batch": mask.sum(),
    }
    if all(rollout.policy is not None for rollout in rollouts):
        inputs["old_per_token_logps"] = padded([rollout.policy for rollout in rollouts])
    if method.beta:
        inputs["ref_per_token_logps"] = padded([rollout.reference for rollout in rollouts])
    loss: torch.Tensor = GRPOTrainer._compute_loss(trainer, None, inputs)
    return loss


@pytest.mark.parametrize("epochs", [1, 2])
@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_loss_and_gradient_are_trls(loss_type: Any, epochs: int) -> None:
    for seed in range(10):
        method = GRPO(
            loss_type=loss_type,
            epochs=epochs,
            beta=[0.0, 0.2][seed % 2],
            use_bias_correction_kl=seed % 4 < 2,
            epsilon_high=[None, 0.3][seed % 3 == 0],
        )
        groups = made_up(4, 3, seed=seed)
        items, logps = learnt(method, groups, moved(groups, seed=seed))
        ours, theirs = mean_loss(method, items, logps), trl_loss(method, items, logps)
        assert ours.item() == pytest.approx(theirs.item(), rel=1e-10, abs=1e-14)
        for one, other in zip(gradients(logps, ours), gradients(logps, theirs), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_ten_steps_down_the_loss_are_trls(loss_type: Any) -> None:
    """The same start, and each side goes down its own gradient: the losses stay together."""
    method = GRPO(loss_type=loss_type, beta=0.1, epochs=10, max_completion_length=5)
    groups = made_up(seed=7)
    items, ours, theirs = method.learn(groups), written(groups), written(groups)
    seen = []
    for _ in range(10):
        mine, reference = mean_loss(method, items, ours), trl_loss(method, items, theirs)
        assert mine.item() == pytest.approx(reference.item(), rel=1e-10, abs=1e-14)
        seen.append(mine.item())
        descend(ours, mine, 0.5)
        descend(theirs, reference, 0.5)
    assert seen[-1] < seen[0]


def rewarded(*rewards: float, tokens: int = 2) -> list[Sample]:
    """Answers of one length, all with the same log-probabilities then and before training."""
    return [wrote([-1.0] * tokens, reward, reference=[-1.0] * tokens) for reward in rewards]


def advantages(method: GRPO, *groups: list[Sample]) -> list[float]:
    return [float(item.rollout.advantages[0]) for item in method.learn(groups) if item.rollout is not None]


def test_advantages_by_hand() -> None:
    """Rewards 1, 2, 6: mean 3, squares 4 + 1 + 9 = 14, spread sqrt(7)."""
    group = rewarded(1.0, 2.0, 6.0)
    deviation = math.sqrt(7) + 1e-4
    assert advantages(GRPO(), group) == pytest.approx([-2 / deviation, -1 / deviation, 3 / deviation])
    assert advantages(GRPO(scale_rewards="none"), group) == pytest.approx([-2, -1, 3])
    # 1, 2, 6, 0, 0, 0: mean 1.5, squares 41 - 6 * 2.25 = 27.5
    deviation = math.sqrt(27.5 / 5) + 1e-4
    assert advantages(GRPO(scale_rewards="batch"), group, rewarded(0, 0, 0)) == pytest.approx(
        [-2 / deviation, -1 / deviation, 3 / deviation, 0, 0, 0]
    )
    assert advantages(GRPO(), rewarded(4.0)) == [0.0]  # the others could not be scored


def test_a_constant_added_to_the_rewards_of_a_group_changes_nothing() -> None:
    group = rewarded(0.25, 0.5, 1.0, -3.0)
    more = rewarded(*(sample.reward + 8 for sample in group))
    for scale in ("group", "none", "batch"):
        method = GRPO(scale_rewards=scale)
        assert advantages(method, more) == pytest.approx(advantages(method, group), rel=1e-12)
    apart = GRPO(scale_rewards="none")
    assert advantages(apart, more, group) == pytest.approx(2 * advantages(apart, group), rel=1e-12)


def test_rewards_on_another_scale() -> None:
    group, tenfold = rewarded(1.0, 2.0, 6.0), rewarded(10.0, 20.0, 60.0)
    assert advantages(GRPO(), tenfold) == pytest.approx(advantages(GRPO(), group), rel=1e-3)
    plainly = GRPO(scale_rewards="none")
    assert advantages(plainly, tenfold) == pytest.approx([10 * a for a in advantages(plainly, group)])


@pytest.mark.parametrize("scale", ["group", "batch", "none"])
def test_a_group_without_variance_has_no_policy_gradient(scale: Any) -> None:
    alike, others = rewarded(0.1, 0.1, 0.1), rewarded(0.0, 1.0, 1.0)
    method = GRPO(beta=0.0, scale_rewards=scale)
    logps = written([alike, others])
    slopes = gradients(logps, method.loss(method.learn([alike, others]), logps))
    assert all(slope.tolist() == [0.0, 0.0] for slope in slopes[:3])
    assert all(float(slope.abs().min()) > 0 for slope in slopes[3:])


def test_what_is_left_without_variance_is_the_divergence() -> None:
    method = GRPO(beta=0.2)
    group = [wrote([math.log(0.5)], 1.0, reference=[math.log(0.25)])] * 2
    logps = written([group])
    loss = mean_loss(method, method.learn([group]), logps)
    assert loss.item() == pytest.approx(0.2 * (0.5 - 1 + math.log(2)))
    # half of the tokens each; log (p / p_ref) = log 2
    assert gradients(logps, loss)[0].item() == pytest.approx(0.2 * math.log(2) / 2)
    paper = replace(method, use_bias_correction_kl=False)
    slopes = gradients(logps, mean_loss(paper, paper.learn([group]), logps))
    assert slopes[0].item() == pytest.approx(0.2 * (1 - 0.5) / 2)


@pytest.mark.parametrize("loss_type", ["dapo", "grpo", "dr_grpo"])
def test_the_first_loss_without_divergence_is_0_and_its_gradient_is_not(loss_type: Any) -> None:
    method = GRPO(beta=0.0, loss_type=loss_type, scale_rewards="none", max_completion_length=8)
    group = rewarded(0.0, 1.0, 2.0, tokens=4)
    logps = written([group])
    loss = mean_loss(method, method.learn([group]), logps)
    assert loss.item() == pytest.approx(0.0, abs=1e-15)
    by = {"dapo": 12, "grpo": 12, "dr_grpo": 24}[loss_type]
    slopes = gradients(logps, loss)
    assert [slope.tolist() for slope in slopes] == [[1 / by] * 4, [0.0] * 4, [-1 / by] * 4]


def test_one_update_and_the_first_of_several_are_the_same() -> None:
    groups = made_up(seed=3)
    logps = written(groups)
    for loss_type in ("dapo", "grpo", "dr_grpo"):
        once, twice = GRPO(loss_type=loss_type), GRPO(loss_type=loss_type, minibatches=2)
        one, other = once.learn(groups), twice.learn(groups)
        assert all(item.rollout is not None and item.rollout.policy is None for item in one)
        assert all(item.rollout is not None and item.rollout.policy is not None for item in other)
        torch.testing.assert_close(once.loss(one, logps), twice.loss(other, logps))
        pairs = zip(gradients(logps, once.loss(one, logps)), gradients(logps, twice.loss(other, logps)))  # noqa: B905
        for first, second in pairs:
            torch.testing.assert_close(first, second)


def slope_at(ratio: float, reward: float, **options: Any) -> float:
    """The gradient of one token with this ratio, of an answer that is better (1) or worse (0)."""
    method = GRPO(beta=0.0, scale_rewards="none", epochs=2, **options)
    group = [wrote([-2.0], reward), wrote([-2.0], 1 - reward)]
    logps = [[numbers([-2.0 + math.log(ratio)]).requires_grad_()], [numbers([-2.0]).requires_grad_()]]
    return gradients(logps, method.loss(method.learn([group]), logps))[0].item()


def test_clipping_ends_the_gradient_on_the_right_side_only() -> None:
    assert slope_at(1.3, 1.0) == 0.0  # already likelier
    assert slope_at(1.3, 0.0) == pytest.approx(0.5 * 1.3)  # likelier, though it is worse
    assert slope_at(0.7, 0.0) == 0.0  # already less likely
    assert slope_at(0.7, 1.0) == pytest.approx(-0.5 * 0.7)  # less likely, though it is better
    assert slope_at(1.1, 1.0) == pytest.approx(-0.5 * 1.1)
    assert slope_at(0.9, 0.0) == pytest.approx(0.5 * 0.9)


def test_the_two_sides_are_clipped_apart() -> None:
    assert slope_at(1.25, 1.0, epsilon_high=0.28) == pytest.approx(-0.5 * 1.25)
    assert slope_at(1.3, 1.0, epsilon_high=0.28) == 0.0
    assert slope_at(0.75, 0.0, epsilon_high=0.28) == 0.0
    assert slope_at(0.75, 0.0, epsilon=0.3) == pytest.approx(0.5 * 0.75)
    assert slope_at(1.25, 1.0, epsilon=0.3) == pytest.approx(-0.5 * 1.25)


def test_how_a_long_answer_counts() -> None:
    """Rewards 1 and 0 of answers of 1 and 3 tokens: advantages 1/2 and -1/2."""
    group = [wrote([-1.0], 1.0), wrote([-1.0] * 3, 0.0)]
    logps = written([group])

    def slopes(loss_type: Any) -> list[float]:
        method = GRPO(beta=0.0, scale_rewards="none", loss_type=loss_type, max_completion_length=10)
        found = gradients(logps, mean_loss(method, method.learn([group]), logps))
        assert found[1].tolist() == pytest.approx([found[1][0].item()] * 3)
        return [found[0].item(), found[1][0].item()]

    assert slopes("grpo") == pytest.approx([-0.5 / 2, 0.5 / 6])
    assert slopes("dapo") == pytest.approx([-0.5 / 4, 0.5 / 4])
    assert slopes("dr_grpo") == pytest.approx([-0.5 / 20, 0.5 / 20])


def test_answers_that_were_cut_off() -> None:
    group = [wrote([-1.0], 3.0), wrote([-1.0], 0.0, finished=False), wrote([-1.0], 0.0)]
    kept = GRPO(scale_rewards="none", beta=0.0, mask_truncated=True)
    assert advantages(kept, group) == pytest.approx([2.0, -1.0])  # its reward counts in the mean
    assert len(replace(kept, mask_truncated=False).learn([group])) == 3
    assert kept.learn([[group[1], group[1]]]) == []


def test_beta_and_the_reference() -> None:
    group = [wrote([-1.0], 1.0, reference=[-3.0]), wrote([-1.0], 0.0, reference=[-0.5])]
    logps = written([group])

    def loss(beta: float) -> float:
        method = GRPO(beta=beta, scale_rewards="none")
        return mean_loss(method, method.learn([group]), logps).item()

    k3 = (math.exp(-2.0) + 2.0 - 1 + math.exp(0.5) - 0.5 - 1) / 2
    assert loss(0.1) == pytest.approx(0.1 * k3) and loss(1.0) == pytest.approx(k3)
    assert loss(0.0) == pytest.approx(0.0, abs=1e-15)
    assert GRPO().needs_reference and not GRPO(beta=0.0).needs_reference
    with pytest.raises(ValueError, match="without the reference"):
        GRPO().learn([[wrote([-1.0], 1.0), wrote([-1.0], 0.0)]])


@pytest.mark.parametrize("method", VARIANTS, ids=str)
def test_what_every_online_loss_keeps_to(method: GRPO) -> None:
    groups = made_up(seed=5)
    items, logps = learnt(method, groups, moved(groups, seed=5))
    assert check_gradient(method, items, logps)
    check_micro_batches(method, items, logps)


def test_what_is_imitated_beside() -> None:
    groups = made_up(1, 2)
    logps = moved(groups)
    for loss_type, each in (("dapo", 0.4 * 5), ("dr_grpo", 0.4 * 5), ("grpo", 0.4)):
        method = GRPO(loss_type=loss_type, epochs=2, max_completion_length=7)
        items = method.learn(groups)
        beside = [items[0], plain(5), items[1]]
        added = method.loss(beside, [logps[0], constant(plain(5), -0.4), logps[1]]) - method.loss(
            items, logps
        )
        assert added.item() == pytest.approx(each)
        more = method.total(beside) - method.total(items)
        assert more == {"dapo": 5, "dr_grpo": 7, "grpo": 1}[loss_type]
        alone = mean_loss(method, [plain(5)], [constant(plain(5), -0.4)]).item()
        assert alone == pytest.approx(0.4 * 5 / 7 if loss_type == "dr_grpo" else 0.4)
    light = GRPO().loss([plain(5, weight=0.5)], [constant(plain(5), -0.4)])
    assert light.item() == pytest.approx(0.4 * 5 * 0.5)


def test_single_precision_answers_far_from_the_model_are_finite() -> None:
    group = [wrote([-1.0] * 3, float(i), reference=[-80.0, -1.0, -0.1]) for i in range(2)]
    single = [
        replace(s, policy=s.policy.float(), reference=None if s.reference is None else s.reference.float())
        for s in group
    ]
    method = GRPO(epochs=2)
    logps = [[torch.tensor([-60.0, -1.0, -1e-6]).requires_grad_()] for _ in single]
    loss = method.loss(method.learn([single]), logps)
    assert loss.dtype == torch.float32 and math.isfinite(loss.item())
    assert all(bool(slope.isfinite().all()) for slope in gradients(logps, loss))


def test_a_recipe_builds_it() -> None:
    assert build_method(GRPOOptions()) == GRPO()
    options = GRPOOptions(samples=4, loss_type="dr_grpo", scale_rewards="none", beta=0)
    assert build_method(options) == GRPO(samples=4, loss_type="dr_grpo", scale_rewards="none", beta=0.0)
