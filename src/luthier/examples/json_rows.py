"""Rows of JSON Lines, and of a JSON file that is one list."""

from __future__ import annotations

import io
from collections.abc import Iterator
from io import BufferedIOBase
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.examples.row import LINE_LIMIT_BYTES, Problem, Row, numbered_lines
from luthier.examples.strict_json import parse_json, parse_json_at

JSON_LIMIT_BYTES = 2**30


def _too_long(path: Path, number: int) -> Problem:
    limit = f"{LINE_LIMIT_BYTES // 2**20} MiB"
    return Problem(f"{path}:{number}", f"the line is longer than {limit}", "shorten it or leave it out")


def read_jsonl(file: BufferedIOBase, path: Path) -> Iterator[Row | Problem]:
    """One object a line; blank lines are passed over."""
    for number, line in numbered_lines(file):
        if line is None:
            yield _too_long(path, number)
        elif line.strip():
            yield _row(line, path, number)


def _row(line: bytes, path: Path, number: int) -> Row | Problem:
    where = f"{path}:{number}"
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return Problem(where, f"byte {error.start + 1} of the line is not UTF-8", "save the file as UTF-8")
    except ValueError as error:
        listed = number == 1 and line.lstrip()[:1] == b"["
        fix = "a file that is one list must be named .json" if listed else "write one JSON object a line"
        return Problem(where, f"not valid JSON: {error}", fix)
    return _object_row(value, where, number)


def _object_row(value: Any, where: str, line: int) -> Row | Problem:
    if isinstance(value, dict):
        return Row(line, value)
    kind = {"list": "a list", "str": "text", "NoneType": "null"}.get(type(value).__name__, "a number")
    return Problem(where, f"is {kind}, expected a JSON object", 'write an object, such as {"prompt": …}')


def read_json(file: BufferedIOBase, path: Path) -> Iterator[Row | Problem]:
    """The objects of one list, each with its own line; JSON Lines under the name .json is read too.

    Raises:
        DataError: it is larger than 1 GiB.
    """
    data = file.read(JSON_LIMIT_BYTES + 1).removeprefix(b"\xef\xbb\xbf")
    if len(data) > JSON_LIMIT_BYTES:
        raise DataError("is larger than 1 GiB", where=str(path), fix="write it as .jsonl, which is streamed")
    if data.lstrip()[:1] == b"{":
        first = _row(data.lstrip().split(b"\n", 1)[0], path, 1)
        if isinstance(first, Row):  # many tools call JSON Lines .json
            yield from read_jsonl(io.BytesIO(data), path)
            return
        yield Problem(
            f"{path}:1", "holds one object, expected a list of objects", "write the list alone: [{…}, {…}]"
        )
        return
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        yield Problem(
            f"{path}:{line}", "broken UTF-8; nothing of the list was read", "save the file as UTF-8"
        )
        return
    yield from _list_items(text, path)


def _list_items(text: str, path: Path) -> Iterator[Row | Problem]:
    position, line = _skip(text, 0, 1)
    if text[position : position + 1] != "[":
        if position < len(text):
            yield Problem(
                f"{path}:{line}", "expected a list of objects", "write [{…}, {…}], or name it .jsonl"
            )
        return
    position, line = _skip(text, position + 1, line)
    while text[position : position + 1] != "]":
        where = f"{path}:{line}"
        try:
            value, end = parse_json_at(text, position)
        except ValueError as error:
            yield Problem(
                where, f"not valid JSON: {error}; the rest of the list was not read", "repair the list here"
            )
            return
        yield _object_row(value, where, line)
        end, line = _skip(text, end, line + text.count("\n", position, end))
        if text[end : end + 1] not in (",", "]"):
            yield Problem(
                f"{path}:{line}",
                "expected ',' or ']'; the rest of the list was not read",
                "repair the list here",
            )
            return
        position, line = _skip(text, end + 1, line) if text[end] == "," else (end, line)
    position, line = _skip(text, position + 1, line)
    if position < len(text):
        yield Problem(f"{path}:{line}", "text after the end of the list was not read", "make it one list")


def _skip(text: str, position: int, line: int) -> tuple[int, int]:
    start = position
    while text[position : position + 1] in (" ", "\n", "\r", "\t"):
        position += 1
    return position, line + text.count("\n", start, position)
