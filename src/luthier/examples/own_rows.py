"""Luthier's own rows, as the run folder has them (`Example.as_row`)."""

from __future__ import annotations

import re
from typing import Any

from luthier.errors import DataError
from luthier.examples.example import Message
from luthier.examples.form import EMPTY, Format, Values
from luthier.examples.preferences import own_wanted, own_worse
from luthier.examples.turns import read_cell, read_chat, read_text

_ID = re.compile(r"[0-9a-f]{16}(-\d+)?")


def is_own(row: Values) -> bool:
    """Whether a row with `id`, `file` and `line` is one that Luthier wrote."""
    return isinstance(row["id"], str) and _ID.fullmatch(row["id"]) is not None


def own_fields(row: Values) -> dict[str, Any]:
    """What stands under `fields`.

    Raises:
        DataError: it is no object.
    """
    value = read_cell(row.get("fields"))
    if value in EMPTY:
        return {}
    if not isinstance(value, dict):
        raise DataError("fields is not an object", fix='write {"name": value, …}, or leave it out')
    return dict(value)


OWN_FORMATS = (
    Format(
        "luthier",
        ("id", "messages", "file", "line"),
        ("fields", "rejected", "wanted", "tools"),
        lambda row: read_chat(row["messages"], "messages"),
        when=is_own,
        wanted=own_wanted,
        worse=lambda row, messages: own_worse({"rejected": read_cell(row.get("rejected"))}, messages),
        keeps=own_fields,
    ),
    Format(
        "luthier-texts",
        ("id", "text", "file", "line"),
        ("fields",),
        lambda row: [Message("assistant", read_text(row["text"], "text"))],
        when=is_own,
        keeps=own_fields,
        asks=False,
    ),
)
