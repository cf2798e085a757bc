"""Online methods in a run: what the answers that a model writes are worth to its training."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from luthier.examples import Example, Split
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import build_reward_grader
from luthier.recipe import Recipe
from luthier.record import Record

if TYPE_CHECKING:
    from luthier.methods.online import Online
    from luthier.models import Model
    from luthier.train.rollouts import Reward, Rollouts

ROLLOUTS = "train/rollouts"


def build_rollouts(
    record: Record, recipe: Recipe, models: Models, split: Split, model: Model, method: Online
) -> Rollouts:
    """What the steps of an online method train on, sampled from `model`, which is about to be trained."""
    from luthier.train.rollouts import Rollouts

    return Rollouts(
        model=model,
        method=method,
        chat=models.chat,
        reward=build_reward(recipe, split),
        untrained=lambda: untrained(models, model),
        max_new_tokens=recipe.max_new_tokens or models.longest_answer(split.train),
        seed=recipe.seed,
        folder=record / ROLLOUTS,
    )


def build_reward(recipe: Recipe, split: Split) -> Reward:
    """The recipe's `reward`, or what its grader gives."""
    from luthier.grade.score import reward_all

    grader = build_reward_grader(recipe, split)

    def reward(examples: Sequence[Example], answers: Sequence[str]) -> list[float | None]:
        cases = [(answer, e.answer, e) for e, answer in zip(examples, answers, strict=True)]
        return reward_all(grader, cases)

    return reward


@contextlib.contextmanager
def untrained(models: Models, model: Model) -> Iterator[Model]:
    """The base model while another, made of it, is in training: an adapter is switched off for a while."""
    from peft import PeftModel

    if isinstance(model, PeftModel):
        with model.disable_adapter():
            yield model
    else:
        yield models.base().model
