"""Agreement of samples as confidence: tuned asked again and again, and how often it says the same."""

from __future__ import annotations

import hashlib
from typing import Any

from luthier.pipeline.answering import prepare_request, settings_of
from luthier.pipeline.models import Models
from luthier.pipeline.scoring import recipe_grader
from luthier.pipeline.stages import read_split
from luthier.progress import Show
from luthier.recipe import Recipe
from luthier.record import Record, write_jsonl

FILE = "answers/tuned-agreement.jsonl"
SIDES = {"validation": "answers/tuned-validation.jsonl", "test": "answers/tuned.jsonl"}


def is_asked(recipe: Recipe) -> bool:
    """Whether the recipe's confidence is made of samples."""
    return recipe.confidence.kind == "agreement"


def write_agreement(record: Record, recipe: Recipe, models: Models, show: Show) -> None:
    """`answers/tuned-agreement.jsonl`: by example the sampled answers and how far they agree with the greedy.

    Both sides of the split that were answered are asked, with the prompts that they were answered with.
    """
    from luthier.candidates.answer import sample
    from luthier.grade.same_answer import measure_agreement, measure_alike

    split = read_split(record)
    alike = measure_alike(recipe_grader(recipe, split))
    (setting,) = settings_of(recipe, "tuned")
    count, temperature = recipe.confidence.samples, recipe.confidence.temperature
    rows: list[dict[str, Any]] = []
    for side, file in SIDES.items():
        asked = split.sides()[side]
        if not asked:
            continue
        greedy = {row["id"]: row["answer"] for row in record.read_jsonl(file)}
        request = prepare_request(recipe, models, "tuned", setting, asked, split, None)
        with show.task(f"tuned: {count} samples of each answer, {side}", count * len(asked)) as advance:
            sampled = sample(
                models.tuned(),
                models.chat,
                request.conversations,
                count=count,
                temperature=temperature,
                seed=_seed(recipe.seed, side),
                max_new_tokens=request.max_new_tokens,
                constraint=request.constraint,
                advance=advance,
            )
        rows += [
            {
                "id": key,
                "side": side,
                "agreement": measure_agreement(texts, greedy[key], alike),
                "samples": texts,
            }
            for key, texts in sampled.items()
        ]
    write_jsonl(record / FILE, rows)


def confident_rows(record: Record, recipe: Recipe, file: str) -> list[dict[str, Any]]:
    """Graded answers of tuned with the confidence that the recipe asks for, None where it was not sampled."""
    rows = record.read_jsonl(file, needed_by="evaluate")
    if not is_asked(recipe):
        return rows
    found = {row["id"]: row["agreement"] for row in record.read_jsonl(FILE, needed_by="evaluate")}
    return [row | {"confidence": found.get(row["id"])} for row in rows]


def _seed(seed: int, side: str) -> int:
    """A seed of each side's own, so that one side's samples say nothing of the other's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/agreement/{side}".encode()).digest()[:4], "big")
