"""Which small model suits the task: tried on validation, the best one answers the test side."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

from luthier.errors import RecipeError
from luthier.examples import Example, Split
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import mean_score, recipe_grader, validation_sample
from luthier.progress import Show
from luthier.recipe import Recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from luthier.candidates import Answer


class Small(Protocol):
    """A small model that has been trained."""

    def answer(self, examples: Sequence[Example]) -> list[Answer]: ...


def answer_by_best_scratch(
    recipe: Recipe, models: Models, show: Show, split: Split
) -> tuple[list[Answer], dict[str, Any]]:
    """Answers to the test side of the small model that did best on validation, and how it was chosen.

    Of equal ones the cheaper: n-grams, then the probe, then the decoder.
    """
    kinds, reasons = _suitable(recipe, split)
    asked, tried, made = validation_sample(recipe, split), [], []
    grader = recipe_grader(recipe, split)
    for kind in kinds:
        with show.task(f"scratch: training {NAMES[kind]}", None):
            made.append(_make(kind, recipe, models, split))
        row: dict[str, Any] = {"kind": kind, "score": None, "n": 0}
        if len(kinds) > 1 and asked:
            answers = [answer.as_row() for answer in made[-1].answer(asked)]
            row["score"], row["n"] = mean_score(answers, asked, grader)
        tried.append(row)
    chosen = max(
        range(len(kinds)), key=lambda i: (-1.0 if tried[i]["score"] is None else tried[i]["score"], -i)
    )
    with show.task(f"scratch: answering by {NAMES[kinds[chosen]]}", None):
        answers_of_test = made[chosen].answer(split.test)
    if kinds[chosen] == "probe":
        answers_of_test = [
            _with_tokens(models, a, e) for a, e in zip(answers_of_test, split.test, strict=True)
        ]
    found = {
        "candidate": "scratch",
        "side": "validation",
        "n": len(asked),
        "tried": tried,
        "not_tried": reasons,
        "chosen": chosen,
        "reason": "the best score; of equal ones the cheaper"
        if len(kinds) > 1
        else "the only one that suits",
    }
    return answers_of_test, found


NAMES = {"ngrams": "a linear model on n-grams", "probe": "a linear probe", "decoder": "a tiny decoder"}


def _suitable(recipe: Recipe, split: Split) -> tuple[list[str], dict[str, str]]:
    """The kinds to try, the cheapest first, and why others are not.

    Raises:
        RecipeError: the kind that the recipe asks for does not suit the task.
    """
    from luthier.candidates import is_classification
    from luthier.candidates.scratch_decoder import MIN_EXAMPLES

    reasons = {}
    if not is_classification([example.answer for example in split.train]):
        reasons["probe"] = "the answers are no labels that repeat"
    if recipe_grader(recipe, split).name != "text_similarity":
        reasons["decoder"] = "it is for answers that are graded by text_similarity"
    elif len(split.train) < MIN_EXAMPLES:
        reasons["decoder"] = f"it needs {MIN_EXAMPLES} training examples, and there are {len(split.train)}"
    if recipe.scratch in reasons:
        raise RecipeError(
            f"scratch: {recipe.scratch} does not suit this task: {reasons[recipe.scratch]}",
            fix="use `scratch: auto`",
        )
    if recipe.scratch != "auto":
        return [recipe.scratch], reasons
    return [kind for kind in NAMES if kind not in reasons], reasons


def _make(kind: str, recipe: Recipe, models: Models, split: Split) -> Small:
    from luthier.candidates import Scratch

    if kind == "decoder":
        from luthier.candidates.scratch_decoder import Decoder

        room = recipe.max_new_tokens or models.longest_answer(split.train)
        return Decoder(split.train, split.validation, models.chat, seed=recipe.seed, room=room)
    if kind == "probe":
        from luthier.candidates.embedding import base_embedder

        embed = base_embedder(models.base().model, models.tokenizer)
        return Scratch(split.train, seed=recipe.seed, embed=embed)
    return Scratch(split.train, seed=recipe.seed)


def _with_tokens(models: Models, answer: Answer, example: Example) -> Answer:
    """What the base model reads for the probe is paid for like a prompt."""
    ids = models.tokenizer(example.input, add_special_tokens=False).input_ids
    return replace(answer, prompt_tokens=len(ids), answer_tokens=0)
