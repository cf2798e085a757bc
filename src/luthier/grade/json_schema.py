"""`json_schema`: the answer is JSON of the right shape; whether its values are right is not asked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import referencing
import referencing.exceptions
from jsonschema.exceptions import SchemaError, best_match
from jsonschema.validators import Draft202012Validator, validator_for

from luthier.errors import DataError, RecipeError
from luthier.examples.example import Example
from luthier.grade.answer_json import NotJson, parse_answer
from luthier.grade.infer_schema import infer_schema
from luthier.grade.score import Score


class JsonSchema:
    """1 when the answer parses (a Markdown fence is allowed) and is valid under the schema, else 0.

    References to other files or the network are never followed.

    Args:
        schema: a JSON Schema; its `$schema` decides the draft, 2020-12 when absent.
        where: the schema's file, for errors.

    Raises:
        RecipeError: it is not a valid JSON Schema.
    """

    name = "json_schema"
    metric = "valid under the schema"

    def __init__(self, schema: Any, *, where: str = "answer_schema") -> None:
        self.schema = schema
        self._where = where
        kind = validator_for(schema, default=Draft202012Validator)
        try:
            kind.check_schema(schema)
        except SchemaError as error:
            place = "/".join(str(part) for part in error.absolute_path) or "the top"
            raise RecipeError(f"not a JSON Schema, at {place}: {error.message:.200}", where=where) from None
        self._validator = kind(schema, registry=referencing.Registry())

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer: 1 or 0; the reference plays no part.

        Raises:
            RecipeError: the schema refers to something outside itself, or to itself without end.
        """
        try:
            value = parse_answer(answer)
        except NotJson as problem:
            return Score(0.0, str(problem), {"parsed": False})
        fault = self._fault(value)
        return Score(1.0 if fault is None else 0.0, fault, {"parsed": True})

    def _fault(self, value: Any) -> str | None:
        try:
            error = best_match(self._validator.iter_errors(value))
        except referencing.exceptions.Unresolvable as unresolved:
            raise RecipeError(
                f"the schema refers to {unresolved.ref!r}, which is not in it",
                where=self._where,
                fix="put the definition under $defs and refer to it as #/$defs/NAME",
            ) from None
        except RecursionError:
            raise RecipeError("the schema refers to itself without end", where=self._where) from None
        if error is None:
            return None
        text = f"{error.json_path}: {error.message:.200}"
        return text.encode("utf-8", "backslashreplace").decode("utf-8")


def build_json_schema(references: Sequence[str], answer_schema: Path | None) -> JsonSchema:
    """The grader under the schema in `answer_schema`, or under one inferred from the reference answers.

    Raises:
        RecipeError: the file is missing, not JSON or not a JSON Schema.
        DataError: there is no file, and the references are not all JSON.
    """
    if answer_schema is None:
        try:
            values = [parse_answer(reference) for reference in references]
        except NotJson as problem:
            values, why = [], str(problem)
        else:
            why = "there are none"
        if not values:
            raise DataError(
                f"no JSON Schema can be inferred from the reference answers: {why}",
                fix="name a schema file under answer_schema, or choose another grader",
            )
        return JsonSchema(infer_schema(values), where="schema inferred from the answers")
    where = str(answer_schema)
    try:
        schema = json.loads(answer_schema.read_text(encoding="utf-8"))
    except OSError as error:
        raise RecipeError(f"answer_schema cannot be read: {error.strerror}", where=where) from None
    except (ValueError, RecursionError) as error:
        raise RecipeError(f"answer_schema is not JSON: {error}", where=where) from None
    grader = JsonSchema(schema, where=where)
    for reference in references[:1]:
        # An unresolvable $ref shows only when it is used: better now than after the answers are paid for.
        grader.grade(reference, reference, Example("", (), where, 1))
    return grader
