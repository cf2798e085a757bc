"""Which grader suits the answers, and building the one a recipe names."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from luthier.errors import DataError, RecipeError
from luthier.grade.answer_json import is_object
from luthier.grade.json_fields import JsonFields
from luthier.grade.json_schema import build_json_schema
from luthier.grade.label import Label, normalise_label
from luthier.grade.numeric import Numeric
from luthier.grade.python_file import PythonFile
from luthier.grade.score import Grader
from luthier.grade.text import StringCheck, TextSimilarity
from luthier.recipe.grader_options import (
    PYTHON,
    GraderOptions,
    NumericOptions,
    PlainGrader,
    RewardModelOptions,
    RubricOptions,
    StringCheckOptions,
    TextSimilarityOptions,
)

MAX_LABELS = 20
LABEL_CHARACTERS = 40
SHORT_CHARACTERS = 80

Builder = Callable[[Sequence[str], Path | None], Grader]

# a grader by its name alone, with every option at its default
BUILDERS: Mapping[str, Builder] = {
    "label": lambda references, schema: Label(references),
    "string_check": lambda references, schema: StringCheck(),
    "text_similarity": lambda references, schema: TextSimilarity(),
    "json_schema": build_json_schema,
    "json_fields": lambda references, schema: JsonFields(),
    "numeric": lambda references, schema: Numeric(),
}


def choose_grader(answers: Sequence[str]) -> str:
    """The grader that suits reference answers, by name.

    - all JSON objects: `json_fields`
    - at most 20 distinct labels of at most 40 characters, each used twice on average: `label`
    - all on one line of at most 80 characters: `string_check`
    - else `text_similarity`

    Raises:
        DataError: there are no answers.
    """
    if not answers:
        raise DataError("there are no answers to choose a grader from", fix="check the examples file")
    stripped = [answer.strip() for answer in answers]
    if all(map(is_object, stripped)):
        return "json_fields"
    longest = max(map(len, stripped))
    if any(len(answer.splitlines()) > 1 for answer in stripped) or longest > SHORT_CHARACTERS:
        return "text_similarity"
    labels = {normalise_label(answer) for answer in stripped}
    repeat = len(stripped) >= 2 * len(labels)
    if repeat and len(labels) <= MAX_LABELS and longest <= LABEL_CHARACTERS:
        return "label"
    return "string_check"


def build_grader(
    name: str | GraderOptions, references: Sequence[str], *, answer_schema: Path | None
) -> Grader:
    """The grader called `name`, or of that kind and with those options.

    Args:
        name: a key of `BUILDERS`, `python:file.py:function`, or a section of the recipe.
        references: reference answers: the label set of `label`, and what `json_schema` infers from.
        answer_schema: JSON Schema file, for `json_schema` only.

    Raises:
        RecipeError: the name, the schema or the Python file is no good.
        DataError: the references do not suit the grader.
    """
    if not isinstance(name, str):
        return _with_options(name, references, answer_schema)
    if name.startswith(PYTHON):
        return PythonFile(name)
    if name not in BUILDERS:
        near = difflib.get_close_matches(name, BUILDERS, n=1)
        known = f"{', '.join(BUILDERS)} or python:FILE.py:FUNCTION"
        fix = f"did you mean {near[0]!r}?" if near else f"use one of {known}"
        raise RecipeError(f"unknown grader {name!r}", fix=fix)
    return BUILDERS[name](references, answer_schema)


def _with_options(options: GraderOptions, references: Sequence[str], answer_schema: Path | None) -> Grader:
    if isinstance(options, StringCheckOptions):
        return StringCheck(ignore_case=options.ignore_case)
    if isinstance(options, TextSimilarityOptions):
        return TextSimilarity(options.metric)
    if isinstance(options, NumericOptions):
        return Numeric(tolerance=options.tolerance, relative=options.relative)
    if isinstance(options, PlainGrader):
        return BUILDERS[options.kind](references, answer_schema)
    if isinstance(options, RewardModelOptions):
        from luthier.grade.reward_model import RewardModel

        return RewardModel(options)
    from luthier.grade.judged import Pairwise, Rubric

    return Rubric(options) if isinstance(options, RubricOptions) else Pairwise(options)
