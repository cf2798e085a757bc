"""Real texts of which no two start with the same token: the passages of QuAC, from the public suites."""

from __future__ import annotations

import json
from typing import Any

from luthier.assets import suite_file

FILE = "Quac/test.jsonl"


def passages(tokenizer: Any, count: int, *, least: int) -> list[list[int]]:
    """Token ids of the file's first `count` passages of at least `least` tokens with distinct first tokens.

    Raises:
        ValueError: there are fewer.
    """
    lines = suite_file(FILE).read_text(encoding="utf-8").splitlines()
    first: dict[int, list[int]] = {}
    for text in dict.fromkeys(json.loads(line)["passage"] for line in lines):
        ids: list[int] = tokenizer(text, add_special_tokens=False).input_ids
        if len(ids) >= least:
            first.setdefault(ids[0], ids)
        if len(first) == count:
            return list(first.values())
    raise ValueError(f"{count} passages are needed, the data has {len(first)}: ask for fewer pairs")
