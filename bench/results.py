"""Files of results that a study appends to: one JSON object a line, whatever interrupted it before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What stands in the file; a line that an interruption cut off is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def read_named(
    path: Path, settings: Mapping[str, str], outcome: Callable[..., T], *, key: str
) -> dict[str, T]:
    """Outcomes that were measured with these settings, by the field `key`; the newest of each.

    Args:
        settings: of each name, in the order that they are given back in.
        outcome: makes one of a row; lists come as tuples.
    """
    found = {}
    for raw in read_rows(path):
        if raw["settings"] == settings.get(raw[key]):
            lists = {name: tuple(value) for name, value in raw.items() if isinstance(value, list)}
            found[raw[key]] = outcome(**raw | lists)
    return {name: found[name] for name in settings if name in found}


def append_outcome(path: Path, outcome: DataclassInstance) -> None:
    """Add one line; on a line of its own even where the last one was cut off."""
    before = path.read_bytes() if path.is_file() else b""
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if before and not before.endswith(b"\n") else "")
        file.write(json.dumps(asdict(outcome)) + "\n")


def write_outcomes(path: Path, outcomes: Iterable[DataclassInstance]) -> None:
    """These and no others: of what was measured again, the file keeps the newest."""
    path.write_text("".join(json.dumps(asdict(outcome)) + "\n" for outcome in outcomes), encoding="utf-8")
