"""Whole sweeps on a tiny random model: what they find, what they share, what a kill costs."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny_run
import torch
import yaml
from typer.testing import CliRunner

import luthier
import luthier.models
import luthier.train.estimate
from luthier.cli.main import app
from luthier.cli.screen import console
from luthier.errors import DataError, RecordError, StoppedError, TrainingError
from luthier.pipeline import Run, training
from luthier.progress import Silent
from luthier.record import sha256_of
from luthier.sweep.sweep import run_sweep

RATES = "train.learning_rate=1e-4..3e-2"
TRAIN = {"epochs": 2, "batch_tokens": 400, "learning_rate": 0.01, "replay": 0.0}
TRIALS = 4  # one comparison, after a quarter of the steps: two go on
KILLS = (("trial.json", 2), ("trial.json", 4), ("trial.json", 5), ("trial.json", 7), ("best.yaml", 1))


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A model, examples and a recipe."""
    folder = tmp_path_factory.mktemp("sweep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUTHIER_CACHE", str(folder / "cache"))
        tiny_run.write_recipe(folder, tiny_run.write_model(folder / "model"), train=TRAIN)
        yield folder


@pytest.fixture(scope="module")
def swept(home: Path) -> Path:
    """A finished sweep; tests copy it before they change it."""
    sweep(home, home / "sweep")
    return home / "sweep"


def sweep(home: Path, folder: Path, over: str = RATES, **options: Any) -> dict[str, Any]:
    changes = options.pop("changes", {})
    recipe = luthier.load_recipe(home / "recipe.yaml", changes)
    return run_sweep(recipe, folder, [over], **{"trials": TRIALS, **options})


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = json.loads((folder / "sweep.json").read_text())
    return result


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "train/metrics.jsonl").read_text().splitlines()
    return [tiny_run.without_times(json.loads(line)) for line in lines]


