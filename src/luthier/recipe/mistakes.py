"""What a recipe's mistakes are told as: the key, what was expected and got, the nearest key there is."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, get_args

from pydantic import BaseModel, ValidationError

from luthier.recipe.data_options import TaskFile
from luthier.recipe.grader_options import GRADER_TAGS
from luthier.recipe.method_options import METHOD_SECTIONS

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

EXPECTED = {  # in the words of YAML rather than of Python
    "tuple_type": "a list, such as [prompt, tuned]",
    "model_type": "a mapping of keys",
    "string_type": "a text: put it in quotes",
    "int_type": "a whole number",
    "int_parsing": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "float_parsing": "a number",
    "finite_number": "a finite number",
}


# sections of several kinds, in whose places pydantic puts the kind
TAGGED: dict[tuple[Any, ...], Mapping[str, type[BaseModel]]] = {
    ("grader",): GRADER_TAGS,
    ("reward",): GRADER_TAGS,
    ("method",): METHOD_SECTIONS,
}


def _section_keys(location: tuple[Any, ...], recipe: type[BaseModel]) -> list[str]:
    model: Any = recipe
    if location[:3] == ("data", "train", "tasks"):
        model, location = TaskFile, location[4:]
    if location[:1] in TAGGED and len(location) > 1:
        model, location = TAGGED[location[:1]][location[1]], location[2:]
    for part in location:
        field = model.model_fields.get(part) if hasattr(model, "model_fields") else None
        if field is None:
            break
        annotation = field.annotation
        nested = [a for a in (annotation, *get_args(annotation)) if hasattr(a, "model_fields")]
        if not nested:
            break
        model = nested[0]
    return [field.alias or name for name, field in model.model_fields.items()]


def _first(error: ValidationError) -> ErrorDetails:
    """A misspelt key explains a missing one, so it is told first."""
    found = error.errors()
    return next((detail for detail in found if detail["type"] == "extra_forbidden"), found[0])


def _keys(location: tuple[Any, ...]) -> list[str]:
    """The keys of the recipe on the way to a place: without pydantic's names for the members of a union."""
    if location[:1] in TAGGED:
        location = (*location[:1], *location[2:])
    if location[:2] == ("data", "train"):
        location = (*location[:2], *location[3:])
    return [str(part) for part in location if part not in ("float", "literal['auto']")]


def explain_mistake(error: ValidationError) -> str:
    """The first mistake of a recipe, in the words of YAML."""
    first = _first(error)
    key = ".".join(_keys(first["loc"]))
    if first["type"] == "extra_forbidden":
        return f"unknown key {key!r}"
    if first["type"] == "missing":
        return f"missing key {key!r}"
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] in EXPECTED:
        message = f"expected {EXPECTED[first['type']]}"
    if key == "train.learning_rate" and first["type"] == "float_parsing":
        message = "expected a number or auto"
    received = first.get("input")
    shown = f" (got {received!r})" if key and not isinstance(received, dict) else ""
    return f"{key}: {message}{shown}" if key else message


def suggest_key(error: ValidationError, recipe: type[BaseModel]) -> str | None:
    """What was probably meant; None where nothing is near."""
    first = _first(error)
    if first["type"] == "literal_error":
        known = re.findall(r"'([^']+)'", first["ctx"]["expected"])
        near = difflib.get_close_matches(str(first["input"]), known, n=1)
        return f"did you mean {near[0]!r}?" if near else None
    if first["type"] != "extra_forbidden":
        return None
    known = _section_keys(first["loc"][:-1], recipe)
    *parents, key = _keys(first["loc"])
    near = difflib.get_close_matches(key, known, n=1, cutoff=0.5)
    prefix = "".join(f"{p}." for p in parents)
    return f"did you mean {prefix + near[0]!r}?" if near else f"known keys here: {', '.join(known)}"
