"""Advantages of a step's answers against TRL's own: its trainers score answers that are handed to them."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rollouts import Anything, Metrics, flat, made_up, padded

from luthier.methods import GRPO, RLOO
from luthier.methods.online import Sample

pytest.importorskip("trl")
# what TRL and accelerate warn of is theirs
pytestmark = pytest.mark.filterwarnings("ignore")

Groups = list[list[Sample]]
SAMPLES = 4
NEAR = 1e-7  # TRL corrects its spreads for the number of answers in single precision


class Alone(Anything):
    """An accelerator of one process."""

    process_index = 0


def trl_advantages(
    method: GRPO | RLOO, groups: Groups, *, unscored: frozenset[int] = frozenset()
) -> list[float]:
    """Of every answer in order; 0 of those whose places are `unscored`."""
    from trl import GRPOTrainer, RLOOTrainer

    samples = flat(groups)
    model, before = (SimpleNamespace(training=True, is_gradient_checkpointing=False) for _ in range(2))
    known = {id(model): [s.policy for s in samples], id(before): [s.reference for s in samples]}
    rewards = [float("nan") if i in unscored else s.reward for i, s in enumerate(samples)]
    prompts = [[7]] * len(samples)
    answers = [[5] * len(sample.policy) for sample in samples]
    grouped = isinstance(method, GRPO)
    trainer = SimpleNamespace(
        accelerator=Alone(),
        model=model,
        ref_model=before,
        beta=method.beta,
        num_generations=SAMPLES,
        num_iterations=1,
        scale_rewards=getattr(method, "scale_rewards", None),
        multi_objective_aggregation="sum_then_normalize",
        normalize_advantages=False,
        reward_clip_range=None,
        reward_weights=torch.ones(1, dtype=torch.float64),
        reward_funcs=[None],
        reward_func_names=["reward"],
        environment_factories=None,
        environments=None,
        tools=None,
        use_vllm=False,
        mask_truncated_completions=False,
        pad_to_multiple_of=None,
        _tokenizer=SimpleNamespace(pad_token_id=0),
        args=SimpleNamespace(
            per_device_train_batch_size=len(samples),
            steps_per_generation=1,
            gradient_accumulation_steps=1,
            gradient_checkpointing_kwargs=None,
        ),
        _generate=lambda given: (
            (prompts, answers, *([None] if grouped else []), answers)
            + ((None, {}, None, None) if grouped else ())
        ),
        _get_per_token_logps_and_entropies=lambda whose, *given, **named: (
            padded(known[id(whose)]),  # type: ignore[arg-type]
            None,
            None,
        ),
        _calculate_rewards=lambda *given: torch.tensor(rewards, dtype=torch.float64)[:, None],
        _metrics={"train": Metrics()},
        _logs=defaultdict(list) | {"rewards": defaultdict(list), "extra": defaultdict(list)},
        _pending_extra_logs={},
        _pending_metrics={},
    )
    of: Any = GRPOTrainer if grouped else RLOOTrainer
    scored = of._generate_and_score_completions(trainer, [{"prompt": "p"}] * len(samples))
    found: list[float] = scored["advantages"].tolist()
    return found


def advantages(method: GRPO | RLOO, groups: Groups, *, unscored: frozenset[int] = frozenset()) -> list[float]:
    """As `trl_advantages`: an answer that could not be scored is not among its group's samples."""
    numbers = iter(range(len(flat(groups))))
    left = [[sample for sample in group if next(numbers) not in unscored] for group in groups]
    items = method.learn([group for group in left if group])
    found = {}
    for item in items:
        assert item.rollout is not None
        own = item.rollout.advantages
        assert bool((own == own[0]).all())
        found[item.where] = float(own[0])
    return [found.get(sample.item.where, 0.0) for sample in flat(groups)]


METHODS = [
    GRPO(samples=SAMPLES),
    GRPO(samples=SAMPLES, scale_rewards="batch", beta=0.0),
    GRPO(samples=SAMPLES, scale_rewards="none"),
    RLOO(samples=SAMPLES, beta=0.0),
    RLOO(samples=SAMPLES, beta=0.3),
    RLOO(samples=SAMPLES, beta=2.0),
]


def name_of(method: GRPO | RLOO) -> str:
    return f"{method.name}-{getattr(method, 'scale_rewards', 'left out')}-{method.beta:g}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_advantages_are_trls(method: GRPO | RLOO, seed: int) -> None:
    groups = made_up(4, SAMPLES, seed=seed)
    ours, theirs = advantages(method, groups), trl_advantages(method, groups)
    assert ours == pytest.approx(theirs, rel=NEAR, abs=1e-12)
    assert len(set(ours)) == 4 * SAMPLES  # no two alike: an answer in another's place would show


@pytest.mark.parametrize("method", METHODS, ids=name_of)
def test_groups_that_agree_and_answers_without_a_reward_are_as_in_trl(method: GRPO | RLOO) -> None:
    """One group of equal rewards, one with two answers unscored, one with all but one, one with all."""
    groups = made_up(5, SAMPLES, seed=8)
    groups[1] = [replace(sample, reward=0.5) for sample in groups[1]]
    unscored = frozenset({9, 10, 12, 13, 15, 16, 17, 18, 19})
    ours, theirs = (of(method, groups, unscored=unscored) for of in (advantages, trl_advantages))
    assert ours == pytest.approx(theirs, rel=NEAR, abs=1e-12)
    assert all(ours[place] == 0 for place in (*unscored, 14))
    assert all(abs(ours[place]) > 1e-3 for place in (0, 8, 11))
    assert (method.name == "rloo" and method.beta > 0) or ours[4:8] == pytest.approx([0.0] * 4, abs=1e-12)


def test_the_penalty_of_rloo_is_that_of_whole_answers() -> None:
    """What the test above would see of a penalty that is dropped, turned round or taken per token."""
    groups = made_up(3, SAMPLES, seed=1)
    right = trl_advantages(RLOO(samples=SAMPLES, beta=0.3), groups)
    dropped = advantages(RLOO(samples=SAMPLES, beta=0.0), groups)
    turned = [
        [replace(s, policy=s.reference, reference=s.policy) for s in group if s.reference is not None]
        for group in groups
    ]
    for wrong in (dropped, advantages(RLOO(samples=SAMPLES, beta=0.3), turned)):
        assert max(abs(a - b) for a, b in zip(right, wrong, strict=True)) > 0.05