def test_a_sweep_ends_with_the_best_of_what_was_trained_to_the_end(swept: Path) -> None:
    result = result_of(swept)
    rows = {row["number"]: row for row in result["trials"]}
    assert [rows[n]["changes"] for n in sorted(rows)] == [
        {"train.learning_rate": rate} for rate in (1e-4, 6.69e-4, 4.48e-3, 3e-2)
    ]
    done = [row for row in rows.values() if row["state"] == "done"]
    stopped = [row for row in rows.values() if row["state"] == "stopped"]
    assert len(done) == len(stopped) == 2
    assert rows[result["best"]]["value"] == min(row["value"] for row in done)
    assert result["ranking"][0] == result["best"]
    assert set(result["ranking"][2:]) == {row["number"] for row in stopped}
    planned = done[0]["planned_steps"]
    quarter = -(-planned // 4)
    assert all(row["steps"] == planned for row in done) and all(row["steps"] == quarter for row in stopped)
    assert (result["steps"], result["planned_steps"]) == (2 * planned + 2 * quarter, 4 * planned)


def test_who_was_stopped_was_worse_where_all_were_compared(swept: Path) -> None:
    rows = result_of(swept)["trials"]
    assert {row["rungs"][0]["step"] for row in rows} == {-(-rows[0]["planned_steps"] // 4)}
    at_rung = {row["number"]: row["rungs"][0]["best"] for row in rows}
    done = {row["number"] for row in rows if row["state"] == "done"}
    assert max(at_rung[n] for n in done) <= min(at_rung[n] for n in at_rung.keys() - done)
    assert {row["reason"] for row in rows if row["number"] not in done} == {
        f"{place} of 4 were better after 25% of the steps" for place in (2, 3)
    }


def test_numbers_are_those_of_the_metrics(swept: Path) -> None:
    for row in result_of(swept)["trials"]:
        lines = metrics(swept / f"trials/{row['number']:02}")
        epochs = [(line["step"], line["validation_loss"]) for line in lines if "validation_loss" in line]
        rungs = [(rung["step"], rung["now"]) for rung in row["rungs"]]
        assert [tuple(point) for point in row["course"]] == sorted({*epochs, *rungs})
        if row["state"] == "done":
            assert row["value"] == min(loss for _, loss in epochs)
        else:
            assert row["value"] == rungs[-1][1]


@pytest.mark.parametrize("place", [0, 1])
def test_a_trial_is_bit_for_bit_an_ordinary_training(place: int, swept: Path, tmp_path: Path) -> None:
    """Though it was stopped at a rung, its base was lent to others, and it went on later."""
    result = result_of(swept)
    number = result["ranking"][place]
    row = result["trials"][number - 1]
    recipe = luthier.load_recipe(swept / "best.yaml")
    assert (
        recipe.train.learning_rate == result["trials"][result["best"] - 1]["changes"]["train.learning_rate"]
    )
    own = recipe.train.model_copy(update={"learning_rate": row["changes"]["train.learning_rate"]})
    alone = Run(recipe.model_copy(update={"train": own}), tmp_path / "run")
    summary = alone.train()
    assert summary["best_validation_loss"] == row["value"]
    assert metrics(tmp_path / "run") == metrics(swept / f"trials/{number:02}")


@pytest.mark.slow
def test_other_adapters_leave_no_trace_in_the_base(home: Path, tmp_path: Path) -> None:
    kinds = ("prefix", "dora", "lora")
    changes = {"train": TRAIN | {"epochs": 1}}
    sweep(home, tmp_path / "sweep", f"adapter.kind={','.join(kinds)}", trials=None, changes=changes)
    done = [row for row in result_of(tmp_path / "sweep")["trials"] if row["state"] == "done"]
    assert len(done) == 2
    for row in done:
        kind = row["changes"]["adapter.kind"]
        recipe = luthier.load_recipe(home / "recipe.yaml", changes | {"adapter": {"kind": kind, "rank": 4}})
        assert Run(recipe, tmp_path / kind).train()["best_validation_loss"] == row["value"]


def test_what_is_shared_is_done_once(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counted(module: Any, name: str) -> None:
        original = getattr(module, name)

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            calls.append(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, wrapper)

    counted(luthier.models, "load_model")
    counted(training, "gather")
    counted(training, "with_reference")
    counted(luthier.train.estimate, "estimate_training")
    counted(training, "attach")
    sweep(home, tmp_path / "sweep", trials=3, changes={"train": TRAIN | {"epochs": 1}})
    once = {name: calls.count(name) for name in ("load_model", "gather", "estimate_training")}
    assert once == {"load_model": 1, "gather": 1, "estimate_training": 1}
    assert calls.count("with_reference") == 2  # of the two sides
    assert calls.count("attach") == 3 + 2


def test_replay_is_shared_unless_it_is_what_differs(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shares: list[float] = []
    original = training.gather

    def gather(record: Any, recipe: Any, *rest: Any) -> Any:
        shares.append(recipe.train.replay)
        return original(record, recipe, *rest)

    monkeypatch.setattr(training, "gather", gather)
    replayed = str(tiny_run.write_examples(tmp_path / "general.jsonl", 20, seed=3))
    changes = {"train": TRAIN | {"epochs": 1, "replay_data": replayed}}
    sweep(home, tmp_path / "sweep", "train.replay=0.0,0.2", trials=None, changes=changes)
    assert shares == [0.0, 0.2]
    steps = [row["planned_steps"] for row in result_of(tmp_path / "sweep")["trials"]]
    assert steps[1] > steps[0]


def test_the_test_side_is_not_looked_at(
    home: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = training.read_split
    monkeypatch.setattr(training, "read_split", lambda record: replace(original(record), test=()))
    assert without_seconds(sweep(home, tmp_path / "sweep")) == without_seconds(result_of(swept))


def without_seconds(result: dict[str, Any]) -> Any:
    return tiny_run.without_times(result)


# --- gone on with -------------------------------------------------------------------------------------


def test_a_finished_sweep_trains_nothing_again(
    home: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    (tmp_path / "sweep/sweep.html").unlink()

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("paid twice")

    for name in ("gather", "attach", "train_on"):
        monkeypatch.setattr(training, name, forbidden)
    assert sweep(home, tmp_path / "sweep") == result_of(swept)
    assert (tmp_path / "sweep/sweep.html").read_text() == (swept / "sweep.html").read_text()
    assert not list(swept.glob("trials/*/train/checkpoints"))  # nothing will go on from them


def sweep_until(home: str, folder: str, file: str, count: int) -> None:
    """In a process of its own: it dies when it has written `file` so many times."""
    torch.set_num_threads(1)
    original, seen = Path.replace, 0

    def fatal(self: Path, target: Path) -> Path:
        nonlocal seen
        done = original(self, target)
        seen += target.name == file
        if seen == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return done

    Path.replace = fatal  # type: ignore[method-assign, assignment]
    sweep(Path(home), Path(folder))


@pytest.mark.slow
def test_a_sweep_killed_again_and_again_ends_like_one_that_was_not(
    home: Path, swept: Path, tmp_path: Path
) -> None:
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(
        ["pytest", "tiny_run", "luthier.sweep.sweep", "luthier.train", "luthier.models"]
    )
    folder = tmp_path / "sweep"
    written = 0
    for file, count in KILLS:
        already = len(list(folder.glob("trials/*/trial.json")))
        process = processes.Process(
            target=sweep_until, args=(str(home), str(folder), file, max(1, count - written))
        )
        process.start()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, f"outlived {file} {count}"
        assert len(list(folder.glob("trials/*/trial.json"))) >= already
        written = count if file == "trial.json" else written
    assert not (folder / "sweep.html").exists() or (folder / "best.yaml").exists()
    sweep(home, folder)
    assert without_seconds(result_of(folder)) == without_seconds(result_of(swept))
    for number in range(1, TRIALS + 1):
        assert metrics(folder / f"trials/{number:02}") == metrics(swept / f"trials/{number:02}")
    assert sha256_of(folder / "best.yaml") == sha256_of(swept / "best.yaml")


def test_a_sweep_stopped_within_a_trial_goes_on_from_its_step(
    home: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM in the second half of a finalist: what was trained is not trained again."""
    planned = result_of(swept)["trials"][0]["planned_steps"]
    steps: list[int] = []

    class Watching(Silent):
        def __init__(self, stop_at: int | None) -> None:
            self.stop_at = stop_at

        def task(self, what: str, total: int | None) -> Any:
            context = super().task(what, total)
            if not what.startswith("trial"):
                return context
            shown = self

            class Counting:
                def __enter__(self) -> Any:
                    advance = context.__enter__()

                    def count(done: int, *args: Any, **kwargs: Any) -> None:
                        steps.append(done)
                        if total == planned and shown.stop_at == len(steps):
                            os.kill(os.getpid(), signal.SIGTERM)
                        advance(done, *args, **kwargs)

                    return count

                def __exit__(self, *error: Any) -> Any:
                    return context.__exit__(*error)

            return Counting()

    quarter = -(-planned // 4)
    stop_at = 4 * quarter + 3  # three steps into the first finalist's second part
    with pytest.raises(StoppedError, match="is saved"):
        sweep(home, tmp_path / "sweep", show=Watching(stop_at))
    assert len(steps) == stop_at
    sweep(home, tmp_path / "sweep", show=Watching(None))
    assert len(steps) <= 4 * quarter + 2 * (planned - quarter) + 1
    assert without_seconds(result_of(tmp_path / "sweep")) == without_seconds(result_of(swept))


# --- what goes wrong ----------------------------------------------------------------------------------


def test_a_trial_that_fails_ends_alone(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    original = training.train_on

    def train_on(record: Any, recipe: Any, *rest: Any, **options: Any) -> Any:
        if recipe.train.learning_rate == 3e-2:
            raise TrainingError("the loss of step 2 is not finite")
        return original(record, recipe, *rest, **options)

    monkeypatch.setattr(training, "train_on", train_on)
    result = sweep(home, tmp_path / "sweep", trials=3, changes={"train": TRAIN | {"epochs": 1}})
    states = [row["state"] for row in result["trials"]]
    assert states == ["done", "done", "failed"]
    assert result["trials"][2]["reason"] == "the loss of step 2 is not finite"
    assert result["trials"][2]["value"] is None and result["ranking"][-1] == 3
    assert "failed" in (tmp_path / "sweep/sweep.html").read_text()


def test_when_all_fail_the_first_reason_is_told(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def train_on(*_: Any, **__: Any) -> Any:
        raise TrainingError("no trainable parameter takes part in the loss")

    monkeypatch.setattr(training, "train_on", train_on)
    with pytest.raises(TrainingError, match=r"no trial could be trained; .* no trainable parameter"):
        sweep(home, tmp_path / "sweep")


def test_another_sweep_in_the_folder_is_refused_and_left_alone(
    home: Path, swept: Path, tmp_path: Path
) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    before = sha256_of(tmp_path / "sweep")
    others = (
        {"over": "adapter.rank=2,4"},
        {"trials": 3},
        {"metric": "validation_score"},
        {"changes": {"seed": 5}},
    )
    for other in others:
        with pytest.raises(
            RecordError, match=r"another sweep: 4 trials over train\.learning_rate=1e-4\.\.3e-2"
        ):
            sweep(home, tmp_path / "sweep", **other)
        assert sha256_of(tmp_path / "sweep") == before
    sweep(home, tmp_path / "sweep", changes={"probes": []})  # nothing that a trial depends on


def test_changed_examples_are_another_sweep(home: Path, swept: Path, tmp_path: Path) -> None:
    shutil.copytree(swept, tmp_path / "sweep")
    shutil.copy(home / "recipe.yaml", tmp_path / "recipe.yaml")
    data = home / "tickets.jsonl"
    text = data.read_text()
    try:
        data.write_text(text + text.splitlines()[0].replace("No. 0", "No. 9999") + "\n")
        with pytest.raises(RecordError, match="another sweep"):
            sweep(home, tmp_path / "sweep")
    finally:
        data.write_text(text)


def test_without_validation_examples_there_is_nothing_to_compare_on(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Run.split
    monkeypatch.setattr(Run, "split", lambda self: replace(original(self), validation=()))
    with pytest.raises(DataError, match="no validation examples"):
        sweep(home, tmp_path / "sweep")


# --- by score, and the command ------------------------------------------------------------------------


def test_trials_can_be_compared_by_their_answers(home: Path, tmp_path: Path) -> None:
    changes = {"train": TRAIN | {"epochs": 1}, "max_new_tokens": 3}
    result = sweep(home, tmp_path / "sweep", trials=3, metric="validation_score", changes=changes)
    rows = {row["number"]: row for row in result["trials"]}
    done = [row["value"] for row in rows.values() if row["state"] == "done"]
    assert rows[result["best"]]["value"] == max(done) and all(0 <= value <= 1 for value in done)
    assert luthier.load_recipe(tmp_path / "sweep/best.yaml").train.select == "score"


def test_the_command(home: Path, swept: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "_width", 140)
    command = ["sweep", str(home / "recipe.yaml"), "--over", RATES, "--trials", str(TRIALS)]
    said = CliRunner().invoke(app, command, catch_exceptions=False)
    assert said.exit_code == 0
    expected = result_of(swept)
    best = expected["trials"][expected["best"] - 1]
    lines = said.output.splitlines()
    (row,) = (cells for line in lines if (cells := line.split())[:1] == [str(best["number"])])
    assert row[1:3] == [f"{best['changes']['train.learning_rate']:.3g}", f"{best['value']:.4f}"]
    assert f"{expected['steps']} of {expected['planned_steps']} planned steps were trained" in said.output
    assert "were better after 25% of the steps" in said.output
    assert "one training: " in said.output and "comes to 2.5 of them" in said.output
    folder = tmp_path / "sweeps/tickets"
    assert without_seconds(result_of(folder)) == without_seconds(expected)
    assert (folder / "sweep.html").is_file()
    head = (folder / "best.yaml").read_text().splitlines()[0]
    assert head == f"# Trial {best['number']} of 4 over {RATES}"
    recipe = yaml.safe_load((folder / "best.yaml").read_text())
    assert (recipe["name"], recipe["train"]["learning_rate"]) == (
        "tickets",
        best["changes"]["train.learning_rate"],
    )
    trained = CliRunner().invoke(
        app, ["train", str(folder / "best.yaml"), "--out", "run"], catch_exceptions=False
    )
    assert trained.exit_code == 0 and "Adapter: run/adapter" in trained.output


def test_mistakes_of_the_command_are_wrong_usage(home: Path, tmp_path: Path) -> None:
    def said(*arguments: str) -> Any:
        return CliRunner().invoke(
            app, ["sweep", str(home / "recipe.yaml"), "--out", str(tmp_path / "s"), *arguments]
        )

    wrong = said("--over", "train.lerning_rate=1e-5..1e-3")
    assert wrong.exit_code == 2
    assert wrong.output.splitlines() == [
        "luthier: --over train.lerning_rate=1e-5..1e-3: unknown key 'train.lerning_rate'",
        "Fix: did you mean 'train.learning_rate'?",
    ]
    assert said("--over", RATES, "--trials", "1").exit_code == 2
    assert said("--over", RATES, "--metric", "loss").exit_code == 2
    assert said().exit_code == 2
    assert not (tmp_path / "s").exists()
