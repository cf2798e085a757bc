"""Files of results that a study appends to: one JSON object a line, whatever interrupted it before."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def read_rows(path: Path) -> Iterator[dict[str, Any]]:
    """What stands in the file; a line that an interruption cut off is left out."""
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def append_outcome(path: Path, outcome: DataclassInstance) -> None:
    """Add one line; on a line of its own even where the last one was cut off."""
    before = path.read_bytes() if path.is_file() else b""
    with path.open("a", encoding="utf-8") as file:
        file.write("\n" if before and not before.endswith(b"\n") else "")
        file.write(json.dumps(asdict(outcome)) + "\n")
