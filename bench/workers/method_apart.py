"""One method on a task of its own: trained and scored by the pipeline itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.checks.labels import LABEL_SETS, read_labelled
from bench.checks.texts import TextSet, read_texts
from bench.method_cost import cost_of
from bench.methods_apart import ADAPTER, BASE
from bench.protocol import Line
from bench.workers.adapter_kind import change
from bench.workers.method import RULES, SYSTEM, prepare_start
from luthier.pipeline import Run
from luthier.recipe import Recipe, parse_recipe
from luthier.record import write_jsonl

LAW = TextSet("law suits", "held-out", "MultiLexSum/test.jsonl", ("summary",))
SUBJECTS, MAIL = "medical exams, subject", "support mail, category"
TEXTS, LABELLED = 300, 400
SUBJECT_SYSTEM = "Name the subject of the exam question in one word."
MAIL_SYSTEM = "Name the category of the support mail in one word."
MAIL_WEIGHT = 0.5


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    work = Path(job["work"])
    run = Run(recipe_of(work, job), work / job["name"].replace(", ", "-").replace(" ", "-"))
    line.send(event="measured", **measure(run))


def recipe_of(work: Path, job: Mapping[str, Any]) -> Recipe:
    """The run's recipe; what it learns from is written."""
    asked = dict(job["asked"])
    source = asked.pop("data")
    raw: dict[str, Any] = {"model": BASE, "adapter": ADAPTER, "probes": ["own_text"]}
    if source in ("law", "labels"):
        raw["data"] = str(_texts(work) if source == "law" else _labelled(work, SUBJECTS))
        raw |= {"system": SUBJECT_SYSTEM, "probes": []} if source == "labels" else {}
        return parse_recipe(raw | asked, base=work, name="methods")
    if source == "two":
        exams = {"file": str(_labelled(work, SUBJECTS, SUBJECT_SYSTEM)), "name": "exams"}
        mail = {"file": str(_labelled(work, MAIL, MAIL_SYSTEM)), "name": "mail", "weight": MAIL_WEIGHT}
        raw |= {"data": {"train": [exams, mail]}, "probes": []}
        return parse_recipe(raw | asked, base=work, name="methods")
    start = prepare_start(work, job["start"], job["answers"])
    raw["system"] = SYSTEM
    if source == "ranked":
        # another seed than that of the start: with its seed all these requests are of the training side
        raw |= {"model": str(start), "data": "ranked.jsonl", "probes": [], "seed": 1}
        return parse_recipe(raw | asked, base=work, name="methods")
    raw |= {"data": {"train": "start/data/train.jsonl", "test": "start/data/test.jsonl"}, "grader": RULES}
    raw |= {"candidates": ["prompt", "tuned"], "max_new_tokens": 80, "split": {"validation": 0.15}}
    if isinstance(asked["method"], Mapping):
        asked["method"] = {**asked["method"], "teacher": str(start)}
    return parse_recipe(raw | asked, base=work, name="methods")


def measure(run: Run) -> dict[str, Any]:
    """What `Apart` holds of a run."""
    scores = run.evaluate()
    drift = run.probe().get("own_text") if run.recipe.probes else None
    candidates = scores["candidates"]
    slices = scores["slices"]["scores"]
    best = max((name for name in candidates if name != "tuned"), key=lambda name: candidates[name]["score"])
    pair = next(row for row in scores["paired"] if {row["a"], row["b"]} == {"tuned", best})
    sign = 1 if pair["a"] == "tuned" else -1
    low, high = sorted((sign * pair["low"], sign * pair["high"]))
    return {
        "base": candidates["prompt"]["score"],
        "score": candidates["tuned"]["score"],
        "best": best,
        "best_score": candidates[best]["score"],
        "gain": sign * pair["difference"],
        "gain_bounds": (low, high),
        "perplexity": [candidates[name]["perplexity"]["value"] for name in ("prompt", "tuned")]
        if run.recipe.reads_texts
        else None,
        **(change("drift", drift, 1) if drift else {"drift": None, "drift_bounds": (None, None)}),
        "tasks": {row["value"]: row["score"] for row in slices if row["candidate"] == "tuned"} or None,
        **cost_of(run.train()),
        "n": candidates["tuned"]["n"],
    }


def _texts(work: Path) -> Path:
    """Public summaries of law suits, a text a row."""
    texts = read_texts(LAW, TEXTS, longest=3000)
    return _written(work / "law.jsonl", [{"text": text} for text in texts])


def _labelled(work: Path, name: str, system: str | None = None) -> Path:
    """Texts with a label each, public exam questions with their subject or support mail with its category.

    Args:
        system: what says, in each row, which task it is of.
    """
    found = read_labelled(next(own for own in LABEL_SETS if own.name == name), LABELLED)
    rows = [{"text": text, "label": label} | ({"system": system} if system else {}) for text, label in found]
    kind = "mail" if name == MAIL else "subjects"
    return _written(work / f"{kind}{'-told' if system else ''}.jsonl", rows)


def _written(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_jsonl(path, rows)
    return path


if __name__ == "__main__":
    main()
