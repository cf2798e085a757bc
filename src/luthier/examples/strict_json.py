"""JSON without what parsers let through: repeated keys, NaN, infinity, half a surrogate pair, deep nesting.

Each of these would lose or break something further on without a word.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

DEPTH_LIMIT = 100
TOO_DEEP = f"nested too deeply (more than {DEPTH_LIMIT} levels)"


class BadJSONError(ValueError):
    """A text is not JSON, or breaks a rule of ours.

    Args:
        message: what is wrong.
        at: position in the text where it stops being JSON; None where a rule of ours is broken.
    """

    def __init__(self, message: str, at: int | None = None) -> None:
        self.at = at
        super().__init__(message)


def parse_json(text: str) -> Any:
    """A JSON value, strictly.

    Raises:
        BadJSONError: it is not JSON, repeats a key, holds NaN, infinity or half a surrogate pair, or is
            nested more than `DEPTH_LIMIT` deep.
    """
    value, end = parse_json_at(text, len(text) - len(text.lstrip()))
    if end < len(text) and text[end:].strip():
        raise BadJSONError(f"text after the end of the value at column {end + 1}", end)
    return value


def parse_json_at(text: str, position: int) -> tuple[Any, int]:
    """The JSON value that starts at `position` and where it ends; raises as `parse_json`."""
    try:
        value, end = _scan(text, position)
    except StopIteration as stop:
        raise _explain(json.JSONDecodeError("Expecting value", text, stop.value), position) from None
    except json.JSONDecodeError as error:
        raise _explain(error, position) from None
    except RecursionError:
        raise BadJSONError(TOO_DEEP, position) from None
    except BadJSONError:
        raise
    except ValueError:
        raise BadJSONError("a number has thousands of digits") from None
    if text.count("\\u", position, end):
        _refuse_half_pairs(value)
    if text.count("[", position, end) + text.count("{", position, end) > DEPTH_LIMIT:
        _refuse_depth(value)
    return value, end


def end_of_json(text: str, position: int) -> int | None:
    """Where a value that `parse_json_at` refuses ends for laxer parsers; None where it is no JSON at all."""
    try:
        return _LAX.raw_decode(text, position)[1]
    except (ValueError, RecursionError):
        return None


def _explain(error: json.JSONDecodeError, position: int) -> BadJSONError:
    """The error with its place in the value that starts at `position`, whatever stands before it."""
    within = error.doc.count("\n", position, error.pos)
    line = f" of its line {within + 1}" if within else ""
    at = len(error.doc) if error.msg.startswith("Unterminated string") else error.pos
    return BadJSONError(f"{error.msg.removesuffix(' at')} at column {error.colno}{line}", at)


def _refuse_half_pairs(value: Any) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise BadJSONError("half of a surrogate pair (\\ud800 to \\udfff)") from None
    except RecursionError:
        raise BadJSONError(TOO_DEEP) from None


def _refuse_depth(value: Any) -> None:
    """Walk without recursion: what is nested deeply breaks whoever writes it again."""
    level = [value]
    for _ in range(DEPTH_LIMIT + 1):
        level = [
            item
            for outer in level
            if isinstance(outer, dict | list)
            for item in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return
    raise BadJSONError(TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise BadJSONError(f"key {twice!r} appears twice in one object")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise BadJSONError(f"the number {text} is too large")
    return value


def _refuse(name: str) -> float:
    raise BadJSONError(f"{name} is not a JSON number")


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_float=_finite, parse_constant=_refuse)
_scan: Callable[[str, int], tuple[Any, int]] = vars(_DECODER)["scan_once"]  # less work than raw_decode
_LAX = json.JSONDecoder(parse_int=str, parse_float=str, object_pairs_hook=len)
