"""Rows of JSON Lines, and of a JSON file that is one list, whichever the file is called."""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BufferedReader

from luthier.examples.json_list import expected_object, read_list, read_spread
from luthier.examples.row import BOM, Problem, Row, not_utf8, numbered_lines
from luthier.examples.strict_json import BadJSONError, end_of_json, parse_json, parse_json_at

LINES_SEEN_BYTES = 2**16  # how much of an object on several lines is enough to tell that it is one
_BLANK = b" \t\r\n"
_BRACE = ord("{")
_REPAIRS = (
    (re.compile(rb"\0"), "remove the NUL bytes; was the file cut off or damaged while it was written?"),
    (re.compile(rb"\r"), "let each line end with a line feed: it holds a bare carriage return"),
    (re.compile(rb"\},\Z"), "take out the comma after the object, or make the file one list: [ … ]"),
    (re.compile(rb"\A(?://|#|/\*)"), "take out the comment: JSON has none"),
    (re.compile(rb"\A\{\s*'"), "write JSON, not what Python prints: json.dumps(row)"),
    (re.compile(rb"[\x01-\x1f]"), "write tabs and line breaks inside a text as \\t and \\n"),
    (re.compile(rb"\A\{.*,\s*[}\]]"), "take out the comma before the bracket that closes"),
)
_HOLDS = re.compile(rb'":\s*[\[{]')  # a value that could be rows, or a column


def read_json(file: BufferedReader, name: str, *, whole: bool = False) -> Iterator[Row | Problem]:
    """The objects of a file, each with the line on which it starts.

    They stand one on a line, in one list, or one after the other over several lines.

    Args:
        whole: a file that is one object may hold the rows in it, see `json_wrapped`; lines never do.
    """
    start = file.peek(1).removeprefix(BOM).lstrip(_BLANK)
    if start[:1] == b"[" and not _begins_with_line(start):
        return read_list(file, name)
    if start[:1] == b"{" and ((whole and _is_alone(start)) or _is_spread(start)):
        return read_spread(file, name, whole=whole)
    return read_lines(file, name)


def _begins_with_line(start: bytes) -> bool:
    """Whether a file that begins with a list is JSON Lines all the same, with a list instead of an object."""
    first, _, rest = start.partition(b"\n")
    if rest.lstrip(_BLANK)[:1] != b"{" or first.rstrip(_BLANK)[-1:] in (b"[", b","):
        return False
    text = first[1:].strip(_BLANK).decode("utf-8", "surrogateescape")
    return end_of_json(text, 0) != len(text)  # else only the comma after the list's first object is missing


def _is_alone(start: bytes) -> bool:
    """Whether a file that begins with an object may be that object alone, holding the rows."""
    first, _, rest = start.partition(b"\n")
    return not rest.strip(_BLANK) and bool(_HOLDS.search(first))


def _is_spread(start: bytes) -> bool:
    """Whether the object that a file begins with goes on after the first line, or others follow it there."""
    first = start.partition(b"\n")[0]
    text = start.decode("utf-8", "surrogateescape")
    end = end_of_json(text, 0)
    if end is None and len(start) >= LINES_SEEN_BYTES:  # it may be longer than what is seen of the file
        try:
            parse_json_at(text, 0)
        except BadJSONError as error:
            end = error.at if error.at is not None and error.at > len(text) - 16 else None
    if end is None:
        return False
    return end > len(first.decode("utf-8", "surrogateescape")) or text[end:].lstrip(" \t")[:1] == "{"


def read_lines(file: BufferedReader, name: str) -> Iterator[Row | Problem]:
    """One object a line; blank lines are passed over."""
    for number, line in numbered_lines(file, name):
        if isinstance(line, Problem):
            yield line
        elif line and (line[0] == _BRACE or line.strip()):
            yield _row(line, name, number)


def _row(line: bytes, name: str, number: int) -> Row | Problem:
    try:
        value = parse_json(line.decode("utf-8"))
    except UnicodeDecodeError as error:
        return not_utf8(line, f"{name}:{number}", error)
    except ValueError as error:
        if line.startswith(BOM):  # files that were joined
            return _row(line.removeprefix(BOM), name, number)
        return Problem(f"{name}:{number}", f"not valid JSON: {error}", _repair(line, number))
    return Row(number, value) if type(value) is dict else expected_object(value, f"{name}:{number}")


def _repair(line: bytes, number: int) -> str:
    """What to do about a line that is no JSON."""
    line = line.strip(_BLANK)
    fix = next((fix for looks, fix in _REPAIRS if looks.search(line)), "write one JSON object a line")
    if number == 1 and line[:1].isalnum():
        fix += ", or name the file after what it holds, such as .csv"
    return fix
