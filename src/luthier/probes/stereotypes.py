"""Public sets about stereotypes, scored by log-probability: trends, since their items are known to be noisy.

- BBQ (Parrish et al. 2022): where the text does not say who did it, the chance that a person is named all the
  same; where it does, the chance of the right one. Our copy does not say which answer is the stereotype.
- CrowS-Pairs (Nangia et al. 2020) and StereoSet (Nadeem et al. 2021): how often the more stereotypical of two
  sentences has the higher log-probability per token; 50% is even-handed. Blodgett et al. (2021) list what
  is wrong with many of the items, so that no gate rests on them.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from typing import Any

from luthier import assets
from luthier.errors import AssetError
from luthier.probes.change import paired_change, part
from luthier.probes.subjects import Side, Subjects

ITEMS = 64  # of each of the four sets
CANNOT_TELL = (
    "can't answer",
    "cannot answer",
    "not enough information",
    "not enough info",
    "cannot be determined",
    "can't be determined",
    "undetermined",
    "not known",
    "not answerable",
    "unknown",
)
Rows = list[dict[str, Any]]


def measure_stereotypes(subjects: Subjects) -> dict[str, Any]:
    """The items, and per item the log-probability of each choice: summed, or per token where two compete."""
    items = stereotype_items(ITEMS)

    def encoded(item: dict[str, Any], choice: str) -> tuple[list[int], int]:
        tokenizer = subjects.chat.tokenizer
        before = tokenizer(item["before"]).input_ids if item["before"] else []
        ids = tokenizer(choice, add_special_tokens=not before).input_ids
        return [*before, *ids], len(ids) if before else len(ids) - 1  # the first token has nothing before it

    def work(side: Side) -> list[list[float]]:
        every = [encoded(item, choice) for item in items for choice in item["choices"]]
        sums = side.totals([ids for ids, _ in every], [count for _, count in every])
        values = iter(zip(sums, (count for _, count in every), strict=True))
        found = []
        for item in items:
            own = [next(values) for _ in item["choices"]]
            found.append([total / max(1, count) if item["preference"] else total for total, count in own])
        return found

    total = sum(len(item["choices"]) for item in items)
    return {"items": items, **subjects.both("stereotypes", total, {"items": items}, work)}


def stereotype_parts(measured: dict[str, Any], seed: int) -> list[dict[str, Any]]:
    """One row per set: the chance, or the share, of the choice that the set asks about, before and after."""
    parts = []
    for name in dict.fromkeys(item["set"] for item in measured["items"]):
        own = [i for i, item in enumerate(measured["items"]) if item["set"] == name]
        chances = {
            which: [_value(measured["items"][i], measured[which][i]) for i in own]
            for which in ("base", "tuned")
        }
        change = paired_change(chances["base"], chances["tuned"], seed=seed)
        parts.append(part(name, change, source=measured["items"][own[0]]["source"], unit="chance"))
    return parts


def stereotype_items(count: int) -> Rows:
    """`count` items of each set, drawn by the hash of their text.

    Returns:
        Rows of `set`, `source`, `before` (what stands before a choice), `choices`, `counted` (indices of
        the choices whose chance is taken) and `preference` (which of two is likelier per token counts).

    Raises:
        AssetError: the public suites cannot be fetched or read.
    """
    bbq = _bbq()
    groups = [
        [item for item in bbq if item["set"] == name] for name in dict.fromkeys(item["set"] for item in bbq)
    ]
    chosen: Rows = []
    for group in (*groups, _crows_pairs(), _stereo_set()):
        ranked = sorted(group, key=lambda item: hashlib.sha256(repr(item).encode()).digest())
        chosen += ranked[:count]
    return chosen


def _bbq() -> Rows:
    items = []
    for row in _json_lines("BBQ/test.jsonl"):
        choices = [" " + line.split(". ", 1)[-1].strip() for line in row["options"].split("\n")]
        answer = " " + row["answer"][0].strip()
        vague = [i for i, choice in enumerate(choices) if choice.strip().lower() in CANNOT_TELL]
        if answer not in choices or len(vague) != 1:
            continue
        right = choices.index(answer)
        ambiguous = right == vague[0]
        question = row["question"].split("\n")[0].strip()
        counted = [i for i in range(len(choices)) if i != right] if ambiguous else [right]
        name = "a person is named without evidence" if ambiguous else "the right person where the text says"
        before = f"{row['passage']}\nQuestion: {question}\nAnswer:"
        items.append(_item(name, "BBQ", before, choices, counted, preference=False))
    return items


def _crows_pairs() -> Rows:
    path = assets.suite_file("Crows-Pairs/test.csv")
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    name = "prefers the more stereotypical sentence (pairs)"
    return [
        _item(
            name,
            "CrowS-Pairs",
            "",
            [r["sentence"].replace("[MASK]", r[mask]) for mask in ("mask1", "mask2")],
            [0],
            preference=True,
        )
        for r in rows
        if "[MASK]" in r["sentence"] and r["mask1"] and r["mask2"]
    ]


def _stereo_set() -> Rows:
    name = "prefers the more stereotypical sentence (contexts)"
    items = []
    for row in _json_lines("StereoSet/test.jsonl"):
        follows = row["type"] == "intersentence"
        space = " " if follows else ""
        choices = [space + row[kind].strip() for kind in ("stereotype", "anti-stereotype")]
        before = row["context"].strip() if follows else ""
        items.append(_item(name, "StereoSet", before, choices, [0], preference=True))
    return items


def _item(
    name: str, source: str, before: str, choices: list[str], counted: list[int], *, preference: bool
) -> dict[str, Any]:
    return {
        "set": name,
        "source": source,
        "before": before,
        "choices": choices,
        "counted": counted,
        "preference": preference,
    }


def _json_lines(file: str) -> Rows:
    path = assets.suite_file(file)
    rows: Rows = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            rows.append(json.loads(line))
        except ValueError as error:
            raise AssetError(f"not valid JSON: {error}", where=f"{path}:{number}") from None
    return rows


def _value(item: dict[str, Any], logps: list[float]) -> float:
    """Whether the first choice is the likelier one, or the probability of the counted ones among all."""
    if item["preference"]:
        return float(logps[0] > logps[1])
    top = max(logps)
    weights = [math.exp(value - top) for value in logps]
    return float(sum(weights[i] for i in item["counted"]) / sum(weights))
