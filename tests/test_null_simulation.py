"""Many runs in which nothing differs but by chance: how often the verdict ships."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_run
import yaml
from scipy.stats import binom
from test_null_cases import remarks, shuffled, write_rows

import luthier
import luthier.probes
from luthier.evidence.evaluation import summarise
from luthier.examples import Example
from luthier.examples.example import Message
from luthier.grade import build_grader
from luthier.pipeline import Run
from luthier.probes.change import paired_change, report_change
from luthier.recipe import Gates
from luthier.record import Record, write_json, write_jsonl
from luthier.verdict import decide

NAMES = ("prompt", "few_shot", "tuned")
GRADER = build_grader("label", ["good", "bad"] * 8, answer_schema=None)


def decision(folder: Path, right: dict[str, Any], groups: list[int] | None = None, probe: Any = None) -> str:
    """The verdict on given right and wrong answers, through scores, audit and a probe's report."""
    record = Record(folder)
    n = len(right["tuned"])
    test = [
        Example(
            f"e{i}", (Message("user", "?"), Message("assistant", "good")), "f", i, groups and f"g{groups[i]}"
        )
        for i in range(n)
    ]
    costs = {"prompt_tokens": 50, "answer_tokens": 2, "seconds": 0.1, "confidence": None}
    tables = {name: [{**costs, "score": float(x)} for x in marks] for name, marks in right.items()}
    scores = summarise(tables, test, GRADER, seed=0)
    write_json(folder / "scores.json", scores)
    write_json(folder / "audit.json", {"findings": [], "failed": []})
    recipe = {"model": "m", "data": "d", "probes": ["robustness"] if probe else []}
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    for name, rows in tables.items():
        write_jsonl(folder / f"predictions/{name}.jsonl", rows)
    if probe:
        write_json(folder / "probes/robustness.json", probe)
    found: str = decide(record, Gates())["decision"]
    return found


def allowed(runs: int, rate: float) -> int:
    """So many of `runs` that more of them would be no chance (1 in 1,000) at `rate`."""
    return int(binom.ppf(0.999, runs, rate))


@pytest.mark.parametrize("n", [12, 40, 150])
def test_candidates_that_are_equal_are_hardly_ever_shipped(tmp_path: Path, n: int) -> None:
    """One alternative, the hardest case: two-sided 5% is 2.5% on the side that ships."""
    dice = np.random.default_rng(n)
    runs = 120
    shipped = sum(
        decision(tmp_path, {"prompt": dice.random(n) < 0.6, "tuned": dice.random(n) < 0.6}) == "ship"
        for _ in range(runs)
    )
    assert shipped <= allowed(runs, 0.025)


def test_the_best_of_two_equal_alternatives_must_be_beaten_too(tmp_path: Path) -> None:
    dice = np.random.default_rng(5)
    decisions = [decision(tmp_path, {name: dice.random(60) < 0.5 for name in NAMES}) for _ in range(100)]
    assert decisions.count("ship") <= 2


@pytest.mark.parametrize("size", [3, 8])
def test_examples_of_a_source_that_stand_and_fall_together(tmp_path: Path, size: int) -> None:
    """Whole groups are right or wrong, each candidate by a coin of its own."""
    dice = np.random.default_rng(size)
    groups = [i // size for i in range(16 * size)]
    runs = 60

    def marks() -> Any:
        return (dice.random(16) < 0.5)[groups]

    shipped = sum(
        decision(tmp_path, {"prompt": marks(), "tuned": marks()}, groups) == "ship" for _ in range(runs)
    )
    assert shipped <= allowed(runs, 0.025)


def test_a_probe_that_loses_just_its_margin_is_hardly_ever_passed(tmp_path: Path) -> None:
    """Tuned gains for sure; the probe loses 5 points in truth, all that its margin allows."""
    dice = np.random.default_rng(1)
    gain = {"prompt": np.arange(60) < 20, "tuned": np.ones(60, bool)}

    def report(lost: float) -> dict[str, Any]:
        base = dice.random(200) < 0.8
        tuned = base & (dice.random(200) >= lost / 0.8)
        change = paired_change(base, tuned, seed=0)
        about = {"unit": "score", "worse": "lower", "examples": [], "caption": ""}
        return report_change("robustness", change, margin=0.05, **about)  # type: ignore[arg-type]

    runs = 120
    shipped = sum(decision(tmp_path, gain, probe=report(0.05)) == "ship" for _ in range(runs))
    assert shipped <= allowed(runs, 0.05)
    assert all(decision(tmp_path, gain, probe=report(0.0)) == "ship" for _ in range(10))


def test_a_gain_that_is_real_is_shipped_nearly_always(tmp_path: Path) -> None:
    """Else nothing above would mean anything."""
    dice = np.random.default_rng(2)
    found = [
        decision(tmp_path, {"prompt": dice.random(80) < 0.5, "tuned": dice.random(80) < 0.85})
        for _ in range(40)
    ]
    assert found.count("ship") >= 36


@pytest.mark.slow
def test_labels_shuffled_under_forty_seeds_on_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two candidates whose only difference is that tuned has learnt what a label looks like."""
    monkeypatch.setenv("LUTHIER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
    model = tiny_run.write_model(tmp_path / "model")
    decisions, tuned = [], []
    for seed in range(40):
        folder = tmp_path / f"{seed}"
        folder.mkdir()
        data = str(write_rows(folder / "data.jsonl", shuffled(remarks(60, seed=seed), seed)))
        dice = random.Random(seed)
        plan = {
            "candidates": ["prompt", "tuned"] if seed % 2 else ["prompt", "few_shot", "scratch", "tuned"],
            "probes": [],
            "adapter": {"kind": "full"},
            "train": {
                "epochs": dice.choice((3, 6)),
                "learning_rate": 0.003,
                "batch_tokens": 300,
                "replay": 0,
            },
            "split": {"validation": 0.1, "test": 0.4},
        }
        recipe = luthier.load_recipe(tiny_run.write_recipe(folder, model, data=data, seed=seed, **plan))
        decisions.append(Run(recipe, folder / "run").all()["decision"])
        scores = json.loads((folder / "run/scores.json").read_text())["candidates"]
        tuned.append(scores["tuned"]["score"] - scores["prompt"]["score"])
    assert decisions.count("ship") <= 2
    assert sum(gain > 0.3 for gain in tuned) >= 25  # against prompt alone they would have been shipped
