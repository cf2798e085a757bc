"""One method from the common starting model: trained, graded and probed by the pipeline itself."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from bench.harness import ROOT
from bench.method_cost import cost_of
from bench.protocol import Line
from bench.workers.adapter_kind import change
from luthier.candidates.answer import sample
from luthier.candidates.prompting import prompt_messages
from luthier.grade import build_grader, grade_all
from luthier.pipeline import Run
from luthier.pipeline.stages import read_split
from luthier.recipe import load_recipe, parse_recipe
from luthier.record import write_jsonl
from luthier.stats import mean_interval

RECIPE = ROOT / "recipes/tone.yaml"
RULES = f"python:{ROOT / 'recipes/house_style.py'}:house_style"
SYSTEM = "You answer customers of Fernhill, a shop for garden tools."


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    work = Path(job["work"])
    start = prepare_start(work, job["start"], job["answers"])
    changes = dict(job["changes"])
    if "reward" in changes:
        train_reward_model(work, start, changes["train"])
    run = Run(recipe_of(work, start, changes), work / job["name"].replace(", ", "-").replace(" ", "-"))
    line.send(event="measured", **measure(run))


def prepare_start(work: Path, changes: Mapping[str, Any], answers: int) -> Path:
    """The starting model's folder, and beside it what methods learn from; made once.

    Its training and test requests are those of the run that made it: no method sees a test request.
    """
    run = Run(load_recipe(RECIPE, {**changes, "candidates": ["tuned"], "probes": []}), work / "start")
    model = work / "start-model"
    ranked = work / "ranked.jsonl"
    if not ranked.is_file():
        run.train()
        run.export(out=None if model.exists() else model)
        rank(run, answers, ranked)
    return model


def rank(run: Run, answers: int, into: Path) -> None:
    """The starting model's answers to its training requests, ranked by the rules; equal ones are left out."""
    asked = [example for side in ("train", "validation") for example in read_split(run.record).sides()[side]]
    system = run.recipe.system_of("tuned")
    conversations = {example.id: prompt_messages(example, run.chat, system) for example in asked}
    written = sample(
        run.tuned(), run.chat, conversations, count=answers, temperature=1.0, seed=0, max_new_tokens=80
    )
    grader = build_grader(RULES, [], answer_schema=None)
    rows = []
    for example in asked:
        texts = [text for text in dict.fromkeys(written[example.id]) if text.strip()]
        scores = [
            score.value or 0.0 for score in grade_all(grader, [(t, example.answer, example) for t in texts])
        ]
        levels = sorted(set(scores), reverse=True)
        best = [next(t for t, s in zip(texts, scores, strict=True) if s == level) for level in levels]
        if len(best) > 1:
            request = [message.as_dict() for message in example.request]
            rows.append({"prompt": request, "chosen": best[0], "rejected": best[1:]})
    write_jsonl(into, rows)


def recipe_of(work: Path, start: Path, changes: Mapping[str, Any]) -> Any:
    """A run of one method: its data, and the common test side."""
    data = dict(changes)
    source = data.pop("data")
    own = "start/data/train.jsonl"
    train = {"answers": own, "requests": own, "ranked": "ranked.jsonl"}
    raw = {
        "model": str(start),
        "data": {"train": train[source], "test": "start/data/test.jsonl"},
        "system": SYSTEM,
        "grader": RULES,
        "candidates": ["prompt", "tuned"],
        "max_new_tokens": 80,
        "probe_items": 200,
        "adapter": {"layers": "last 15"},
        "split": {"validation": 0.15},
    }
    return parse_recipe(raw | data, base=work, name="methods")


def train_reward_model(work: Path, start: Path, train: Mapping[str, Any]) -> None:
    """The reward model, in `work/reward`."""
    raw = {
        "model": str(start),
        "data": "ranked.jsonl",
        "system": SYSTEM,
        "method": "reward",
        "adapter": {"layers": "last 15"},
        "train": {"epochs": 3, "batch_tokens": 2048},
        "seed": 1,  # with the start's seed all these requests are of the training side
    }
    run = Run(parse_recipe(raw, base=work, name="reward"), work / "reward")
    run.evaluate()


def measure(run: Run) -> dict[str, Any]:
    """What `Outcome` holds of a run."""
    scores = run.evaluate()
    probes = run.probe()
    rows = {name: run.record.read_jsonl(f"predictions/{name}.jsonl") for name in ("prompt", "tuned")}
    pair = next(row for row in scores["paired"] if {row["a"], row["b"]} == {"prompt", "tuned"})
    better = preferred(rows["tuned"], rows["prompt"])
    interval = mean_interval(better, seed=0)
    return {
        "start": scores["candidates"]["prompt"]["score"],
        "score": scores["candidates"]["tuned"]["score"],
        "gain": pair["difference"],
        "gain_bounds": (pair["low"], pair["high"]),
        "preferred": interval.estimate,
        "preferred_bounds": (interval.low, interval.high),
        **change("forgetting", probes["forgetting"], -1),
        **change("drift", probes["own_text"], 1),
        "length": scores["candidates"]["tuned"]["answer_tokens"],
        **cost_of(run.train()),
        "n": len(better),
    }


def preferred(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> list[float]:
    """1 where our answer keeps more rules, 0 where it keeps fewer, else a half."""
    pairs = [(a["score"], b["score"]) for a, b in zip(ours, theirs, strict=True)]
    return [0.5 if a == b else float(a > b) for a, b in pairs if a is not None and b is not None]


if __name__ == "__main__":
    main()
