"""JSON without what parsers let through: repeated keys, NaN, infinity, half a surrogate pair.

Each of these would lose or break something further on without a word.
"""

from __future__ import annotations

import json
import math
from typing import Any


def parse_json(text: str) -> Any:
    """A JSON value, strictly.

    Raises:
        ValueError: it is not JSON, repeats a key, or holds NaN, infinity or half a surrogate pair.
    """
    value, end = parse_json_at(text, len(text) - len(text.lstrip()))
    if text[end:].strip():
        raise ValueError(f"text after the end of the value at column {end + 1}")
    return value


def parse_json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that starts at `position` and where it ends; raises as `parse_json`."""
    try:
        value, end = _DECODER.raw_decode(text, position)
    except json.JSONDecodeError as error:
        line = f" of line {error.lineno}" if error.lineno > 1 else ""
        raise ValueError(f"{error.msg} at column {error.colno}{line}") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text[position:end]:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("half of a surrogate pair (\\ud800 to \\udfff)") from None
    return value, end


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"key {twice!r} appears twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"the number {text} is too large")
    return value


def _refuse(name: str) -> float:
    raise ValueError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse)
