"""A JSON Schema that describes example values, for when the user gives none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from luthier.grade.answer_json import json_type

MAX_CHOICES = 20
REPEATS = 5


def infer_schema(values: Sequence[Any]) -> dict[str, Any]:
    """The schema of parsed JSON values: every one of them is valid under it.

    - Objects: the properties seen, `required` when in every object, and no others.
    - Strings: an `enum` when at most 20 distinct ones repeat (5 times on average), else any string.
    - Numbers: `integer` when all are whole, else `number`.
    - Several types in one place become `anyOf`; items of all lists in one place share a schema.

    Args:
        values: as `json.loads` returns them; none at all gives the schema that allows anything.
    """
    by_type: dict[str, list[Any]] = {}
    for value in values:
        by_type.setdefault(json_type(value), []).append(value)
    if "number" in by_type:
        by_type["number"] += by_type.pop("integer", [])
    schemas = [_describe(name, by_type[name]) for name in sorted(by_type)]
    if len(schemas) == 1:
        return schemas[0]
    return {"anyOf": schemas} if schemas else {}


def _describe(name: str, values: list[Any]) -> dict[str, Any]:
    if name == "object":
        keys = sorted({key for value in values for key in value})
        return {
            "type": "object",
            "properties": {key: infer_schema([v[key] for v in values if key in v]) for key in keys},
            "required": [key for key in keys if all(key in value for value in values)],
            "additionalProperties": False,
        }
    if name == "array":
        return {"type": "array", "items": infer_schema([item for value in values for item in value])}
    if name == "string":
        choices = sorted(set(values))
        if len(choices) <= MAX_CHOICES and len(values) >= REPEATS * len(choices):
            return {"type": "string", "enum": choices}
    return {"type": name}
