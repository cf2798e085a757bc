"""`json_fields`: the share of fields that are exactly right."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.examples.example import Example
from luthier.grade.answer_json import NotJson, parse_object
from luthier.grade.score import Score
from luthier.stats import wilson

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

        Detail: `fields`, 1 or 0 by field name; `missing` and `extra`, the names of those that only the
        reference or only the answer has; `parsed`, whether the answer was an object at all.
        """
        try:
            expected = flatten(parse_object(reference))
        except NotJson as problem:
            return Score(None, f"the reference is no JSON object: {problem}")
        try:
            given = flatten(parse_object(answer))
        except NotJson as problem:
            names = [_show(path) for path in expected]
            detail = {"fields": dict.fromkeys(names, 0), "missing": names, "extra": [], "parsed": False}
            return Score(0.0, str(problem), detail)
        paths = list(expected) + [path for path in given if path not in expected]
        right = {
            path: int(path in expected and path in given and same_value(expected[path], given[path]))
            for path in paths
        }
        value = sum(right.values()) / len(right) if right else 1.0
        wrong = [_show(path) for path, ok in right.items() if not ok]
        reason = f"wrong: {', '.join(wrong[:5])}{' ...' if len(wrong) > 5 else ''}" if wrong else None
        detail = {
            "fields": {_show(path): ok for path, ok in right.items()},
            "missing": [_show(path) for path in expected if path not in given],
            "extra": [_show(path) for path in given if path not in expected],
            "parsed": True,
        }
        return Score(value, reason, detail)

    def summarise(self, rows: Sequence[Mapping[str, Any]], clusters: Sequence[str] | None) -> dict[str, Any]:
        """What the fields of a candidate's answers come to, beside their mean.

        Args:
            rows: graded answers with `score` and `detail`; unscored ones are left out.

        Returns:
            `fields`: by name, over the answers whose reference has the field, `n`, `accuracy` with
            Wilson's interval `low`, `high`, and `missing`, in how many it was left out; the worst first.
            `extra_fields`: how many answers have a field that their reference lacks, by name.
            `unreadable`: how many answers are no JSON object; they count in the fields as missing.
        """
        details = [row["detail"] for row in rows if row["score"] is not None]
        right: Counter[str] = Counter()
        asked: Counter[str] = Counter()
        missing: Counter[str] = Counter()
        extra: Counter[str] = Counter()
        for detail in details:
            own = {name: ok for name, ok in detail["fields"].items() if name not in detail["extra"]}
            asked.update(own.keys())
            right.update(name for name, ok in own.items() if ok)
            missing.update(detail["missing"])
            extra.update(detail["extra"])
        fields = {name: _field(right[name], n, missing[name]) for name, n in asked.items()}
        worst_first = sorted(fields.items(), key=lambda item: (item[1]["accuracy"], item[0]))
        return {
            "fields": dict(worst_first),
            "extra_fields": dict(extra.most_common()),
            "unreadable": sum(not detail["parsed"] for detail in details),
        }


def _field(right: int, n: int, missing: int) -> dict[str, Any]:
    low, high = wilson(right, n)
    return {"n": n, "accuracy": right / n, "low": low, "high": high, "missing": missing}


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
