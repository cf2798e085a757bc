"""`json_fields`: the share of fields that are exactly right."""

from __future__ import annotations

import unicodedata
from typing import Any

from luthier.examples.example import Example
from luthier.grade.answer_json import NotJson, parse_object
from luthier.grade.score import Score

Fields = dict[tuple[str, ...], Any]


class JsonFields:
    """Right fields over all fields that the reference or the answer has.

    A missing field and an extra one both count as wrong. Fields of nested objects count one by one
    (`address.city`); a list is one field, right when its items are, in order. Strings are compared
    in NFC, stripped and case-folded; numbers as numbers, so 1 is 1.0, but "1" and true are not 1.
    """

    name = "json_fields"
    metric = "fields right"

    def grade(self, answer: str, reference: str, example: Example) -> Score:
        """Score one answer. An unreadable answer is 0; an unreadable reference leaves it unscored.

        Detail: `fields`, 1 or 0 by field name.
        """
        try:
            expected = flatten(parse_object(reference))
        except NotJson as problem:
            return Score(None, f"the reference is no JSON object: {problem}")
        try:
            given = flatten(parse_object(answer))
        except NotJson as problem:
            return Score(0.0, str(problem), {"fields": {_show(path): 0 for path in expected}})
        paths = list(expected) + [path for path in given if path not in expected]
        right = {
            path: int(path in expected and path in given and same_value(expected[path], given[path]))
            for path in paths
        }
        value = sum(right.values()) / len(right) if right else 1.0
        wrong = [_show(path) for path, ok in right.items() if not ok]
        reason = f"wrong: {', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}" if wrong else None
        return Score(value, reason, {"fields": {_show(path): ok for path, ok in right.items()}})


def flatten(value: dict[str, Any], prefix: tuple[str, ...] = ()) -> Fields:
    """Leaf fields by path. Lists and empty objects are leaves."""
    fields: Fields = {}
    for key, inner in value.items():
        path = (*prefix, key)
        fields.update(flatten(inner, path) if isinstance(inner, dict) and inner else {path: inner})
    return fields


def same_value(a: Any, b: Any) -> bool:
    """Whether two parsed JSON values mean the same, by the rules of `JsonFields`."""
    if isinstance(a, bool) or isinstance(b, bool):
        return a is b
    if isinstance(a, str) and isinstance(b, str):
        return _fold(a) == _fold(b)
    if isinstance(a, (int, float)) and isinstance(b, (int, float)):
        return a == b
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same_value, a, b))
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same_value(a[key], b[key]) for key in a)
    return a is None and b is None


def _fold(text: str) -> str:
    return unicodedata.normalize("NFC", text.strip().casefold())


def _show(path: tuple[str, ...]) -> str:
    # A model may write half a surrogate pair as \ud800, which no UTF-8 file can hold.
    return ".".join(path).encode("utf-8", "backslashreplace").decode("utf-8")
