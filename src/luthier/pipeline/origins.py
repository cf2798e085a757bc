"""Where the examples of a run come from: counted by source, licence, and who wrote the answers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from luthier.examples import Example
from luthier.examples.hub import HUB


def summarise_provenance(sides: Mapping[str, Sequence[Example]]) -> list[dict[str, Any]]:
    """`provenance` of `data/manifest.json`: one row for all examples that say the same of themselves.

    Returns:
        Rows with `file` (its name), `source`, `licence`, `synthetic` (None: the example does not say), the
        number of examples by side, and `accepted`: how many a person accepted or edited.
    """
    counts: dict[tuple[str, str | None, str | None, bool | None], Counter[str]] = {}
    for side, examples in sides.items():
        for example in examples:
            told = example.provenance
            synthetic = told.get("synthetic")
            key = (
                _name(example.file),
                _text(told.get("source")),
                _text(told.get("licence", told.get("license"))),
                synthetic if isinstance(synthetic, bool) else None,
            )
            row = counts.setdefault(key, Counter())
            row[side] += 1
            row["accepted"] += bool(told.get("accepted_by"))
    return [
        {
            **dict(zip(("file", "source", "licence", "synthetic"), key, strict=True)),
            **{side: row[side] for side in sides},
            "accepted": row["accepted"],
        }
        for key, row in counts.items()
    ]


def _name(file: str) -> str:
    """A file without its folder; a data set of the hub whole."""
    return file if file.startswith(HUB) else Path(file).name


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
