"""Expert iteration: which answers are kept, by hand and for any rewards, and that their loss is SFT's."""

from __future__ import annotations

from dataclasses import replace

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
    written,
    wrote,
)

from luthier.methods import SFT, BestOf, Item, build_method
from luthier.methods.online import Sample
from luthier.recipe.method_options import BestOfOptions


def group_of(*rewards: float, cut_off: tuple[int, ...] = ()) -> list[Sample]:
    """Answers of 1, 2, 3, ... tokens, by which they are told apart."""
    return [wrote([-1.0] * (i + 1), reward, finished=i not in cut_off) for i, reward in enumerate(rewards)]


def kept(method: BestOf, *groups: list[Sample]) -> list[int]:
    """The lengths of the answers that are imitated."""
    return [item.trained_tokens for item in method.learn(groups)]


def test_the_best_of_each_group_by_hand() -> None:
    assert kept(BestOf(), group_of(0.0, 3.0, 1.0)) == [2]
    assert kept(BestOf(), group_of(0.0, 3.0, 1.0), group_of(-2.0, -1.0), group_of(5.0, 4.0)) == [2, 2, 1]
    assert kept(BestOf(), group_of(0.0, 1.0, 1.0)) == [2]  # the first of two that are as good


def test_a_group_without_variance_teaches_nothing() -> None:
    assert kept(BestOf(), group_of(1.0, 1.0, 1.0)) == []
    assert kept(BestOf(), group_of(*[0.1] * 10)) == []  # ten times 0.1 is not quite 1
    assert kept(BestOf(), group_of(4.0)) == []
    assert kept(BestOf(), group_of(1.0, 1.0), group_of(0.0, 1.0)) == [2]


def test_a_threshold_takes_the_place_of_the_mean() -> None:
    good = BestOf(threshold=0.8)
    assert kept(good, group_of(0.0, 0.7)) == []
    assert kept(good, group_of(0.0, 0.8)) == [2]
    assert kept(good, group_of(1.0, 1.0)) == [1]
    assert kept(good, group_of(0.9)) == [1]
    assert kept(BestOf(threshold=0.0), group_of(0.0, 0.0)) == [1]  # a threshold of 0 is one
    assert kept(BestOf(threshold=0.0), group_of(-1.0, -0.5)) == []


def test_an_answer_that_was_cut_off_is_never_imitated() -> None:
    assert kept(BestOf(), group_of(0.0, 3.0, 2.0, cut_off=(1,))) == [3]
    assert kept(BestOf(), group_of(0.0, 9.0, 2.0, cut_off=(1,))) == []  # mean 11/3: its reward counts
    assert kept(BestOf(), group_of(0.0, 3.0, cut_off=(0, 1))) == []
    assert kept(BestOf(threshold=0.0), group_of(0.0, 3.0, cut_off=(0, 1))) == []


@given(st.lists(st.lists(st.integers(-3, 3), min_size=1, max_size=6), max_size=5))
def test_at_most_one_of_a_group_is_kept_and_none_is_better(rewards: list[list[int]]) -> None:
    groups = [group_of(*map(float, own)) for own in rewards]
    found = BestOf().learn(groups)
    uneven = [group for group in groups if len({sample.reward for sample in group}) > 1]
    assert len(found) == len(uneven)
    for item, group in zip(found, uneven, strict=True):
        (reward,) = {sample.reward for sample in group if sample.item is item}
        assert reward == max(sample.reward for sample in group)


@given(st.floats(-5, 5))
def test_a_constant_added_to_the_rewards_of_a_group_changes_nothing(more: float) -> None:
    assert kept(BestOf(), group_of(0.0 + more, 3.0 + more, 1.0 + more)) == [2]


def learnt(method: BestOf, seed: int) -> tuple[list[Item], list[list[torch.Tensor]]]:
    groups = made_up(6, 4, seed=seed)
    items = method.learn(groups)
    of = dict(zip([sample.item.where for sample in flat(groups)], moved(groups, seed=seed), strict=True))
    return items, [of[item.where] for item in items]


def test_the_loss_is_that_of_supervised_fine_tuning() -> None:
    for seed in range(5):
        items, logps = learnt(BestOf(), seed)
        assert items and all(item.rollout is None and not item.reference for item in items)
        tokens = sum(len(own) for (own,) in logps)
        by_hand = -sum(float(own.detach().sum()) for (own,) in logps) / tokens
        assert mean_loss(BestOf(), items, logps).item() == pytest.approx(by_hand)
        assert BestOf().loss(items, logps).item() == SFT().loss(items, logps).item()
        assert BestOf().total(items) == SFT().total(items) == tokens


def test_every_token_of_a_kept_answer_becomes_likelier() -> None:
    groups = [group_of(0.0, 3.0), group_of(2.0, 0.0)]
    items, logps = BestOf().learn(groups), written(groups)
    chosen = [logps[1], logps[2]]
    slopes = gradients(chosen, mean_loss(BestOf(), items, chosen))
    assert [slope.tolist() for slope in slopes] == [[-1 / 3] * 2, [-1 / 3]]


def test_what_every_online_loss_keeps_to() -> None:
    items, logps = learnt(BestOf(), 2)
    assert check_gradient(BestOf(), items, logps)
    check_micro_batches(BestOf(), items, logps)


def test_what_is_imitated_beside_counts_by_its_tokens() -> None:
    items, logps = learnt(BestOf(), 3)
    beside = [plain(5), *items]
    all_logps = [constant(plain(5), -0.4), *logps]
    assert BestOf().total(beside) == BestOf().total(items) + 5
    added = BestOf().loss(beside, all_logps) - BestOf().loss(items, logps)
    assert added.item() == pytest.approx(2.0)
    light = BestOf().loss([plain(5, weight=0.5)], [constant(plain(5), -0.4)])
    assert light.item() == pytest.approx(1.0)


def test_rewards_are_all_that_decides() -> None:
    group = group_of(0.0, 3.0, 1.0)
    other = [replace(sample, policy=numbers([-9.0] * len(sample.policy))) for sample in group]
    assert kept(BestOf(), other) == kept(BestOf(), group)
    assert not BestOf().needs_reference and BestOf().head is None
    assert BestOf().measure(BestOf().learn([group]), [[numbers([-1.0] * 2)]]) == {}


def test_a_recipe_builds_it() -> None:
    assert build_method(BestOfOptions()) == BestOf()
    assert build_method(BestOfOptions(samples=16, threshold=0.0)) == BestOf(samples=16, threshold=0.0)
