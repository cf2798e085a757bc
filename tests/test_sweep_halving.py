"""Which trials of a sweep go on: eight of them, with trainings that say what the script tells them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import tiny_run

import luthier
from luthier.pipeline import training
from luthier.sweep.space import Metric
from luthier.sweep.sweep import run_sweep

RATES = "train.learning_rate=1e-4..3e-2"


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, examples and a recipe."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"), train={"replay": 0.0})
        yield folder


def sweep(home: Path, folder: Path, over: str = RATES, metric: Metric | None = None) -> dict[str, Any]:
    return run_sweep(luthier.load_recipe(home / "recipe.yaml"), folder, [over], trials=8, metric=metric)


Script = dict[int, list[tuple[float, float | None]]]
# by trial: the metric at each comparison and at the end, with the best end of an epoch so far
SCRIPT: Script = {
    1: [(0.80, None)],
    2: [(0.70, None)],
    3: [(0.60, None), (0.58, None)],
    4: [(0.50, None), (0.62, 0.45), (0.70, 0.42)],  # it rose again after a good epoch
    5: [(0.55, None), (0.54, None)],
    6: [(0.65, None), (0.40, None), (0.40, 0.44)],
    7: [(0.75, None)],
    8: [(2.00, None)],
}


def script(monkeypatch: pytest.MonkeyPatch, metric: str, told: Script) -> list[tuple[int, int | None]]:
    """Trainings say what is told instead of taking place; who trained until when comes back."""
    sign = 1.0 if metric == "validation_loss" else -1.0
    trained: list[tuple[int, int | None]] = []

    def train_on(record: Any, *_: Any, until: int | None, **__: Any) -> dict[str, Any]:
        number = int(record.path.name)
        now, best = told[number][{8: 0, 15: 1, None: 2}[until]]
        trained.append((number, until))
        return {
            "steps": until or 40,
            "planned_steps": 40,
            "seconds": 1.0,
            "stopped": "all epochs done" if until is None else None,
            metric: sign * now,
            f"best_{metric}": None if best is None else sign * best,
        }

    planned = SimpleNamespace(estimate=SimpleNamespace(steps=40, seconds=60.0))
    monkeypatch.setattr(training, "gather", lambda *_: None)
    monkeypatch.setattr(training, "attach", lambda *_: None)
    monkeypatch.setattr(training, "make_plan", lambda *_, **__: planned)
    monkeypatch.setattr(training, "train_on", train_on)
    return trained


@pytest.mark.parametrize("metric", ["validation_loss", "validation_score"])
def test_the_better_half_by_the_best_so_far_goes_on(
    metric: Metric, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight scripted trials: four go on after 8 of 40 steps, two after 15."""
    trained = script(monkeypatch, metric, SCRIPT)
    result = sweep(home, tmp_path / "sweep", metric=metric)
    assert trained == [
        *((number, 8) for number in range(1, 9)),
        *((number, 15) for number in (3, 4, 5, 6)),
        *((number, None) for number in (4, 6)),
    ]
    assert result["best"] == 4 and abs(result["trials"][3]["value"]) == 0.42
    assert result["ranking"] == [4, 6, 5, 3, 2, 7, 1, 8]  # those that were stopped later are ahead
    assert [row["reason"] for row in result["trials"] if row["number"] in (8, 5)] == [
        "2 of 4 were better after 38% of the steps",
        "7 of 8 were better after 19% of the steps",
    ]
    assert (result["steps"], result["planned_steps"]) == (4 * 8 + 2 * 15 + 2 * 40, 8 * 40)


def test_the_next_higher_rate_than_the_best_is_trained_to_the_end(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the demo's tickets: trial 6 wins although it was third where it could have been stopped."""
    told: Script = SCRIPT | {5: [(0.55, None), (0.30, None), (0.31, 0.30)]}
    told |= {6: [(0.65, None), (0.56, None), (0.20, 0.20)]}
    trained = script(monkeypatch, "validation_loss", told)
    result = sweep(home, tmp_path / "sweep")
    assert [number for number, until in trained if until is None] == [5, 6]
    assert result["best"] == 6
    (reason,) = (row["reason"] for row in result["trials"] if row["number"] == 4)
    assert reason == (
        "1 of 4 were better after 38% of the steps, and the next higher rate than the best went on"
    )
    over = "adapter.rank=" + ",".join(map(str, range(1, 9)))
    trained.clear()
    sweep(home, tmp_path / "ranks", over)
    assert [number for number, until in trained if until is None] == [4, 5], "ranks have no such rule"
