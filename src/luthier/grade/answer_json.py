"""Reading an answer as JSON, strictly, without ever failing in a way a model could provoke."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 32


class NotJson(Exception):  # noqa: N818 - a finding about an answer, not an error of ours
    """The text is not JSON; the message says where it stops being so."""


def parse_answer(text: str) -> Any:
    """The JSON value that is the whole answer, or the whole of one Markdown code fence around it.

    Prose before or after it is refused: a program that uses the answer would choke on it. So are
    NaN and Infinity, which are not JSON, and values nested deeper than 32.

    Raises:
        NotJson: the answer is something else.
    """
    body = _unfence(text.strip())
    if not body:
        raise NotJson("the answer is empty")
    try:
        value = json.loads(body, parse_constant=_refuse, parse_float=_finite)
    except RecursionError:
        raise NotJson(f"nested deeper than {MAX_DEPTH}") from None
    except json.JSONDecodeError as error:
        raise NotJson(f"not JSON: {error.msg} at character {error.pos}") from None
    except ValueError as error:
        raise NotJson(f"not JSON: {error}") from None
    level: list[Any] = [value]
    for _ in range(MAX_DEPTH):
        level = [inner for outer in level for inner in _children(outer)]
        if not level:
            return value
    raise NotJson(f"nested deeper than {MAX_DEPTH}")


def parse_object(text: str) -> dict[str, Any]:
    """`parse_answer`, where only an object will do.

    Raises:
        NotJson: the answer is something else.
    """
    value = parse_answer(text)
    if not isinstance(value, dict):
        raise NotJson(f"a JSON {json_type(value)}, not an object")
    return value


def is_object(text: str) -> bool:
    """Whether a text is a JSON object for `parse_object`."""
    try:
        parse_object(text)
    except NotJson:
        return False
    return True


def json_type(value: Any) -> str:
    """The JSON Schema type of a parsed value; a whole number is an `integer`."""
    if value is None:
        return "null"
    names = {bool: "boolean", int: "integer", float: "number", str: "string", list: "array", dict: "object"}
    return names[type(value)]


def _unfence(text: str) -> str:
    if len(text) < 6 or not (text.startswith("```") and text.endswith("```")):
        return text
    body = text[3:-3]
    return (body[4:] if body[:4].lower() == "json" else body).strip()


def _children(value: Any) -> list[Any]:
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


def _finite(digits: str) -> float:
    number = float(digits)
    return number if math.isfinite(number) else _refuse(digits)


def _refuse(constant: str) -> NoReturn:
    raise ValueError(f"{constant:.40} is no number that JSON can hold")
