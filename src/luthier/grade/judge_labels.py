"""Answers that people judged, against which a judge is measured."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from luthier.errors import DataError
from luthier.examples.example import Example, Message

ADVICE = 'write {"input": ..., "answer": ..., "reference": ..., "human": ...}, one a line'
CHOICES: dict[str, dict[Any, float]] = {
    "rubric": {True: 1.0, False: 0.0, "pass": 1.0, "fail": 0.0},
    "pairwise": {1: 1.0, 0.5: 0.5, 0: 0.0, "answer": 1.0, "tie": 0.5, "reference": 0.0},
}


@dataclass(frozen=True)
class Label:
    """One answer and what a person made of it.

    Attributes:
        human: 1 passes or is better than the reference, 0.5 a tie, 0 fails or is worse.
    """

    answer: str
    reference: str
    example: Example
    human: float


def read_labels(path: Path, kind: Literal["rubric", "pairwise"]) -> list[Label]:
    """The labels of a JSONL file: `input` (or `messages`), `answer`, `reference`, `human`.

    `human` is true, false, `pass` or `fail` for a rubric, and `answer`, `reference` or `tie`, whichever
    is better, for pairs; 1 and 0 (0.5 for a tie) say the same. A rubric needs no `reference`.

    Raises:
        DataError: the file cannot be read, or a line is no label; names file and line.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the judge's labels cannot be read: {error}", where=str(path)) from None
    labels = [
        _label(line, f"{path}:{number}", path, number, kind)
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not labels:
        raise DataError("there are no labels in it", where=str(path), fix=ADVICE)
    return labels


def _label(line: str, where: str, path: Path, number: int, kind: str) -> Label:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"not valid JSON: {error}", where=where, fix=ADVICE) from None
    if not isinstance(row, dict):
        raise DataError("not a JSON object", where=where, fix=ADVICE)
    needed = ["answer", "human", *(["reference"] if kind == "pairwise" else [])]
    missing = [key for key in needed if row.get(key) is None]
    if missing:
        raise DataError(f"no {' and no '.join(missing)}", where=where, fix=ADVICE)
    answer, reference = row["answer"], row.get("reference") or ""
    if not isinstance(answer, str) or not isinstance(reference, str):
        raise DataError("answer and reference are texts", where=where, fix=ADVICE)
    request = _request(row, where)
    example = Example(f"label-{number}", (*request, Message("assistant", reference)), str(path), number)
    return Label(answer, reference, example, _human(row["human"], kind, where))


def _request(row: dict[str, Any], where: str) -> tuple[Message, ...]:
    if isinstance(row.get("input"), str):
        return (Message("user", row["input"]),)
    turns = row.get("messages")
    if isinstance(turns, list) and turns:
        try:
            return tuple(Message(str(turn["role"]), str(turn["content"])) for turn in turns)
        except (TypeError, KeyError):
            pass
    raise DataError("no input (a text) and no messages (role and content)", where=where, fix=ADVICE)


def _human(value: Any, kind: str, where: str) -> float:
    choices = CHOICES[kind]
    try:
        return choices[value]
    except (KeyError, TypeError):
        known = ", ".join(str(choice) for choice in choices if isinstance(choice, str))
        raise DataError(
            f"human is {value!r:.40}", where=where, fix=f"use one of {known}, or 1 and 0"
        ) from None
