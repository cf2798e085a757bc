"""Candidates that do not write: reward models choose among given answers, classifiers name a label."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from luthier.errors import DataError
from luthier.examples import Example, Split
from luthier.pipeline.encoders import read_requests
from luthier.pipeline.models import Models
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.recipe.method_options import method_name

if TYPE_CHECKING:
    from luthier.candidates import Answer
    from luthier.chat import TrainingSequence
    from luthier.models import Model


def chooses(recipe: Recipe, name: str) -> bool:
    """Whether a candidate is asked here, and writes nothing."""
    kind = method_name(recipe.method)
    return kind == "reward" or (kind == "classify" and name == "tuned")


def chosen_answers(
    recipe: Recipe, models: Models, show: Show, name: str, asked: Sequence[Example], split: Split
) -> list[Answer]:
    """A candidate's answers to `asked`: the one it prefers of each example's, or a label.

    Raises:
        DataError: as `choose_by_head`.
    """
    from luthier.candidates.preferring import PreferredWords, choose, likelihood

    if method_name(recipe.method) == "classify":
        with show.task(f"{name}: answering", None):
            return choose_by_head(recipe, models, models.tuned(), asked)
    _refuse_nothing_worse(asked)
    with show.task(f"{name}: choosing among {sum(1 + len(e.rejected) for e in asked)} answers", None):
        if name == "scratch":
            return PreferredWords(split.train, seed=recipe.seed).answer(asked)
        if name == "tuned":
            return choose_by_head(recipe, models, models.tuned(), asked)
        return choose(asked, likelihood(models.base().model), models.chat, recipe.system)


def choose_by_head(recipe: Recipe, models: Models, model: Model, asked: Sequence[Example]) -> list[Answer]:
    """What a model that the recipe's method gave a head says: a label, or the answer it prefers.

    Raises:
        DataError: an example has no worse answer, so that there is nothing to choose from; a request that
            is to be labelled does not fit the model.
    """
    from luthier.candidates import seen_by_tuned
    from luthier.candidates.preferring import choose, name_labels

    seen, system = seen_by_tuned(asked, recipe.tuned_system), recipe.system_of("tuned")
    if method_name(recipe.method) == "classify":
        requests = read_requests(models, seen, system)
        _refuse_too_long(models, seen, requests)
        return name_labels(model, seen, requests)
    _refuse_nothing_worse(asked)
    return choose(seen, partial(_rewards, model), models.chat, system)


def _rewards(model: Model, sequences: Sequence[TrainingSequence]) -> list[float]:
    from luthier.train.outputs import score_sequences

    return score_sequences(model, [sequence.ids for sequence in sequences])[:, 0].tolist()


def _refuse_nothing_worse(asked: Sequence[Example]) -> None:
    for example in asked:
        if not example.rejected:
            raise DataError(
                "a held-out example has no rejected answer, so there is nothing to choose from",
                where=example.where,
                fix="write prompt, chosen and rejected",
            )


def _refuse_too_long(
    models: Models, examples: Sequence[Example], requests: Sequence[tuple[str, Sequence[int]]]
) -> None:
    limit = models.context_limit()
    for example, (_, ids) in zip(examples, requests, strict=True):
        if limit is not None and len(ids) > limit:
            raise DataError(
                f"a request of {len(ids)} tokens does not fit the model's {limit}",
                where=example.where,
                fix="shorten or split it; Luthier never cuts examples silently",
            )
