"""Answers to scores: the recipe's grader, and the score that chooses an epoch."""

from __future__ import annotations

import random
from pathlib import Path
from typing import TYPE_CHECKING

from luthier.examples import Split
from luthier.pipeline.models import Models
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from luthier.forest.logprobs import Model
    from luthier.grade import Grader

VALIDATION_ANSWERS = 64  # a standard error of at most 6 points: enough to tell epochs apart that matter


def recipe_grader(recipe: Recipe, split: Split) -> Grader:
    """The grader that the recipe names, or that its training answers ask for."""
    from luthier.grade import build_grader, choose_grader

    references = [example.answer for example in split.train]
    schema = None if recipe.answer_schema is None else Path(recipe.answer_schema)
    return build_grader(recipe.grader or choose_grader(references), references, answer_schema=schema)


def validation_score(recipe: Recipe, models: Models, split: Split, model: Model) -> float | None:
    """Mean score of a model's answers to the validation side, or to 64 of it drawn by the seed.

    It chooses an epoch and is no estimate of anything: the epoch that it chose got a lucky one.
    None where nothing could be scored.
    """
    from luthier.candidates import ask, prompt_messages
    from luthier.evaluation import grade_answers

    chosen = list(split.validation)
    if len(chosen) > VALIDATION_ANSWERS:
        chosen = random.Random(f"{recipe.seed}/validation").sample(chosen, VALIDATION_ANSWERS)
    if not chosen:
        return None
    asked = {example.id: prompt_messages(example, models.chat, recipe.system) for example in chosen}
    longest = recipe.max_new_tokens or models.longest_answer(split.train)
    answers = ask(model, models.chat, asked, max_new_tokens=longest)
    rows = grade_answers([answer.as_row() for answer in answers], chosen, recipe_grader(recipe, split))
    scores = [row["score"] for row in rows if row["score"] is not None]
    return sum(scores) / len(scores) if scores else None
