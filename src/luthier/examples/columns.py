"""The user's names of columns, and what they may stand for."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from luthier.errors import DataError
from luthier.examples.formats import FORMATS
from luthier.examples.row import Problem, Row
from luthier.examples.turns import SPEAKER, SYSTEM_IN, is_turn

Columns = Mapping[str, str]
_SYNONYMS = {
    "prompt": (
        "question", "query", "frage", "eingabe", "input", "request", "user", "ask", "problem", "instruction",
        "anfrage", "source", "human", "pregunta", "user_message", "prompt_text", "utterance",
    ),
    "completion": (
        "answer", "response", "reply", "antwort", "ausgabe", "output", "target", "solution", "assistant",
        "gold", "expected", "reference", "bot", "gpt", "respuesta", "reponse", "model_output", "label",
    ),
    "text": (
        "body", "content", "sentence", "message", "review", "comment", "document", "ticket", "email", "mail",
        "satz", "inhalt", "nachricht", "post", "tweet", "title", "subject",
    ),
    "label": (
        "class", "category", "kategorie", "klasse", "sentiment", "tag", "intent", "topic", "target", "queue",
        "rating", "stars", "type",
    ),
    "chosen": ("preferred", "preferred_output", "accepted", "better", "winner", "good"),
    "rejected": ("dispreferred", "non_preferred_output", "worse", "loser", "bad"),
    "messages": ("chat", "conversation", "dialog", "dialogue", "turns"),
}  # fmt: skip
_LOGGED = ({"custom_id", "body"}, {"custom_id", "response"}, {"request", "response"}, {"request_body"})
_PAIRS = (("prompt", "chosen", "rejected"), ("prompt", "completion"), ("text", "label"), ("text",))


def known_columns() -> set[str]:
    """Every name that means something to a form of examples."""
    own = {column for form in FORMATS for column in (*form.needs, *form.takes)}
    return own | {"group", *SYSTEM_IN, "tools", "provenance"}


def check_columns(columns: Columns) -> Columns:
    """A mapping of the user's columns to known ones, as it is.

    Raises:
        ValueError: a name is not known, or two columns are to become one.
    """
    known = known_columns()
    for own, name in columns.items():
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted(known))}"
            raise ValueError(f"column {own!r} cannot become {name!r}, which no form has: {hint}")
    names = list(columns.values())
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two columns cannot both become {twice[0]!r}")
    return columns


def read_columns(text: str) -> dict[str, str]:
    """`frage=prompt,antwort=completion` as a mapping.

    Raises:
        DataError: it is not written so, or `check_columns` refuses it.
    """
    pairs = [part.partition("=") for part in text.split(",") if part.strip()]
    columns = {own.strip(): name.strip() for own, _, name in pairs}
    if not columns or not all(own and name for own, name in columns.items()):
        raise DataError(
            f"columns {text!r} are not written as YOURS=KNOWN",
            fix="write --columns frage=prompt,antwort=completion",
        )
    try:
        return dict(check_columns(columns))
    except ValueError as error:
        raise DataError(str(error), fix="write --columns YOURS=KNOWN,YOURS=KNOWN") from None


def rename(row: Row, columns: Columns, file: str) -> Row | Problem:
    """The row with the user's columns under their known names; one that is there already is not replaced."""
    values = {columns.get(name, name): value for name, value in row.values.items()}
    if len(values) == len(row.values):
        return Row(row.line, values)
    torn = next(name for own, name in columns.items() if own in row.values and name in row.values)
    return Problem(
        f"{file}:{row.line}", f"has a column {torn!r} already", f"map {torn!r} to another name too"
    )


def refuse_absent(rows: Sequence[Mapping[str, Any]], columns: Columns, where: str) -> None:
    """Refuse a mapping of columns that the first rows do not have under either name.

    Raises:
        DataError: names the column and what was found.
    """
    found = dict.fromkeys(name for row in rows for name in row)
    for own, name in columns.items():
        if own not in found and name not in found:
            near = difflib.get_close_matches(own, found, n=1)
            raise DataError(
                f"no column {own!r}, which is to be read as {name!r} (found {', '.join(found) or 'none'})",
                where=where,
                fix=f"did you mean {near[0]!r}?" if near else "take it out of `columns:`",
            )


def suggest_columns(rows: Sequence[Mapping[str, Any]]) -> str | None:
    """What to write so that columns of unknown names are read; None where nothing can be guessed."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    if all(map(is_turn, rows)):
        return 'each row is one turn: put those of a conversation into one row, {"messages": […]}'
    if any(set(names) >= columns for columns in _LOGGED):
        return "these are requests of an API: luthier collect logs FILE --out examples.jsonl"
    chats = _chats(rows, names)
    structured = [name for name in names if any(isinstance(row.get(name), dict | list) for row in rows)]
    guess = chats if len(chats) == 1 else {}
    if not chats:
        guess = _guess_pair([name for name in names if name not in structured])
    if not guess or (structured and list(guess.values()) == ["text"]):  # a title says less than its row
        return None
    inside = ", ".join(f"{own}: {name}" for own, name in guess.items())
    given = ",".join(f"{own}={name}" for own, name in guess.items())
    return f"write `columns: {{{inside}}}` under `data:` of the recipe, or --columns {given!r}"


def _chats(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, str]:
    """The columns of turns, by what is in them."""
    found = {}
    for name in names:
        value = next((row[name] for row in rows if row.get(name)), None)
        if isinstance(value, list) and isinstance(value[0], dict) and not value[0].keys().isdisjoint(SPEAKER):
            found[name] = "conversations" if {"from", "value"} <= value[0].keys() else "messages"
    return found


def _guess_pair(names: Sequence[str]) -> dict[str, str]:
    for wanted in _PAIRS:
        guess: dict[str, str] = {}
        for column in wanted:
            left = [name for name in names if name not in guess]
            if own := _like(column, left):
                guess[own] = column
        if len(guess) == len(wanted):
            return {own: name for own, name in guess.items() if own != name}
    return {}


def _like(column: str, names: Sequence[str]) -> str | None:
    """The column that is called so, or like a synonym of it, or like one with words around it."""
    words = (column, *_SYNONYMS[column])
    for word in words:
        for name in names:
            if name.lower().replace("-", "_").replace(" ", "_") == word:
                return name
    for word in words:
        like = [name for name in names if word in name.lower().replace("-", "_").replace(" ", "_").split("_")]
        if len(like) == 1:  # of `answer_a` and `answer_b`, neither is the answer
            return like[0]
        if like:
            return None
    return None
