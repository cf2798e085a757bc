"""How the answers to validation requests fare while a model is trained: written, or chosen by its head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from luthier.examples import Split
from luthier.pipeline.choosing import choose_by_head, chooses
from luthier.pipeline.constraining import build_constraint
from luthier.pipeline.models import Models
from luthier.pipeline.rewarding import build_reward
from luthier.pipeline.scoring import mean_score, recipe_grader, validation_sample
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from luthier.candidates import Answer
    from luthier.models import Model


class HeldOut:
    """Answers to validation prompts, as training goes on: their score, and what watches the reward.

    They are the greedy ones, or those that a head chooses.

    A reward that is gamed goes up on the prompts trained on, and here not, or here too while the score, the
    length or the variety of the answers go another way.
    """

    def __init__(self, recipe: Recipe, models: Models, split: Split, model: Model) -> None:
        self._recipe, self._models, self._split, self._model = recipe, models, split, model
        self._asked = validation_sample(recipe, split)
        self._grader = recipe_grader(recipe, split)
        self._reward = None if recipe.reward is None else build_reward(recipe, split)
        self._numbers: dict[str, float | None] = {}

    def score(self) -> float | None:
        """Mean score of the validation side, or of 64 of it drawn by the seed; None where none had any.

        It chooses an epoch and is no estimate of anything: the epoch that it chose got a lucky one.
        """
        if not self._asked:
            return None
        if chooses(self._recipe, "tuned"):
            answers = choose_by_head(self._recipe, self._models, self._model, self._asked)
        else:
            answers = self._written()
        return mean_score([answer.as_row() for answer in answers], self._asked, self._grader)[0]

    def _written(self) -> list[Answer]:
        from luthier.candidates import ask, prompt_messages, seen_by_tuned

        recipe, models = self._recipe, self._models
        seen = seen_by_tuned(self._asked, recipe.tuned_system)
        system = recipe.system_of("tuned")
        answers = ask(
            self._model,
            models.chat,
            {example.id: prompt_messages(example, models.chat, system) for example in seen},
            max_new_tokens=recipe.max_new_tokens or models.longest_answer(self._split.train),
            constraint=build_constraint(recipe, models, self._split),
        )
        texts = [answer.answer for answer in answers]
        self._numbers = {
            "validation_answer_tokens": _mean([answer.answer_tokens for answer in answers]),
            "validation_distinct": len(set(texts)) / len(texts),
        }
        if self._reward is not None:
            self._numbers["validation_reward"] = _mean(self._reward(self._asked, texts))
        return answers

    def watch(self) -> Mapping[str, float | None]:
        """Numbers of the answers that were scored last."""
        return self._numbers


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
