"""The texts in a row of a file, wherever they stand, and the row with another text in the place of one.

A place is a path of keys and positions. A table's cell can hold turns as JSON; the path then goes on
inside it, after `CELL`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from luthier.examples.turns import SPEAKER, read_turns_cell

CELL = None  # the step from a cell into the JSON that it holds
Place = tuple[str | int | None, ...]
_NO_TEXT = frozenset((*SPEAKER, "weight", "name", "type", "id", "tool_call_id"))  # of turns


def places(values: Mapping[str, Any], is_read: Callable[[str], bool]) -> Iterator[tuple[Place, Any]]:
    """Every value of the columns that are read, with its place; what holds others comes before them."""
    for column, value in values.items():
        if is_read(column):
            yield from _inside(value, (column,))


def put(values: Mapping[str, Any], place: Place, new: Any) -> dict[str, Any]:
    """The row with another value at a place; nothing that is shared with the old row is changed."""
    changed: dict[str, Any] = _put(dict(values), place, new)
    return changed


def rewrite(
    values: Mapping[str, Any], is_read: Callable[[str], bool], change: Callable[[str], str]
) -> dict[str, Any]:
    """The row with `change` applied to every text of the columns that are read."""
    changed = dict(values)
    for place, value in places(values, is_read):
        if isinstance(value, str) and not holds_turns(value) and (new := change(value)) != value:
            changed = put(changed, place, new)
    return changed


def describe(place: Place) -> str:
    """A place as people write it: `messages[2].content`."""
    told = ""
    for step in place:
        if isinstance(step, int):
            told += f"[{step}]"
        elif step is not None:
            told += f".{step}" if told else step
    return told


def holds_turns(value: str) -> bool:
    """Whether a text is the JSON of turns."""
    return not isinstance(read_turns_cell(value), str)


def _inside(value: Any, place: Place) -> Iterator[tuple[Place, Any]]:
    yield place, value
    if isinstance(value, dict):
        is_turn = not value.keys().isdisjoint(SPEAKER)
        for key, part in value.items():
            if not (is_turn and key in _NO_TEXT):
                yield from _inside(part, (*place, key))
    elif isinstance(value, list):
        for number, part in enumerate(value):
            yield from _inside(part, (*place, number))
    elif isinstance(value, str) and not isinstance(turns := read_turns_cell(value), str):
        for inner, part in _inside(turns, (*place, CELL)):
            if inner != (*place, CELL):
                yield inner, part


def _put(value: Any, place: Place, new: Any) -> Any:
    if not place:
        return new
    step, rest = place[0], place[1:]
    if step is CELL:
        return json.dumps(_put(read_turns_cell(value), rest, new), ensure_ascii=False)
    copy: Any = list(value) if isinstance(value, list) else dict(value)
    copy[step] = _put(copy[step], rest, new)
    return copy
