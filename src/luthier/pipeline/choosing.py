"""Candidates that do not write: reward models choose among given answers, classifiers name a label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from luthier.errors import DataError
from luthier.examples import Example, Split
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.method_options import method_name

if TYPE_CHECKING:
    from luthier.candidates import Answer
    from luthier.chat import TrainingSequence


def chooses(recipe: Recipe, name: str) -> bool:
    """Whether a candidate is asked here, and writes nothing."""
    kind = method_name(recipe.method)
    return kind == "reward" or (kind == "classify" and name == "tuned")


def chosen_answers(
    recipe: Recipe, models: Models, show: Show, name: str, asked: Sequence[Example], split: Split
) -> list[Answer]:
    """A candidate's answers to `asked`: the one it prefers of each example's, or a label.

    Raises:
        DataError: an example has no worse answer, so that there is nothing to choose from.
    """
    from luthier.candidates import seen_by_tuned
    from luthier.candidates.preferring import PreferredWords, choose, likelihood, name_labels

    if method_name(recipe.method) == "classify":
        seen = seen_by_tuned(asked, recipe.tuned_system)
        with show.task(f"{name}: answering", None):
            return name_labels(models.tuned(), seen, models.chat, recipe.system_of("tuned"))
    for example in asked:
        if not example.rejected:
            raise DataError(
                "a held-out example has no rejected answer, so there is nothing to choose from",
                where=example.where,
                fix="write prompt, chosen and rejected",
            )
    with show.task(f"{name}: choosing among {sum(1 + len(e.rejected) for e in asked)} answers", None):
        if name == "scratch":
            return PreferredWords(split.train, seed=recipe.seed).answer(asked)
        if name == "tuned":
            worth = partial(rewards, models)
            seen = seen_by_tuned(asked, recipe.tuned_system)
            return choose(seen, worth, models.chat, recipe.system_of("tuned"))
        return choose(asked, likelihood(models.base().model), models.chat, recipe.system)


def rewards(models: Models, sequences: Sequence[TrainingSequence]) -> list[float]:
    """What the run's reward model says of prompts with an answer."""
    from luthier.train.outputs import score_sequences

    return score_sequences(models.tuned(), [sequence.ids for sequence in sequences])[:, 0].tolist()
