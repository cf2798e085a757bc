"""What tuned's confidence is worth: its answers to the validation side, samples, and `calibration.json`."""

from __future__ import annotations

from typing import Any

from luthier.pipeline import agreeing
from luthier.pipeline.stages import read_split
from luthier.recipe import Recipe
from luthier.record import Record, sha256_of, write_json

VALIDATION = "answers/tuned-validation.jsonl"
ANSWERS = "predictions/tuned.jsonl"


def calibration_inputs(record: Record, recipe: Recipe) -> dict[str, Any]:
    """What `calibration.json` depends on."""
    inputs = {
        "validation": record.output_hash("validation-tuned"),
        "test": sha256_of(record / ANSWERS),
        "split": record.output_hash("split"),
        **recipe.model_dump(include={"abstain", "seed"}),
    }
    if agreeing.is_asked(recipe):
        inputs |= {"agreement": record.output_hash("agreement-tuned")}
    return inputs


def write_calibration(record: Record, recipe: Recipe) -> None:
    """`calibration.json`."""
    from luthier.evidence.calibration import report_calibration
    from luthier.evidence.evaluation import clusters_of

    plain, kinds = record.read_jsonl(ANSWERS), None
    test = agreeing.confident_rows(record, recipe, ANSWERS)
    if agreeing.is_asked(recipe):
        sides = {"logprob": plain, "agreement": test}
        kinds = {kind: [row["confidence"] for row in rows] for kind, rows in sides.items()}
    report = report_calibration(
        "tuned",
        agreeing.confident_rows(record, recipe, VALIDATION),
        test,
        clusters_of(read_split(record).test),
        recipe.abstain,
        seed=recipe.seed,
        confidence=recipe.confidence,
        kinds=kinds,
    )
    write_json(record / "calibration.json", report)
