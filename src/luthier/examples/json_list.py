"""The objects of a JSON file that is one list, read piece by piece, so that its size does not matter.

An object that breaks a rule costs itself. After one that is no JSON, reading goes on where a line
begins as that object's line did; where objects have no lines of their own, the rest cannot be read.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from io import BufferedIOBase
from typing import Any

from luthier.examples.json_wrapped import unwrapped
from luthier.examples.row import BOM, LINE_LIMIT_BYTES, Problem, Row, StreamError
from luthier.examples.strict_json import BadJSONError, end_of_json, parse_json_at

PIECE_BYTES = 2**20
_BLANK = re.compile(r"[ \t\r\n]*")
_LONGEST_TOKEN = 64  # characters at the end of what was read that may be half of something
_LONGEST_INDENT = 64
_REST = "the rest of the list was not read"


def read_list(file: BufferedIOBase, name: str) -> Iterator[Row | Problem]:
    """Rows of a list, each with the line on which it starts; the file begins with its bracket."""
    text = _Window(file)
    try:
        yield from _items(text, name)
    except StreamError as error:
        yield error.at(f"{name}:{text.line}")


def read_spread(file: BufferedIOBase, name: str, *, whole: bool) -> Iterator[Row | Problem]:
    """Rows of objects that follow one another without commas, over as many lines as they like.

    Args:
        whole: a single object may hold the rows, see `json_wrapped`.
    """
    text = _Window(file)
    try:
        yield from _objects(text, name, whole=whole)
    except StreamError as error:
        yield error.at(f"{name}:{text.line}")


def expected_object(value: Any, where: str) -> Problem:
    """A value that is no row."""
    kinds = {
        "list": "a list",
        "str": "text",
        "NoneType": "null",
        "bool": "true or false",
        "dict": "an object",
    }
    kind = kinds.get(type(value).__name__, "a number")
    return Problem(where, f"is {kind}, expected a JSON object", 'write an object, such as {"prompt": …}')


class _Window:
    """The text of a file from where reading stands, with the line on which that is."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        # Broken bytes become lone surrogates, which _read_item reports with the object that holds them.
        self._decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self.text = ""
        self.at = 0
        self.line = 1
        self.ended = False
        self.broken = False
        self._begun = False

    def more(self) -> bool:
        """Read on and forget what lies behind; False where the end was seen already."""
        if self.ended:
            return False
        data = self._file.read(max(PIECE_BYTES, len(self.text) - self.at))
        self.ended = not data
        if not self._begun:
            data, self._begun = data.removeprefix(BOM), True
        piece = self._decoder.decode(data, final=self.ended)
        self.broken = self.broken or not _is_clean(piece)
        behind = min(self.at, _LONGEST_INDENT)  # the item's own indentation is needed to find the next one
        self.text, self.at = self.text[self.at - behind :] + piece, behind
        return True

    def forward(self, position: int) -> None:
        """Go on at `position` of the text."""
        self.line += self.text.count("\n", self.at, position)
        self.at = position

    def opens_rows(self) -> bool:
        """Whether an object follows the bracket where reading stands."""
        return self.text[self.at + 1 : self.at + 1 + _LONGEST_TOKEN].lstrip()[:1] == "{"

    def indentation(self) -> int:
        """Blanks before where reading stands, on its line; 0 where there is more than blanks."""
        line = self.text[self.text.rfind("\n", 0, self.at) + 1 : self.at]
        return len(line) if line.isspace() else 0

    def mark(self) -> str:
        """The next character that is not blank, where reading then stands; empty at the end."""
        while True:
            match = _BLANK.match(self.text, self.at)
            self.forward(match.end() if match else self.at)
            if self.at < len(self.text):
                return self.text[self.at]
            if not self.more():
                return ""


def _is_clean(piece: str) -> bool:
    if piece.isascii():
        return True
    try:
        piece.encode()
    except UnicodeEncodeError:
        return False
    return True


