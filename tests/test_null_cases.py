"""Whole runs in which there is nothing to ship, on a tiny model: the verdict has to say so, and why."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier
import luthier.probes
from luthier.pipeline import Run

NAMES = (
    *("Ada", "Bodil", "Cem", "Dorota", "Emeka", "Farida", "Goran", "Hanne", "Imani", "Jorge", "Katrin"),
    *("Lars", "Mbali", "Nuno", "Oksana", "Pavel", "Quentin", "Rosa", "Sanjay", "Tuva", "Ursula", "Viktor"),
)
THINGS = (
    *("barometer", "umbrella", "wheelbarrow", "saxophone", "telescope", "cupboard", "sewing machine"),
    *("hammock", "doormat", "fishing rod", "typewriter", "chessboard", "lawnmower", "thermos", "bicycle"),
    *("bookshelf", "trumpet", "rucksack", "lampshade", "teapot", "armchair", "projector", "toboggan"),
)
PLACES = (
    *("Lisbon", "the flea market", "my uncle", "a catalogue", "Gdansk", "the school fair", "a neighbour"),
    *("the museum shop", "Nairobi", "an auction", "the harbour stall", "Oslo", "the attic", "a charity"),
)
MOODS = {"good": "lovely", "bad": "rotten"}

Rows = list[tuple[str, str]]
Judge = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A random model; the public suites and the cache are stand-ins."""
    folder = tmp_path_factory.mktemp("null")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        patch.setattr(luthier.probes, "choice_items", tiny_run.choice_items)
        yield tiny_run.write_model(folder / "model")


@pytest.fixture
def judge(model: Path, tmp_path: Path) -> Judge:
    """Run a recipe to its verdict, on rows of one file or of given sides; `run` is added to it."""
    number = count()

    def run_it(data: Rows | dict[str, Rows], **changes: Any) -> dict[str, Any]:
        folder = tmp_path / f"{next(number)}"
        sides = data if isinstance(data, dict) else {"train": data}
        folder.mkdir()
        files = {side: str(write_rows(folder / f"{side}.jsonl", rows)) for side, rows in sides.items()}
        plan = {"candidates": ["prompt", "tuned"], "probes": [], "data": files} | changes
        recipe = luthier.load_recipe(tiny_run.write_recipe(folder, plan.pop("model", model), **plan))
        run = Run(recipe, folder / "run")
        return {**run.all(), "run": run}

    return run_it


def remarks(n: int, seed: int = 0) -> Rows:
    """Remarks that are rarely alike, whose last word tells the label."""
    dice = random.Random(seed)
    rows = []
    for i in range(n):
        label = ("good", "bad")[i % 2]
        who, what, where = dice.choice(NAMES), dice.choice(THINGS), dice.choice(PLACES)
        rows.append((f"{who}'s {what} from {where}, {dice.randrange(10**6)}: {MOODS[label]}", label))
    return rows


def shuffled(rows: Rows, seed: int) -> Rows:
    """The same requests and the same answers, which have nothing to do with each other."""
    answers = [answer for _, answer in rows]
    random.Random(seed).shuffle(answers)
    return [(text, answer) for (text, _), answer in zip(rows, answers, strict=True)]


def write_rows(path: Path, rows: Sequence[tuple[str, str]]) -> Path:
    path.write_text("".join(json.dumps({"prompt": p, "completion": c}) + "\n" for p, c in rows))
    return path


def scores(verdict: dict[str, Any]) -> dict[str, float]:
    found = verdict["run"].record.read_json("scores.json")["candidates"]
    return {name: row["score"] for name, row in found.items()}


def gate(verdict: dict[str, Any], name: str) -> dict[str, Any]:
    (found,) = [gate for gate in verdict["gates"] if gate["name"] == name]
    return found


LEARNS = {
    "adapter": {"kind": "full"},
    "train": {"epochs": 6, "learning_rate": 0.003, "batch_tokens": 300, "replay": 0},
}


