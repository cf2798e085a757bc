"""Rows of one request and one answer, a column each: prompts, instructions, questions with passages."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.tool_rows import read_calls
from luthier.examples.turns import read_cell, read_chat, read_text, read_turns_cell

Values = Mapping[str, Any]
PASSAGES = ("passage", "context", "contract", "document")  # columns that a question is about


def from_completion(row: Values) -> list[Message]:
    """`prompt` and `completion`, texts or messages."""
    return [*_side(row["prompt"], "prompt", "user"), *_side(row["completion"], "completion", "assistant")]


def _side(value: Any, name: str, role: str) -> list[Message]:
    """One side of a pair: turns, a text, or a list of that one text."""
    value = read_turns_cell(value)
    if isinstance(value, list) and value and all(isinstance(item, str) for item in value):
        if len(value) > 1:
            raise DataError(
                f"{name} holds {len(value)} texts, expected one",
                fix=f"write one {name}; answers that are ranked go under `completions`, beside `scores`",
            )
        value = value[0]
    if isinstance(value, list) or (isinstance(value, dict) and (role == "assistant") and "role" in value):
        return read_chat(value, name)
    return [Message(role, read_text(value, name))]


def from_instruction(answered: str) -> Callable[[Values], list[Message]]:
    """A converter of `instruction`, what it is about, and earlier turns in `history`."""

    def convert(row: Values) -> list[Message]:
        parts = [read_text(row["instruction"], "instruction")]
        if row.get("input") not in (None, ""):
            parts.append(read_text(row["input"], "input"))
        asked = Message("user", "\n\n".join([*_passages(row, answered), *parts]))
        return [*_history(row), asked, Message("assistant", read_text(row[answered], answered))]

    return convert


def _history(row: Values) -> list[Message]:
    history = read_cell(row.get("history")) or []
    if not isinstance(history, list):
        raise DataError("history is not a list of pairs", fix="write [[question, answer], …]")
    messages = []
    for number, pair in enumerate(history):
        if not isinstance(pair, list) or len(pair) != 2:
            raise DataError(f"history[{number}] is not a pair", fix="write [[question, answer], …]")
        messages += [
            Message("user", read_text(pair[0], "history")),
            Message("assistant", read_text(pair[1], "history")),
        ]
    return messages


def from_question(asked: str, answered: str) -> Callable[[Values], list[Message]]:
    """A converter: passage or context, then the question, then the options, a blank line between them.

    Lists of options get letters, and an answer that counts them from 0 becomes its letter.
    """

    def convert(row: Values) -> list[Message]:
        answer = row[answered]
        parts = [*_passages(row), read_text(row[asked], asked)]
        options = read_cell(row.get("options") or row.get("choices"))
        if isinstance(options, list):
            lettered = (f"{chr(65 + i)}. {read_text(o, 'options')}" for i, o in enumerate(options))
            parts.append("\n".join(lettered))
            if (
                isinstance(answer, int)
                and not isinstance(answer, bool)
                and 0 <= answer < min(len(options), 26)
            ):
                answer = chr(65 + answer)
        elif isinstance(options, dict):
            named = options
            if {"text", "label"} <= options.keys() and all(isinstance(v, list) for v in options.values()):
                named = dict(zip(options["label"], options["text"], strict=False))
            parts.append("\n".join(f"{key}. {read_text(value, 'options')}" for key, value in named.items()))
        elif options:
            parts.append(read_text(options, "options"))
        return [Message("user", "\n\n".join(parts)), Message("assistant", read_text(answer, answered))]

    return convert


def from_extract(row: Values) -> list[Message]:
    """SQuAD's `question`, `context` and `answers`: the first answer is the one to learn."""
    texts = _answers(row)
    if not texts:
        raise DataError("answers is empty", fix="write what the model should say, or leave the row out")
    asked = "\n\n".join([*_passages(row), read_text(row["question"], "question")])
    return [Message("user", asked), Message("assistant", texts[0])]


def other_extracts(row: Values) -> dict[str, Any]:
    """SQuAD's column as it is, where it holds more than one answer."""
    return {"answers": row["answers"]} if len(set(_answers(row))) > 1 else {}


def _answers(row: Values) -> list[str]:
    value = read_cell(row["answers"])
    if isinstance(value, dict):
        value = value.get("text", [])
    items = value if isinstance(value, list) else [value]
    return [read_text(item.get("text") if isinstance(item, dict) else item, "answers") for item in items]


def from_query_with_calls(row: Values) -> list[Message]:
    """`query`, and in `answers` the calls that answer it, as data sets of function calling have them."""
    return [
        Message("user", read_text(row["query"], "query")),
        Message("assistant", "", tool_calls=read_calls(row["answers"], "answers")),
    ]


def pair(asked: str, answered: str) -> Callable[[Values], list[Message]]:
    """A converter of two columns, each a text."""

    def convert(row: Values) -> list[Message]:
        return [
            Message("user", read_text(row[asked], asked)),
            Message("assistant", read_text(row[answered], answered)),
        ]

    return convert


def _passages(row: Values, answered: str = "") -> list[str]:
    if answered == "output":
        return []  # Alpaca has its passage in `input`; another column of such a name is one of the user's
    return [_passage(row[key]) for key in PASSAGES if row.get(key) not in (None, "")]


def _passage(value: Any) -> str:
    if isinstance(value, list):
        return "\n\n".join(read_text(item, "context") for item in value)
    return read_text(value, "context")
