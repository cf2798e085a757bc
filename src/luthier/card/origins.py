"""Where the examples come from: what they say of themselves, else what the recipe does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath, PureWindowsPath
from typing import Any

from luthier.card.numbers import count

SIDES = ("train", "validation", "test")


@dataclass(frozen=True)
class Origin:
    """Examples of one source and licence. `synthetic`: a model wrote the answers; None where nobody says.

    `counts` are by side; `accepted` is how many of them a person accepted.
    """

    source: str
    licence: str | None
    synthetic: bool | None
    counts: Mapping[str, int]
    accepted: int

    @property
    def total(self) -> int:
        """Examples on all sides."""
        return sum(self.counts.values())


def read_origins(rows: Any, recipe: Mapping[str, Any]) -> list[Origin]:
    """The rows of the manifest's `provenance`, those that are alike together.

    Args:
        rows: of the manifest; anything else gives none.
        recipe: as it was run; its `data` may state source and licence.
    """
    found: dict[tuple[str, str | None, bool | None], Counter[str]] = {}
    for row in rows if isinstance(rows, list) else ():
        if not isinstance(row, Mapping):
            continue
        file = str(row.get("file") or "")
        stated = _stated(recipe.get("data"), file)
        source = row.get("source") or stated.get("source") or file
        licence = row.get("licence") or stated.get("licence")
        synthetic = row.get("synthetic")
        key = (
            _without_folder(str(source)),
            None if licence is None else str(licence),
            synthetic if isinstance(synthetic, bool) else None,
        )
        numbers = found.setdefault(key, Counter())
        for name in (*SIDES, "accepted"):
            numbers[name] += row[name] if isinstance(row.get(name), int) else 0
    return [
        Origin(*key, counts={side: numbers[side] for side in SIDES}, accepted=numbers["accepted"])
        for key, numbers in found.items()
    ]


def warn_of(origins: Sequence[Origin]) -> list[str]:
    """What a reader should know before trusting or publishing: unknown licences, answers by models."""
    total = sum(origin.total for origin in origins)
    unknown = sum(origin.total for origin in origins if origin.licence is None)
    written = [origin for origin in origins if origin.synthetic]
    tested = sum(origin.counts["test"] for origin in written)
    unread = sum(origin.total - origin.accepted for origin in written)
    warnings = []
    if unknown:
        warnings.append(
            f"The licence of {_of(unknown, total)} is unknown: nothing here says that they may be used."
        )
    if tested:
        every = sum(origin.counts["test"] for origin in origins)
        warnings.append(
            f"The test side holds synthetic examples: a model wrote the answers of {_of(tested, every)}, "
            "and scores on them say how far another model agrees with it."
        )
    if unread:
        written_total = sum(origin.total for origin in written)
        warnings.append(
            f"No person is recorded as having accepted {_of(unread, written_total, 'synthetic ')}."
        )
    return warnings


def _of(part: int, whole: int, what: str = "") -> str:
    if part == whole:
        return f"all {count(whole)} {what}examples"
    return f"{count(part)} of {count(whole)} {what}examples"


def _stated(data: Any, file: str) -> Mapping[str, Any]:
    """What the recipe says of a file: its task, else all of the data."""
    if not isinstance(data, Mapping):
        return {}
    tasks = data.get("train")
    own: Mapping[str, Any] = next(
        (
            task
            for task in (tasks if isinstance(tasks, list) else ())
            if isinstance(task, Mapping) and _is_named(str(task.get("file")), file)
        ),
        {},
    )
    return {key: own.get(key) or data.get(key) for key in ("source", "licence")}


def _is_named(file: str, name: str) -> bool:
    """Whether a task's file is the one that the manifest names: without its folder, or a hub's data set."""
    return PurePath(file).name == name or file.partition("@")[0] == name.partition("@")[0]


def _without_folder(text: str) -> str:
    """A path of this machine as the name of its file; other texts as they are."""
    absolute = PurePath(text).is_absolute() or PureWindowsPath(text).is_absolute()
    return PureWindowsPath(text).name or text if absolute else text
