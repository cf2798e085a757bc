"""Sweeps over methods other than sft: trials are ordinary trainings, also when they were cut short."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import yaml
from test_pipeline_preferences import write_pairs
from typer.testing import CliRunner

import luthier
from luthier.cli.main import app
from luthier.errors import RecipeError
from luthier.pipeline import Run
from luthier.progress import Silent
from luthier.recipe import Recipe
from luthier.sweep.sweep import run_sweep

RATES = "train.learning_rate=1e-4..1e-2"
TRAIN = {"epochs": 1, "learning_rate": 0.003, "batch_tokens": 500, "replay": 0.0}
LETTERS = '''
def share(answer, reference, example):
    """The share of an answer's characters that are letters from a to m."""
    return sum("a" <= c <= "m" for c in answer) / max(1, len(answer))
'''
OWN = {"grader": "python:letters.py:share", "max_new_tokens": 4}
CASES: dict[str, dict[str, Any]] = {
    "dpo": {"data": "pairs.jsonl", "method": "dpo"},
    "kto": {"data": "judged.jsonl", "method": "kto"},
    "reward": {"data": "pairs.jsonl", "method": "reward", "grader": None},
    "classify": {"method": "classify"},
    "grpo": {**OWN, "method": {"kind": "grpo", "samples": 3}},
    "rloo": {**OWN, "method": {"kind": "rloo", "samples": 3}},
    "ppo": {**OWN, "method": {"kind": "ppo", "samples": 2, "epochs": 2}},
    "best_of": {**OWN, "method": {"kind": "best_of", "samples": 3}},
}
METRIC = {
    name: "validation_score" if "max_new_tokens" in case else "validation_loss"
    for name, case in CASES.items()
}


def each(*fast: str) -> list[Any]:
    """All methods, of which those that are not named are slow."""
    return [name if name in fast else pytest.param(name, marks=pytest.mark.slow) for name in CASES]


class Killed(BaseException):
    """Nothing in the way of it is a handler's business."""


class Dying(Silent):
    """Dies after so many steps, whichever trial they are of."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def task(self, what: str, total: int | None) -> Any:
        context, shown = super().task(what, total), self
        if not what.startswith("trial"):
            return context

        class Counting:
            def __enter__(self) -> Any:
                advance = context.__enter__()

                def count(done: int, *args: Any, **kwargs: Any) -> None:
                    advance(done, *args, **kwargs)
                    shown.left -= done
                    if shown.left <= 0:
                        raise Killed

                return count

            def __exit__(self, *error: Any) -> Any:
                return context.__exit__(*error)

        return Counting()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("sweeps")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        (folder / "letters.py").write_text(LETTERS, encoding="utf-8")
        pairs = [
            json.loads(line) for line in write_pairs(folder / "pairs.jsonl", 36).read_text().splitlines()
        ]
        dice = random.Random(1)
        rows = []
        for pair in pairs:
            good = dice.random() < 0.5
            said = pair["chosen" if good else "rejected"]
            rows.append({"prompt": pair["prompt"], "completion": said, "label": good})
        (folder / "judged.jsonl").write_text(
            "".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8"
        )
        tiny_run.write_examples(folder / "tickets.jsonl", 36)
        tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"), train=TRAIN)
        yield folder


def recipe_of(home: Path, name: str, **changes: Any) -> Recipe:
    return luthier.load_recipe(home / "recipe.yaml", CASES[name] | changes)


def by_command(home: Path, name: str) -> dict[str, Any]:
    """What `luthier sweep` finds, which is told no metric."""
    recipe = yaml.safe_load((home / "recipe.yaml").read_text(encoding="utf-8")) | CASES[name]
    (home / f"{name}.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")
    asked = [
        str(home / f"{name}.yaml"),
        "--over",
        RATES,
        "--trials",
        "3",
        "--out",
        str(home / f"sweep-{name}"),
    ]
    told = CliRunner().invoke(app, ["sweep", *asked])
    assert told.exit_code == 0, told.output
    result: dict[str, Any] = json.loads((home / f"sweep-{name}/sweep.json").read_text(encoding="utf-8"))
    return result


@pytest.fixture(scope="module")
def swept(home: Path) -> Any:
    """A finished sweep of a method; each is made once."""
    made: dict[str, dict[str, Any]] = {}

    def sweep(name: str) -> dict[str, Any]:
        if name not in made:
            made[name] = by_command(home, name)
        return made[name]

    return sweep


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [tiny_run.without_times(json.loads(line)) for line in lines]


@pytest.mark.parametrize("name", each("dpo", "ppo"))
def test_a_trial_is_bit_for_bit_an_ordinary_training(
    name: str, home: Path, swept: Any, tmp_path: Path
) -> None:
    """Paused where the others were compared, and gone on with after them, on the base that they had."""
    result = swept(name)
    assert result["metric"] == METRIC[name]
    rows = {row["number"]: row for row in result["trials"]}
    assert [row["changes"]["train.learning_rate"] for row in rows.values()] == [1e-4, 1e-3, 1e-2]
    states = sorted(row["state"] for row in rows.values())
    assert states == ["done", "done", "stopped"]
    assert all(row["value"] is not None for row in rows.values())
    second = rows[result["ranking"][1]]
    assert 0 < second["rungs"][0]["step"] < second["steps"] == second["planned_steps"]
    best = rows[result["best"]]["changes"]["train.learning_rate"]
    assert luthier.load_recipe(home / f"sweep-{name}/best.yaml").train.learning_rate == best
    recipe = recipe_of(home, name, train=TRAIN | {"learning_rate": second["changes"]["train.learning_rate"]})
    if METRIC[name] == "validation_score":
        assert recipe.selects_by_score
    summary = Run(recipe, tmp_path / "run").train()
    assert summary[f"best_{METRIC[name]}"] == second["value"]
    assert metrics(tmp_path / "run") == metrics(home / f"sweep-{name}/trials/{second['number']:02}")


@pytest.mark.parametrize("name", each("ppo"))
def test_a_sweep_that_died_in_a_trial_ends_like_one_that_did_not(
    name: str, home: Path, swept: Any, tmp_path: Path
) -> None:
    whole = swept(name)
    quarter, planned = whole["trials"][0]["rungs"][0]["step"], whole["trials"][0]["planned_steps"]
    folder = tmp_path / "sweep"
    steps = 3 * quarter + (planned - quarter) // 2  # in the second part of the first finalist
    with pytest.raises(Killed):
        run_sweep(recipe_of(home, name), folder, [RATES], trials=3, show=Dying(steps))
    again = run_sweep(recipe_of(home, name), folder, [RATES], trials=3)
    assert tiny_run.without_times(again) == tiny_run.without_times(whole)
    for number in (1, 2, 3):
        assert metrics(folder / f"trials/{number:02}") == metrics(home / f"sweep-{name}/trials/{number:02}")


@pytest.mark.parametrize(("name", "over"), [
    ("classify", "method.class_weights=equal,balanced"),
    pytest.param("reward", "method.center_coefficient=0.0,0.1", marks=pytest.mark.slow),
    pytest.param("dpo", "method.beta=0.05,0.5", marks=pytest.mark.slow),
])  # fmt: skip
def test_options_of_a_method_are_compared_by_the_answers(
    name: str, over: str, home: Path, tmp_path: Path
) -> None:
    asked: Any = {"trials": None, "metric": "validation_score"}
    recipe = recipe_of(home, name, train=TRAIN | {"learning_rate": 0.01})
    result = run_sweep(recipe, tmp_path / "sweep", [over], **asked)
    for row in result["trials"]:
        lines = metrics(tmp_path / f"sweep/trials/{row['number']:02}")
        scores = [line["validation_score"] for line in lines if "validation_score" in line]
        assert row["value"] == max(scores) and all(0 <= score <= 1 for score in scores)
    if name == "classify":
        losses = [metrics(tmp_path / f"sweep/trials/{n:02}")[0]["loss"] for n in (1, 2)]
        assert losses[0] != losses[1]
        run = Run(
            luthier.load_recipe(tmp_path / "sweep/best.yaml", {"candidates": ["tuned"]}), tmp_path / "run"
        )
        run.evaluate()  # where the saved adapter answers the same requests
        rows = run.record.read_jsonl("answers/tuned-validation.jsonl")
        assert sum(row["score"] for row in rows) / len(rows) == result["trials"][result["best"] - 1]["value"]


@pytest.mark.parametrize(
    ("name", "over", "metric", "said"),
    [
        ("ppo", RATES, "validation_loss", "method ppo has no validation loss: it learns from answers"),
        ("dpo", "method.beta=0.1,0.2", "validation_loss", "losses of trials that differ in method.beta"),
        ("reward", "method=reward,dpo", "validation_score", "what method reward makes does not write"),
    ],
)
def test_what_cannot_be_compared_is_refused_at_once(
    name: str, over: str, metric: Any, said: str, home: Path, tmp_path: Path
) -> None:
    with pytest.raises(RecipeError, match=said):
        run_sweep(recipe_of(home, name), tmp_path / "sweep", [over], metric=metric)
    assert not (tmp_path / "sweep").exists()


def test_texts_have_no_score_to_compare(home: Path, tmp_path: Path) -> None:
    shutil.copy(home / "recipe.yaml", tmp_path / "recipe.yaml")
    (tmp_path / "texts.txt").write_text("a text\n\nanother\n", encoding="utf-8")
    changes = {"data": "texts.txt", "method": "cpt", "system": None, "grader": None, "shots": 4}
    recipe = luthier.load_recipe(tmp_path / "recipe.yaml", changes)
    with pytest.raises(RecipeError, match="method cpt has no validation score"):
        run_sweep(recipe, tmp_path / "sweep", [RATES], metric="validation_score")
