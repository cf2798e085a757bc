"""Multiple-choice items from public suites, by the ability they ask for."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from luthier import assets
from luthier.errors import AssetError

# ability: file of the suites asset. Suites whose items a small model can answer above chance.
SUITES = {
    "physical common sense": "PIQA/validation.jsonl",
    "everyday knowledge": "CommonsenseQA/validation.jsonl",
    "science facts": "OpenBookQA/test.jsonl",
    "social sense": "SIQA/test.jsonl",
}
_OPTION = re.compile(r"^\s*[A-H]\.\s*", re.MULTILINE)


@dataclass(frozen=True)
class ChoiceItem:
    """One question with its options; `right` is the index of the right one."""

    ability: str
    suite: str
    question: str
    options: tuple[str, ...]
    right: int

    @property
    def text(self) -> str:
        """What stands before an option."""
        return f"Question: {self.question}\nAnswer:"


def choice_items(count: int) -> list[ChoiceItem]:
    """About `count` items, evenly from every suite; the same ones for everybody.

    Items are drawn by the hash of their text, so that neither the run's seed nor the file's order
    decides, and base results can be kept.

    Raises:
        AssetError: the suites cannot be fetched or read.
    """
    share, extra = divmod(count, len(SUITES))
    chosen = []
    for place, (ability, file) in enumerate(SUITES.items()):
        items = sorted(_read(ability, file), key=lambda item: hashlib.sha256(item.text.encode()).digest())
        chosen += items[: share + (place < extra)]
    return chosen


def _read(ability: str, file: str) -> Iterator[ChoiceItem]:
    path = assets.suite_file(file)
    suite = file.split("/", maxsplit=1)[0]
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise AssetError(f"not valid JSON: {error}", where=f"{path}:{number}") from None
        item = _item(ability, suite, row)
        if item is not None:
            yield item


def _item(ability: str, suite: str, row: dict[str, Any]) -> ChoiceItem | None:
    """The item of a row, or None where the row's answer is not among its options."""
    options = tuple(part.strip() for part in _OPTION.split(row["options"]) if part.strip())
    answer = _OPTION.sub("", row["answer"]).strip()
    if len(options) < 2 or len(set(options)) < len(options) or answer not in options:
        return None
    question = " ".join(part.strip() for part in (row.get("passage", ""), row["question"]) if part.strip())
    return ChoiceItem(ability, suite, question, options, options.index(answer))
