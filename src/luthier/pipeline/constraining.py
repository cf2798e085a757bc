"""What the recipe lets answers be: from the training answers and the user's schema, never held-out ones."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from luthier.errors import DataError
from luthier.examples import Split
from luthier.pipeline.models import Models
from luthier.recipe import Recipe
from luthier.recipe.grader_options import grader_kind
from luthier.record import sha256_of

if TYPE_CHECKING:
    from luthier.constrain import Constraint

KINDS = {"label": "labels", "json_schema": "schema", "json_fields": "schema"}  # what `auto` is, by grader


def build_constraint(recipe: Recipe, models: Models, split: Split) -> Constraint | None:
    """The constraint that the recipe asks for; None for free answers.

    Raises:
        DataError: the training answers are no fixed set of labels, or no JSON.
        RecipeError: the schema is no good.
        ModelError: llguidance is missing, or cannot read the tokenizer.
    """
    kind: str = recipe.constrain
    answers = [example.answer for example in split.train]
    if kind == "auto":
        from luthier.grade import choose_grader

        kind = KINDS.get(grader_kind(recipe.grader) or choose_grader(answers), "none")
    if kind != "none" and any(example.messages[-1].tool_calls for example in split.train):
        if recipe.constrain == "auto":
            return None  # each model writes calls in a form of its own
        raise DataError(
            f"`constrain: {kind}` is for answers of one form, and some of these call tools",
            fix="use `constrain: none`",
        )
    if kind == "labels":
        return _labels(models, answers)
    return _schema(recipe, models, answers) if kind == "schema" else None


def constraint_inputs(recipe: Recipe) -> dict[str, Any]:
    """What answers are kept to, as inputs of a stage; nothing for free ones, which no schema changes."""
    if recipe.constrain == "none":
        return {}
    file = recipe.answer_schema
    return {
        "schema": None if file is None else sha256_of(Path(file)),
        "kind": grader_kind(recipe.grader),
        "constrain": recipe.constrain,
    }


def _labels(models: Models, answers: list[str]) -> Constraint:
    from luthier.constrain import OneOfLabels
    from luthier.grade.label import normalise_label

    spellings: dict[str, Counter[str]] = {}
    for answer in answers:
        spellings.setdefault(normalise_label(answer), Counter())[answer.strip()] += 1
    if 2 * len(spellings) > len(answers):
        raise DataError(
            f"{len(answers)} training answers are {len(spellings)} texts: that is no set of labels",
            fix="use `constrain: none`, or `schema` for JSON",
        )
    return OneOfLabels([count.most_common(1)[0][0] for count in spellings.values()], models.chat)


def _schema(recipe: Recipe, models: Models, answers: list[str]) -> Constraint:
    from luthier.constrain import JsonUnderSchema, order_properties
    from luthier.grade.answer_json import NotJson, parse_answer
    from luthier.grade.json_schema import build_json_schema

    file = None if recipe.answer_schema is None else Path(recipe.answer_schema)
    schema = build_json_schema(answers, answer_schema=file).schema
    values = []
    for answer in answers:
        try:
            values.append(parse_answer(answer))
        except NotJson:
            continue  # with a schema of the user's own, an odd training answer says nothing of the order
    return JsonUnderSchema(order_properties(schema, values), models.chat, answers)