def _items(text: _Window, name: str) -> Iterator[Row | Problem]:
    text.mark()
    text.forward(text.at + 1)
    after = "["
    depth = 0
    while mark := text.mark():
        where = f"{name}:{text.line}"
        if mark == "[" and text.opens_rows():
            yield Problem(where, "a list inside the list, expected an object", "take out the bracket")
            text.forward(text.at + 1)
            after, depth = mark, depth + 1
            continue
        if mark in ",]":
            if mark == "," or after == ",":
                yield Problem(where, f"expected an object before {mark!r}", "take out the comma too many")
            own = text.indentation()
            text.forward(text.at + 1)
            if mark == "]" and depth:
                depth -= 1
                comma = text.mark() == ","
                text.forward(text.at + comma)
            elif mark == "]":
                mark, problem = _end(text, name, own)
                yield from problem
                if mark == "]":
                    return
            after = mark
            continue
        read, resumed = _read_item(text, where)
        yield read
        if resumed is None:
            return
        after, where = text.mark(), f"{name}:{text.line}"
        if after == ",":
            text.forward(text.at + 1)
        elif after == "{" and not resumed:
            yield Problem(
                where, "expected ',' or ']' before this object", "write a comma between the objects"
            )
        elif after and after not in "{]":
            found = _skip(text)
            rest = "" if found else f"; {_REST}"
            yield Problem(where, f"expected ',' or ']'{rest}", "repair the list here")
            if not found:
                return
    yield Problem(
        f"{name}:{text.line}", f"the list is cut off: expected ']'; {_REST}", "write or download it again"
    )


def _end(text: _Window, name: str, own: int) -> tuple[str, list[Problem]]:
    """What follows a bracket that stands `own` from its line's begin: more objects are read all the same.

    Returns:
        The mark after which reading goes on, `]` where it does not; and what was wrong.
    """
    mark, where = text.mark(), f"{name}:{text.line}"
    if not mark:
        return "]", []
    goes_on = mark in ",[{" or _skip(text, own)
    what = "text after the end of the list" + (" was not read" if mark not in ",[{" else "")
    text.forward(text.at + (mark in ",["))
    return (mark if mark in ",[{" else ",") if goes_on else "]", [Problem(where, what, "make it one list")]


def _objects(text: _Window, name: str, *, whole: bool) -> Iterator[Row | Problem]:
    text.mark()
    read, resumed = _read_item(text, f"{name}:{text.line}")
    source = text.text[: text.at]  # a first object is whole in the window
    if whole and isinstance(read, Row) and not text.mark():
        yield from unwrapped(read, source[source.find("{") :], name)
        return
    yield read
    while resumed is not None and text.mark():
        read, resumed = _read_item(text, f"{name}:{text.line}")
        yield read


def _read_item(text: _Window, where: str) -> tuple[Row | Problem, bool | None]:
    """The value where the window stands, which goes past it.

    With it, whether something that is no JSON was skipped before the window stands at a value again; None
    where no such place was found.
    """
    while True:
        start, reason, real = text.at, "it does not end", False
        try:
            value, end = parse_json_at(text.text, start)
        except BadJSONError as error:
            reason = str(error)
            found = end_of_json(text.text, start) if error.at is None else None
            if found is not None:
                text.forward(found)
                return Problem(
                    where, f"not valid JSON: {reason}", "repair the object, or leave it out"
                ), False
            real = error.at is not None and error.at < len(text.text) - _LONGEST_TOKEN
        else:
            if end < len(text.text) or text.ended:
                line, broken = text.line, text.broken and not _is_clean(text.text[start:end])
                text.forward(end)
                if broken:
                    return Problem(where, "broken UTF-8 in this object", "save the file as UTF-8"), False
                return (Row(line, value) if type(value) is dict else expected_object(value, where)), False
        long = len(text.text) - start > LINE_LIMIT_BYTES
        if real or long or not text.more():
            if long:
                reason = f"it is longer than {LINE_LIMIT_BYTES // 2**20} MiB"
            fix = "write rows that it holds one a line, as .jsonl" if long else "repair the list here"
            if _skip(text):
                return Problem(where, f"not valid JSON: {reason}", "repair the object, or leave it out"), True
            return Problem(where, f"not valid JSON: {reason}; {_REST}", fix), None


def _skip(text: _Window, own: int | None = None) -> bool:
    """Go to the next line that begins as the one of the item where the window stands; False if none does.

    Such a line has at most the item's indentation and then an object, after a comma or a bracket if need be;
    or a bracket alone, which ends the list.
    """
    own = text.indentation() if own is None else own
    begins = re.compile(rf"\n[ \t]{{0,{own}}}(?:\}}[ \t\r]*)?,?[ \t]*(?=\{{|\][ \t\r]*(?:\n|$))")
    while True:
        if match := begins.search(text.text, text.at):
            text.forward(match.end())
            return True
        text.forward(max(text.at, len(text.text) - own - _LONGEST_TOKEN))
        if not text.more():
            return False
