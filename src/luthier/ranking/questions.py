"""`Question`: a conversation that waits for the assistant, and different answers to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.row import Problem
from luthier.examples.rows import read_rows
from luthier.examples.tool_rows import Tools, read_tools
from luthier.examples.turns import read_chat, read_text
from luthier.recipe import digest

FORM = 'write {"prompt": "…", "answers": ["…", "…"]}'


@dataclass(frozen=True)
class Offered:
    """One answer. `cut`: the limit of tokens ended it, not its writer."""

    text: str
    cut: bool = False

    @cached_property
    def id(self) -> str:
        """12 hex digits of the sha256 of its text."""
        return hashlib.sha256(self.text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


@dataclass(frozen=True)
class Question:
    """A conversation and different answers to it.

    Attributes:
        messages: what was asked, a system prompt included; the last one is the user's, or a tool's result.
        answers: none twice.
        where: where the prompt was read.
        group: as `Example.group`.
        source: who wrote the answers and how; kept, never shown to a rater.
        tools: as `Example.tools`; answers then hold calls as `Example.answer` does.
    """

    messages: tuple[Message, ...]
    answers: tuple[Offered, ...]
    where: str
    group: str | None = None
    source: Mapping[str, Any] = field(default_factory=dict, hash=False)
    tools: Tools = field(default=(), hash=False)

    @cached_property
    def key(self) -> str:
        """16 hex digits of what was asked and answered, in whatever order the answers stand."""
        asked = [[message.role, message.text] for message in self.messages]
        tools = [[dict(tool) for tool in self.tools]] if self.tools else []
        return digest([asked, sorted(answer.text for answer in self.answers), *tools])[:16]

    @property
    def columns(self) -> dict[str, Any]:
        """What a row about it has besides the words: `tools` and `group`, where it has any."""
        told = {"tools": [dict(tool) for tool in self.tools]} if self.tools else {}
        return told if self.group is None else {**told, "group": self.group}

    @cached_property
    def by_id(self) -> dict[str, Offered]:
        """The answers by their ids."""
        return {answer.id: answer for answer in self.answers}


def request_id(messages: Iterable[Message]) -> str:
    """16 hex digits of a request, whoever answers it."""
    return digest([[message.role, message.text] for message in messages])[:16]


def askable(questions: Iterable[Question]) -> list[Question]:
    """Those with at least two different answers, each question once."""
    return list({question.key: question for question in questions if len(question.answers) > 1}.values())


def read_prompts(path: Path) -> list[Question]:
    """Rows with `prompt` (a text, or messages) or `messages`, and `answers` and `tools`, which may be absent.

    Raises:
        DataError: no such file, or a row that is no such thing; names file and line.
    """
    found = []
    for row in read_rows(path):
        if isinstance(row, Problem):
            raise DataError(row.message, where=row.where, fix=row.fix)
        where = f"{path}:{row.line}"
        try:
            found.append(_read({key.lower(): value for key, value in row.values.items()}, where))
        except DataError as error:
            raise DataError(error.message, where=where, fix=error.fix or FORM) from None
    if not found:
        raise DataError("holds no prompts", where=str(path), fix=FORM)
    return found


def _read(row: Mapping[str, Any], where: str) -> Question:
    asked = row.get("messages", row.get("prompt"))
    if asked in (None, "", []):
        raise DataError(f"no prompt (found {', '.join(row) or 'nothing'})", fix=FORM)
    messages = (
        read_chat(asked, "prompt")
        if isinstance(asked, list | dict)
        else [Message("user", read_text(asked, "prompt"))]
    )
    if row.get("system") and messages[0].role != "system":
        messages.insert(0, Message("system", read_text(row["system"], "system")))
    if messages[-1].role not in ("user", "tool") or not messages[-1].content.strip():
        raise DataError(
            "the prompt does not end with words of the user or a tool", fix="end it with what they ask"
        )
    group = row.get("group")
    answers = row.get("answers")
    return Question(
        tuple(messages),
        () if answers is None else _answers(answers),
        where,
        None if group in (None, "") else read_text(group, "group"),
        {"model": None},
        read_tools(row.get("tools"), "tools"),
    )


def _answers(values: Any) -> tuple[Offered, ...]:
    if not isinstance(values, list):
        raise DataError("answers is not a list", fix=FORM)
    for number, value in enumerate(values):
        if not isinstance(value, str) or not value.strip():
            raise DataError(
                f"answers[{number}] is {'empty' if isinstance(value, str) else 'not text'}",
                fix="write a text, or leave it out",
            )
    return distinct((value, False) for value in values)


def distinct(written: Iterable[tuple[str, bool]]) -> tuple[Offered, ...]:
    """Different answers in the order they came, blank ones left out: they can be neither chosen nor rejected.

    Args:
        written: texts, and whether each was cut off; one that also came whole was not.
    """
    cut: dict[str, bool] = {}
    for text, was_cut in written:
        if text.strip():
            cut[text] = cut.get(text, True) and was_cut
    return tuple(Offered(text, was_cut) for text, was_cut in cut.items())


def as_rows(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """The messages as files have them; which of them are trained on is not asked here."""
    return [replace(message, weight=1).as_row() for message in messages]
