"""Sampled answers, kept beside the judgements: later raters judge the very same, and none is sampled twice.

The file has a line with the settings (the last one counts), then a line for each prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from luthier.errors import RecipeError, RecordError
from luthier.examples.example import Message
from luthier.ranking.journal import append_line, read_lines
from luthier.ranking.questions import Offered, Question, as_rows


@dataclass(frozen=True)
class Settings:
    """How answers are sampled.

    Attributes:
        answers: sampled for each prompt; of equal ones, one is kept.
        limit: prompts.
        temperature: of the sampling; 1 is the model's own distribution.
        seed: of the choice of prompts, the sampling, and the orders in which raters see answers.
    """

    answers: int = 4
    limit: int = 50
    temperature: float = 1.0
    seed: int = 0


@dataclass(frozen=True)
class Wanted:
    """What the user asks for; None leaves it to what is kept, or to the default."""

    answers: int | None = None
    limit: int | None = None
    temperature: float | None = None
    seed: int | None = None
    model: str | None = None


@dataclass(frozen=True)
class Kept:
    """What a file of sampled answers holds.

    Attributes:
        settings: None where nothing has been sampled.
        writer: who wrote the answers: names and hashes.
        questions: by the id of the request.
    """

    settings: Settings | None = None
    writer: Mapping[str, Any] = field(default_factory=dict)
    questions: Mapping[str, Question] = field(default_factory=dict)


def read_kept(path: Path) -> Kept:
    """What was sampled so far; nothing where there is no file.

    Raises:
        RecordError: the file is broken, or is another kind of file.
    """
    settings, writer = None, {}
    questions: dict[str, Question] = {}
    for number, row in read_lines(path):
        try:
            if "settings" in row:
                settings, writer = Settings(**row["settings"]), dict(row["writer"])
            else:
                questions[str(row["request"])] = _question(row)
        except (KeyError, TypeError, AttributeError):
            raise RecordError(
                "holds no sampled answers", where=f"{path}:{number}", fix="choose another --out"
            ) from None
    return Kept(settings, writer, questions)


def keep_settings(path: Path, settings: Settings, writer: Mapping[str, Any]) -> None:
    """Write down how answers are sampled from here on."""
    append_line(path, {"settings": asdict(settings), "writer": dict(writer)})


def keep_question(path: Path, request: str, question: Question) -> None:
    """Write down the answers to one prompt."""
    row: dict[str, Any] = {
        "request": request,
        "messages": as_rows(question.messages),
        "answers": [asdict(answer) for answer in question.answers],
        "where": question.where,
        "source": dict(question.source),
        **question.columns,
    }
    append_line(path, row)


def settle(wanted: Wanted, kept: Kept, path: Path) -> Settings:
    """The settings that hold: what is asked for, else what is kept, else the defaults.

    Raises:
        RecipeError: the kept answers were sampled otherwise than is asked for now.
    """
    known = kept.settings
    asked = {key: value for key, value in asdict(wanted).items() if key != "model" and value is not None}
    if known is None:
        return Settings(**asked)
    for key in ("answers", "temperature", "seed"):
        if key in asked and asked[key] != getattr(known, key):
            raise RecipeError(
                f"its answers were sampled with {key} {getattr(known, key):g}, not {asked[key]:g}",
                where=str(path),
                fix=f"leave --{key} away to judge these, or choose another --out",
            )
    return Settings(**(asdict(known) | asked))


def _question(row: Mapping[str, Any]) -> Question:
    return Question(
        tuple(map(Message.from_row, row["messages"])),
        tuple(Offered(a["text"], a["cut"]) for a in row["answers"]),
        row["where"],
        row.get("group"),
        row["source"],
        tuple(row.get("tools", ())),
    )
