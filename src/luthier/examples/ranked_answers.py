"""Rows of one request and several answers to it, with what says which is better."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.preferences import check_worse
from luthier.examples.turns import read_cell, read_chat, read_text, read_turns_cell

Values = Mapping[str, Any]
RANKS = ("ranks", "rank", "ranking")  # 1 is the best
SCORES = ("scores", "ratings", "rewards", "score")  # more is better
_TEXTS = ("answer", "response", "completion", "text", "content", "output")
_OWN_RANKS, _OWN_SCORES = ("rank",), ("score", "overall_score", "rating", "reward")
_FIX = 'write "ranks": [1, 2, …] (1 is the best) or "scores": […] beside the answers'


def best_answer(asked: str, listed: str) -> Callable[[Values], list[Message]]:
    """A converter to the request in column `asked` and the best answer of column `listed`."""

    def convert(row: Values) -> list[Message]:
        request = read_turns_cell(row[asked])
        before = (
            read_chat(request, asked)
            if isinstance(request, list | dict)
            else [Message("user", read_text(request, asked))]
        )
        return [*before, Message("assistant", _in_order(row, listed)[0])]

    return convert


def other_answers(listed: str) -> Callable[[Values, Sequence[Message]], tuple[str, ...]]:
    """What reads the other answers of column `listed`, the best of them first."""
    return lambda row, messages: check_worse(_in_order(row, listed)[1:], messages)


def _in_order(row: Values, listed: str) -> list[str]:
    """The answers, the best first.

    Raises:
        DataError: there are not two, nothing orders them, or two are the best.
    """
    items = read_cell(row[listed])
    if not isinstance(items, list):
        raise DataError(f"{listed} is not a list", fix=f'write "{listed}": ["…", "…"]')
    if len(items) < 2:
        raise DataError(f"{listed} holds {len(items)} answers, expected two or more", fix="leave the row out")
    texts = [_text(item, f"{listed}[{n}]") for n, item in enumerate(items)]
    worth = _worth(row, items, listed)
    order = sorted(range(len(items)), key=lambda n: -worth[n])
    if worth[order[0]] == worth[order[1]]:
        raise DataError(
            "two answers are equally good, and none is better", fix="say which of them is the best"
        )
    return [texts[n] for n in order]


def _text(item: Any, name: str) -> str:
    if isinstance(item, dict):
        item = next((item[key] for key in _TEXTS if isinstance(item.get(key), str)), None)
    if not isinstance(item, str):
        raise DataError(f"{name} is not text", fix="write answers as texts")
    return item


def _worth(row: Values, items: Sequence[Any], listed: str) -> list[float]:
    """What each answer is worth: more is better."""
    for names, sign in ((RANKS, -1.0), (SCORES, 1.0)):
        name = next((key for key in names if isinstance(read_cell(row.get(key)), list)), None)
        if name is not None:
            values = read_cell(row[name])
            if len(values) != len(items):
                raise DataError(f"{name} has {len(values)} values for {len(items)} answers", fix=_FIX)
            return [sign * _number(value, f"{name}[{n}]") for n, value in enumerate(values)]
    for own_names, sign in ((_OWN_RANKS, -1.0), (_OWN_SCORES, 1.0)):
        key = next(
            (k for k in own_names if all(isinstance(i, dict) and i.get(k) is not None for i in items)), None
        )
        if key is not None:
            return [sign * _number(item[key], f"{listed}[{n}].{key}") for n, item in enumerate(items)]
    raise DataError(f"nothing says which of {listed} is better", fix=_FIX)


def _number(value: Any, name: str) -> float:
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not math.isfinite(number):
        raise DataError(f"{name} is {value!r}, expected a number", fix=_FIX)
    return number
