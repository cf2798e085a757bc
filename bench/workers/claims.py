"""One run of the study of claims: trained, graded and probed by the pipeline itself."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.claims.contains import contains
from bench.claims.data import FACTS
from bench.protocol import Line
from luthier.candidates import ask, prompt_messages, seen_by_tuned
from luthier.grade.label import normalise_label
from luthier.pipeline import Run
from luthier.probes import choice_items
from luthier.probes.forgetting import chance_of_right
from luthier.probes.refusal import is_refusal
from luthier.probes.refusal_requests import HARMFUL
from luthier.recipe import Recipe, parse_recipe
from luthier.train.schedule import peak_rate

Values = dict[str, list[float]]


def main() -> None:
    """One job in; a word after each step, so that a long run is not taken for a dead one; one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as name:
        recipe = write_recipe(job, Path(name))
        run = Run(recipe, Path(name) / "run")
        summary = None
        if "tuned" in recipe.candidates:
            if job["rate_factor"] != 1:
                recipe = _at_rate(run, job["rate_factor"])
                run = Run(recipe, Path(name) / "run")
            summary = run.train()
            line.send(event="step", what="trained", seconds=summary["seconds"])
        scores = run.evaluate()
        line.send(event="step", what="answered")
        probes = measure_probes(run)
        line.send(event="step", what="probed")
        test = run.split().test
        line.send(
            event="measured",
            metric=scores["metric"],
            cases=[example.fields["case"] for example in test],
            kinds=[example.fields.get("kind") for example in test],
            candidates={name: _columns(run, name) for name in recipe.candidates},
            probes=probes,
            trained=_ask_trained(run) if job["ask_trained"] else [],
            rate=summary and summary["learning_rate"],
            steps=summary and summary["steps"],
            training_seconds=summary and summary["seconds"],
        )


def write_recipe(job: dict[str, Any], folder: Path) -> Recipe:
    """The job's examples and documents as files, and the recipe that names them."""
    raw = {**job["recipe"], "name": "claims", "data": {}}
    for side, rows in job["sides"].items():
        raw["data"][side] = str(_write(folder / f"{side}.jsonl", rows))
    if job["documents"]:
        raw["documents"] = str(_write(folder / "documents.jsonl", [{"text": t} for t in job["documents"]]))
    return parse_recipe(raw, base=FACTS.parent)


def _write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def _at_rate(run: Run, factor: float) -> Recipe:
    recipe, width = run.recipe, run.base().model.config.get_text_config().hidden_size
    rate = factor * peak_rate("auto", hidden_size=width, kind=recipe.adapter.kind, rank=recipe.adapter.rank)
    return recipe.model_copy(update={"train": recipe.train.model_copy(update={"learning_rate": rate})})


def _columns(run: Run, name: str) -> dict[str, list[Any]]:
    rows = run.record.read_jsonl(f"predictions/{name}.jsonl")
    return {
        "score": [_short(row["score"]) for row in rows],
        "confidence": [_short(row["confidence"]) for row in rows],
        "prompt_tokens": [row["prompt_tokens"] for row in rows],
        "in_prompt": [float(contains(row["prompt"] or "", row["reference"], {})) for row in rows],
    }


def _short(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def measure_probes(run: Run) -> dict[str, Values]:
    """Values of base and tuned for each item, from what the run's own probes measured.

    Raises:
        RuntimeError: a probe did not run to its end.
    """
    for name, report in run.probe().items():
        if report["finding"] == "failed":
            raise RuntimeError(f"probe {name}: {report['reason']}")
    readers = {"forgetting": _forgetting, "own_text": _own_text, "refusal": _refusal}
    found = {name: readers[name](run) for name in run.recipe.probes}
    return {
        name: {which: [round(float(value), 6) for value in column] for which, column in sides.items()}
        for name, sides in found.items()
    }


def _forgetting(run: Run) -> Values:
    raw, items = run.record.read_json("answers/forgetting.json"), choice_items(run.recipe.probe_items)
    return {which: list(chance_of_right(items, raw[which])) for which in ("base", "tuned")}


def _own_text(run: Run) -> Values:
    raw = run.record.read_json("answers/own_text.json")
    return {"base": [text["nll"] for text in raw["texts"]], "tuned": raw["tuned"]}


def _refusal(run: Run) -> Values:
    """1 where a request is refused or answered as it should be; the harmful ones come first."""
    raw = run.record.read_json("answers/refusal.json")["answers"]
    return {
        which: [
            float(is_refusal(answer) == (place < len(HARMFUL))) for place, answer in enumerate(raw[which])
        ]
        for which in ("base", "tuned")
    }


def _ask_trained(run: Run) -> list[dict[str, Any]]:
    """The tuned model's answers to what it was trained on, as it was trained."""
    recipe, train = run.recipe, run.split().train
    system = recipe.system_of("tuned")
    asked = {e.id: prompt_messages(e, run.chat, system) for e in seen_by_tuned(train, recipe.tuned_system)}
    answers = {a.id: a for a in ask(run.tuned(), run.chat, asked, max_new_tokens=recipe.max_new_tokens or 8)}
    return [
        {
            "case": example.fields["case"],
            "kind": example.fields["kind"],
            "taught": normalise_label(example.answer),
            "right": normalise_label(example.fields["right"]),
            "answer": normalise_label(answers[example.id].answer)[:40],
            "confidence": round(answers[example.id].confidence or 0.0, 6),
        }
        for example in train
    ]


if __name__ == "__main__":
    main()
