"""Rows inside a JSON file that is one object: a list under a key, columns, or rows by name."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from luthier.examples.row import Problem, Row
from luthier.examples.strict_json import parse_json_at

OWN = frozenset(
    (
        "messages",
        "conversations",
        "conversation",
        "chat_messages",
        "contents",
        "prompt",
        "chosen",
        "tools",
        "input",
    )
)
_FOLDS = ("data", "result", "results", "response", "payload", "dataset")  # in which an API has its list
_FILL = "write examples into it"
_BETWEEN = re.compile(r"[ \t\r\n,]*")
Values = dict[str, Any]


def unwrapped(only: Row, source: str, name: str) -> list[Row | Problem]:
    """The rows of a file's only object; the object itself where it is a row.

    A list of rows under a key may have others beside it that hold no rows (`{"version": 1, "data": [...]}`).
    Columns are lists as `Dataset.to_dict` gives them, or objects by number as `DataFrame.to_json` does.

    Args:
        source: the object's text, in which a listed row's line is looked up.
    """
    values = only.values
    keys = _keys_of_lists(values)
    if len(keys) > 1:
        told = ", ".join(map(repr, keys))
        fix = "write each list to a file of its own, and name the files under `data:`"
        return [Problem(f"{name}:{only.line}", f"holds several lists of objects: {told}", fix)]
    if keys:
        lines = _lines_of(values[keys[0]], keys[0], source, only.line)
        return [Row(line, row) for line, row in zip(lines, values[keys[0]], strict=True)]
    if fold := next((values[key] for key in _FOLDS if _holds_rows(values.get(key))), None):
        return unwrapped(Row(only.line, fold), source, name)
    if list(values.values()) == [[]]:
        return [Problem(f"{name}:{only.line}", f"the list under {next(iter(values))!r} is empty", _FILL)]
    rows = _by_columns(values) or _by_number(values) or _by_name(values)
    return [Row(only.line, row) for row in rows] if rows else [only]


def _holds_rows(value: Any) -> bool:
    return isinstance(value, dict) and bool(_keys_of_lists(value))


def _keys_of_lists(values: Mapping[str, Any]) -> list[str]:
    """Under which keys an object has lists of rows; none where it may be a row itself."""
    if OWN & {key.lower() for key in values}:
        return []
    return [
        key
        for key, value in values.items()
        if isinstance(value, list) and value and all(isinstance(own, dict) for own in value)
    ]


def _lines_of(rows: list[Values], key: str, source: str, line: int) -> list[int]:
    """The line on which each row starts; that of the object for all, where they are not found."""
    for match in re.finditer(re.escape(json.dumps(key, ensure_ascii=False)) + r"\s*:\s*\[\s*", source):
        at, lines, counted, seen = match.end(), [], line, 0
        for row in rows:
            counted, seen = counted + source.count("\n", seen, at), at
            try:
                value, end = parse_json_at(source, at)
            except ValueError:
                break
            if value != row:
                break
            lines.append(counted)
            after = _BETWEEN.match(source, end)
            at = after.end() if after else end
        if len(lines) == len(rows):
            return lines
    return [line] * len(rows)


def _by_columns(values: Mapping[str, Any]) -> list[Values]:
    """Rows of columns that are lists of one length, of values that are no conversations."""
    columns = list(values.values())
    if len(columns) < 2 or not all(isinstance(column, list) for column in columns):
        return []
    sizes = {len(column) for column in columns}
    plain = not any(isinstance(value, dict | list) for column in columns for value in column)
    if len(sizes) != 1 or not plain:
        return []
    return [dict(zip(values, row, strict=True)) for row in zip(*columns, strict=True)]


def _by_number(values: Mapping[str, Any]) -> list[Values]:
    """Rows of columns that are objects from "0" on."""
    columns = list(values.values())
    if len(columns) < 2 or not all(isinstance(column, dict) for column in columns):
        return []
    numbers = [str(n) for n in range(len(columns[0]))]
    if not numbers or any(list(column) != numbers for column in columns):
        return []
    return [{key: column[number] for key, column in values.items()} for number in numbers]


def _by_name(values: Mapping[str, Any]) -> list[Values]:
    """Rows that are objects under names of their own, all with the same first column."""
    rows = list(values.values())
    if len(rows) < 2 or not all(isinstance(row, dict) and row for row in rows):
        return []
    first = {next(iter(row)) for row in rows}
    return rows if len(first) == 1 and not OWN & {key.lower() for key in values} else []
