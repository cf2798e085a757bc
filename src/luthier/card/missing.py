"""What a run did not measure."""

from __future__ import annotations

from luthier.card.meanings import MEANINGS
from luthier.card.view import Missing, View

PROBES = {
    "forgetting": "what the model lost on public tasks",
    "own_text": "how well it still predicts ordinary text",
    "bias": "whether tuning changed how groups of people are treated",
    "refusal": "whether it still refuses harmful requests and still answers harmless ones",
    "memorization": "whether it repeats training examples word for word",
    "facts": "whether facts it knew have changed",
    "robustness": "what typing errors, casing and spacing in its inputs cost",
    "overfitting": "whether it does better on training examples than on others",
    "kl": "how far it moved from the base model on task and general prompts",
    "calibration": "whether its confidence means the same before and after",
}


def find_missing(view: View) -> list[Missing]:
    """Everything the record is silent about, so that silence is never read as a good result."""
    missing = []
    if view.decision is None:
        missing.append(Missing("the verdict", "verdict.json is not in this record"))
    if not view.candidates:
        missing.append(Missing("every candidate's score", "scores.json is not in this record"))
    known = set(MEANINGS)
    absent = sorted(known - {c.name for c in view.candidates}) if view.candidates else []
    encoder = view.training is not None and view.training.summary.get("encoder")
    why_absent = "an encoder writes no answers" if encoder else "left out of this run"
    missing += [
        Missing(f"candidate {name}", why_absent if name != "scratch" else "left out of this run")
        for name in absent
    ]
    missing += [
        Missing(f"score of {c.name}", "its score is undefined")
        for c in view.candidates
        if c.score.value is None
    ]
    if view.training is None:
        missing.append(Missing("training", "no training in this record"))
    if view.audit is None:
        missing.append(Missing("the quality of the examples", "audit.json is not in this record"))
    else:
        missing += [
            Missing(f"data check {check}", reason or "it did not run")
            for check, reason in (*view.audit.failed, *view.audit.skipped)
        ]
    if view.data is None:
        missing.append(Missing("where the examples came from", "data/manifest.json is not in this record"))
    if view.candidates and not view.slices:
        missing.append(Missing("scores by slice", "the recipe names no field of the examples under slices"))
    if view.candidates and not view.review:
        missing.append(Missing("what a person says of the answers", "nobody has read the listed ones"))
    if view.confidence is None or view.confidence.n is None:
        missing.append(Missing("confident and wrong answers", "no confidence was recorded"))
    for name, why in PROBES.items():
        probe = view.probes.get(name)
        if probe is None:
            missing.append(Missing(name.replace("_", " "), why))
        elif probe.finding == "failed":
            missing.append(Missing(name.replace("_", " "), probe.reason or "the probe failed to run"))
    return missing