def test_a_task_that_tuning_learns_is_shipped(judge: Judge) -> None:
    """The control of all cases below: the same model, requests and recipe, and nothing is wrong."""
    verdict = judge({"train": remarks(80), "test": remarks(40, seed=9)}, **LEARNS)
    assert scores(verdict)["tuned"] > 0.8
    assert verdict["decision"] == "ship"


@pytest.mark.parametrize("candidates", [["prompt", "tuned"], ["prompt", "few_shot", "scratch", "tuned"]])
def test_shuffled_labels_are_not_shipped(judge: Judge, candidates: list[str]) -> None:
    """Tuned learns to answer with a label at all, which the base never does: far better than prompt."""
    verdict = judge(shuffled(remarks(100), seed=3), candidates=candidates)
    assert scores(verdict)["tuned"] > scores(verdict)["prompt"] + 0.3
    assert verdict["decision"] != "ship"
    assert gate(verdict, "gain")["passed"] is not True


def test_a_test_side_that_is_too_small_says_how_many_more_it_takes(judge: Judge) -> None:
    verdict = judge(
        {"train": remarks(80), "test": remarks(10, seed=9)}, candidates=["prompt", "scratch", "tuned"]
    )
    assert verdict["decision"] == "inconclusive"
    assert "more test examples would settle a gain of" in verdict["reasons"][-1]


def test_a_base_that_solves_the_task_is_kept(judge: Judge, tmp_path: Path) -> None:
    solved = judge({"train": remarks(80), "test": remarks(40, seed=9)}, **LEARNS)
    solved["run"].export(out=tmp_path / "solved")
    verdict = judge(
        {"train": remarks(60, seed=5), "test": remarks(40, seed=6)},
        model=tmp_path / "solved",
        candidates=["prompt", "few_shot", "tuned"],
        train={"epochs": 1, "replay": 0},
    )
    assert scores(verdict)["prompt"] > 0.95
    assert (verdict["decision"], verdict["recommended"]) == ("do_not_ship", "prompt")
    assert "no gain of 2.0% is possible" in verdict["reasons"][0]


def test_a_model_trained_to_overfit_is_named(judge: Judge) -> None:
    """Half of the labels are wrong, and each of 16 examples is seen 36 times at a high rate.

    As 12 copies, because of many epochs the one before overfitting is kept.
    """
    noisy = {"train": shuffled(remarks(16), seed=1) * 12, "test": shuffled(remarks(40, seed=9), seed=2)}
    heavy = {"epochs": 3, "learning_rate": 0.003, "batch_tokens": 300, "replay": 0}
    verdict = judge(noisy, adapter={"kind": "full"}, train=heavy, probes=["overfitting"])
    assert verdict["decision"] == "do_not_ship"
    assert gate(verdict, "overfitting")["passed"] is False
    assert "overfitting" in verdict["headline"]


def edited(text: str) -> str:
    """Other casing and punctuation, also inside."""
    return text.upper().replace(", ", " - ").replace(": ", " ... ") + "!!"


@pytest.mark.parametrize(
    ("edit", "decision"), [(str, "do_not_ship"), (str.title, "do_not_ship"), (edited, "inconclusive")]
)
def test_a_fifth_of_the_test_rows_in_training_is_not_shipped(
    judge: Judge, edit: Callable[[str], str], decision: str
) -> None:
    test = remarks(40, seed=9)
    leaked = [(edit(text), label) for text, label in test[::5]]
    verdict = judge({"train": [*remarks(80), *leaked], "test": test}, **LEARNS)
    assert verdict["decision"] == decision
    data = gate(verdict, "data")
    assert data["passed"] is (False if decision == "do_not_ship" else None)
    assert data["value"] == len(leaked)
    assert "data" in verdict["headline"]
    assert any("same" in reason for reason in verdict["reasons"])
    assert gate(verdict, "gain")["passed"] is True  # nothing else stands in the way
