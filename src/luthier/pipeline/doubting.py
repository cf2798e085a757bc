"""After training: which of its examples are likely mislabelled, by their losses while it learnt them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from luthier.examples.example import Example
from luthier.pipeline.stages import read_split
from luthier.record import Record, write_json

LOSSES = "train/losses.jsonl"
FILE = "train/doubtful.json"
LETTERS = 300  # of a request, to be recognised by


def write_doubtful(record: Record) -> None:
    """`train/doubtful.json`: the findings with their losses by epoch, or why there can be none.

    A run from before losses were kept has no history, which is no error.
    """
    from luthier.audit.finding import NotApplicableError
    from luthier.audit.loss_history import read_history

    try:
        found = read_history(read_split(record).train, _rows(record))
    except NotApplicableError as reason:
        write_json(record / FILE, {"says": None, "reason": str(reason), "judged": 0, "found": []})
        return
    n = len(found.doubtful)
    told = f"{n} of {found.judged} training labels {'is' if n == 1 else 'are'} doubtful"
    write_json(
        record / FILE,
        {
            "says": f"{told if n else 'no training label is doubtful'}, by what training made of them",
            "reason": None,
            "judged": found.judged,
            "labels": found.labels,
            "first_step": found.first_step,
            "found": [
                {
                    **one.as_finding().as_json(),
                    "input": _request(one.example),
                    "answer": one.example.answer,
                    "losses": list(one.losses),
                    "usual": list(one.usual),
                }
                for one in found.doubtful
            ],
        },
    )


def _rows(record: Record) -> Iterator[dict[str, Any]]:
    """The lines of the history, one by one: there is one for every example and epoch."""
    if (record / LOSSES).is_file():
        with (record / LOSSES).open(encoding="utf-8") as lines:
            yield from map(json.loads, lines)


def _request(example: Example) -> str:
    text = example.input
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
