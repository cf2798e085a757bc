"""The stage that lists what a person should read before release: `review.jsonl` and `review.md`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from luthier.card.markdown import escape, fence
from luthier.evidence.review import LIST, list_answers
from luthier.evidence.slices import lost_slices
from luthier.pipeline.agreeing import FILE, confident_rows
from luthier.pipeline.stages import read_split
from luthier.recipe import Recipe
from luthier.recipe.probe_options import PROBE_NAMES
from luthier.record import Record, sha256_of, write_jsonl, write_text

PAGE = "review.md"
CANDIDATE = "tuned"
_READ = (f"predictions/{CANDIDATE}.jsonl", "scores.json", "failures.json", "calibration.json", FILE)


def review_inputs(record: Record, recipe: Recipe) -> dict[str, Any]:
    """What the list depends on: files of the record alone, so that it can be made where the models are not.

    Raises:
        RecordError: the candidates have not been graded.
    """
    record.read_json("scores.json", needed_by="evaluate")
    others = [f"predictions/{name}.jsonl" for name in recipe.candidates]
    probes = [f"probes/{name}.json" for name in PROBE_NAMES]
    files = dict.fromkeys([*_READ, "data/test.jsonl", *others, *probes])
    return {"files": {file: sha256_of(record / file) for file in files}, "seed": recipe.seed}


def write_review(record: Record, recipe: Recipe) -> None:
    """`review.jsonl` and, for reading on paper or in an editor, `review.md`."""
    scores = record.read_json("scores.json", needed_by="evaluate")
    calibration = record.read_json("calibration.json", needed_by="evaluate")
    probes: dict[str, Any] = {
        name: record.read_json(f"probes/{name}.json")
        for name in PROBE_NAMES
        if (record / f"probes/{name}.json").is_file()
    }
    others = {
        name: {row["id"]: row["score"] for row in record.read_jsonl(f"predictions/{name}.jsonl")}
        for name in scores["candidates"]
        if name != CANDIDATE
    }
    rows = list_answers(
        confident_rows(record, recipe, f"predictions/{CANDIDATE}.jsonl"),
        read_split(record).test,
        threshold=calibration["abstention"]["value"],
        failures=record.read_json("failures.json", needed_by="evaluate").get(CANDIDATE, {}),
        lost_slices=lost_slices((scores.get("slices") or {}).get("paired", ())),
        others=others,
        probes=probes,
        seed=recipe.seed,
    )
    write_jsonl(record / LIST, rows)
    write_text(record / PAGE, render_list(rows, recipe.name))


def render_list(rows: Sequence[Mapping[str, Any]], name: str) -> str:
    """The list as Markdown; nothing of the data becomes markup."""
    drawn = sum(row["sampled"] for row in rows)
    head = (
        f"# {escape(name)}: {len(rows)} answers to read before release\n\n"
        f"{drawn} of them were drawn at random. Judge them with `luthier review RUN`.\n"
    )
    return head + "".join(f"\n{_entry(number, row)}" for number, row in enumerate(rows, start=1))


def _entry(number: int, row: Mapping[str, Any]) -> str:
    confidence = "none" if row["confidence"] is None else f"{row['confidence']:.1%}"
    blocks = "\n\n".join(
        f"{label}:\n\n{_block(row[key])}"
        for label, key in (("Request", "prompt"), ("Expected", "expected"), ("Answer", "answer"))
    )
    why = "; ".join(escape(reason) for reason in row["why"])
    return f"## {number}. {escape(row['where'])}\n\nWhy: {why}. Confidence: {confidence}.\n\n{blocks}\n"


def _block(text: str) -> str:
    return f"{fence(text)}text\n{text}\n{fence(text)}"
