"""Trackers: the port's promises with a fake, and every real tracker's own reader on what was written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import tiny_run

import luthier
from luthier.errors import RecipeError
from luthier.pipeline import Run
from luthier.trackers import Tracker, build_trackers, courier, require_trackers, tracker, tracking
from luthier.trackers.tracker import numbers_of

CONFIG = {"model": "tiny", "train.epochs": 2, "train.max_minutes": None}
LINES = [{"step": step, "loss": 1.0 / step, "tokens": 10 * step} for step in (1, 2, 3)]
HELD = {"step": 3, "validation_loss": 0.5, "validation_score": None}


class Fake:
    """Notes its calls and their threads; fails or waits where it is told to."""

    def __init__(self, fails: str = "", waits: str = "") -> None:
        self.fails, self.waits = fails, waits
        self.calls: list[tuple[Any, ...]] = []
        self.threads: set[int] = set()
        self.go_on = threading.Event()

    def start(self, run_name: str, config: Mapping[str, Any]) -> str:
        self._called("start", run_name, dict(config))
        return "look here"

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        self._called("log", step, dict(numbers))

    def finish(self, *, done: bool) -> None:
        self._called("finish", done)

    def _called(self, what: str, *given: Any) -> None:
        self.threads.add(threading.get_ident())
        if what == self.waits:
            self.go_on.wait(20)
        if what == self.fails:
            raise ConnectionError("no route\nto the host")
        self.calls.append((what, *given))


def track(trackers: Mapping[str, Tracker], lines: list[dict[str, Any]], name: str = "run") -> list[str]:
    """What was told while these lines were tracked."""
    told: list[str] = []
    with tracking(trackers, name, CONFIG, tell=told.append) as log:
        for line in lines:
            log(line)
    return told


# --- the port -------------------------------------------------------------------------------------


def test_lines_of_metrics_become_named_numbers() -> None:
    assert numbers_of(HELD) == {"validation/loss": 0.5}
    assert numbers_of({"step": 1, "loss": 2.0, "grad_norm": None, "learning_rate": 1e-3}) == {
        "train/loss": 2.0,
        "train/learning_rate": 1e-3,
    }


def test_a_tracker_gets_everything_in_order_on_a_thread_of_its_own() -> None:
    fake = Fake()
    told = track({"fake": fake}, [*LINES, HELD])
    assert fake.calls == [
        ("start", "run", CONFIG),
        *(("log", n, {"train/loss": 1.0 / n, "train/tokens": 10.0 * n}) for n in (1, 2, 3)),
        ("log", 3, {"validation/loss": 0.5}),
        ("finish", True),
    ]
    assert len(fake.threads) == 1
    assert threading.get_ident() not in fake.threads
    assert told == ["fake: look here"]


@pytest.mark.parametrize("where", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_told_once_and_stops_nothing(where: str) -> None:
    fails, works = Fake(fails=where), Fake()
    told = track({"one": fails, "two": works}, LINES)
    assert [line for line in told if "failed" in line] == [
        "one failed, training goes on without it: ConnectionError: no route"
    ]
    assert [call[0] for call in works.calls] == ["start", "log", "log", "log", "finish"]


def test_a_failure_is_told_while_training_goes_on() -> None:
    told: list[str] = []
    fake = Fake(fails="log")
    with tracking({"fake": fake}, "run", CONFIG, tell=told.append) as log:
        log(LINES[0])
        deadline = time.monotonic() + 10
        while len(told) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
            log(LINES[1])
        assert "failed" in told[1]


def test_a_slow_tracker_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courier, "START_SECONDS", 0.1)
    monkeypatch.setattr(tracker, "FINISH_SECONDS", 0.1)
    for where in ("start", "log", "finish"):
        fake = Fake(waits=where)
        began = time.monotonic()
        told = track({"fake": fake}, LINES)
        assert time.monotonic() - began < 5
        assert told[-1] == "fake did not take all numbers in time; the rest is dropped"
        fake.go_on.set()


def test_a_run_that_is_stopped_waits_for_no_tracker(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has to end in seconds, and they share them."""
    monkeypatch.setattr(tracker, "STOP_SECONDS", 0.2)
    fakes = {str(number): Fake(waits="log") for number in range(8)}
    told: list[str] = []
    began = time.monotonic()
    with pytest.raises(ZeroDivisionError), tracking(fakes, "run", CONFIG, tell=told.append) as log:
        log(LINES[0])
        raise ZeroDivisionError
    assert time.monotonic() - began < 8 * 0.2 + 3
    assert sum("did not take all numbers in time" in line for line in told) == 8
    for fake in fakes.values():
        fake.go_on.set()


def test_trackers_that_started_are_ended_where_another_is_interrupted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fakes = [Fake(), Fake()]
    start = courier.Courier.start

    def interrupted(self: courier.Courier, *given: Any) -> None:
        if self.name == "1":
            raise KeyboardInterrupt
        start(self, *given)

    monkeypatch.setattr(courier.Courier, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        track({str(number): fake for number, fake in enumerate(fakes)}, LINES)
    assert [call[0] for call in fakes[0].calls] == ["start", "finish"]


def test_a_run_that_dies_finishes_its_trackers() -> None:
    fake = Fake()
    with (
        pytest.raises(ZeroDivisionError),
        tracking({"f": fake}, "run", CONFIG, tell=lambda text: None) as log,
    ):
        log(LINES[0])
        raise ZeroDivisionError
    assert fake.calls[-1] == ("finish", False)


def test_a_missing_package_is_refused_with_the_command_that_brings_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "nosuchtracker").mkdir()  # as wandb leaves one in the folder where it ran
    with pytest.raises(RecipeError, match=r"nosuchtracker is not installed\n.*luthier\[nosuchtracker\]"):
        require_trackers(["nosuchtracker"])
    (tmp_path / "nosuchtracker/__init__.py").touch()
    sys.path_importer_cache.clear()
    require_trackers(["nosuchtracker"])


# --- the trackers ---------------------------------------------------------------------------------


def events(folder: Path) -> dict[str, list[tuple[int, float]]]:
    """What TensorBoard itself reads: scalars by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    reader.Reload()
    return {name: [(e.step, e.value) for e in reader.Scalars(name)] for name in reader.Tags()["scalars"]}


def test_tensorboard(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs luthier[tensorboard]")
    told = track(build_trackers(["tensorboard"], tmp_path, "1f"), [*LINES, HELD])
    assert told == [f"tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"]
    read = events(tmp_path / "tensorboard")
    assert read["train/loss"] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3))]
    assert read["validation/loss"] == [(3, 0.5)]


def test_tensorboard_forgets_the_steps_that_a_resumed_run_makes_again(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs luthier[tensorboard]")
    track(build_trackers(["tensorboard"], tmp_path, "1f"), LINES)
    again = [{"step": step, "loss": 9.0} for step in (2, 3, 4)]
    track(build_trackers(["tensorboard"], tmp_path, "1f"), again)
    assert events(tmp_path / "tensorboard")["train/loss"] == [(1, 1.0), (2, 9.0), (3, 9.0), (4, 9.0)]


@pytest.mark.filterwarnings("ignore")  # mlflow's own, of SQLAlchemy
def test_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs luthier[mlflow]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    track(build_trackers(["mlflow"], tmp_path, "1f"), LINES[:2], name="tickets")
    told = track(build_trackers(["mlflow"], tmp_path, "1f"), [*LINES[1:], HELD], name="tickets")
    address = f"sqlite:///{tmp_path / 'mlflow/mlflow.db'}"
    assert told == [f"mlflow: mlflow ui --backend-store-uri {address}"]
    client = mlflow.MlflowClient(tracking_uri=address)
    (stopped,) = client.search_runs([client.get_experiment_by_name("luthier").experiment_id])
    again = build_trackers(["mlflow"], tmp_path, "1f")
    with pytest.raises(ZeroDivisionError), tracking(again, "tickets", CONFIG, tell=lambda text: None):
        raise ZeroDivisionError
    assert client.get_run(stopped.info.run_id).info.status == "KILLED"
    track(build_trackers(["mlflow"], tmp_path, "1f"), [], name="tickets")
    (run,) = client.search_runs([client.get_experiment_by_name("luthier").experiment_id])  # one, resumed
    assert (run.info.run_name, run.info.status) == ("tickets", "FINISHED")
    assert run.data.params == {key: str(value) for key, value in CONFIG.items()}
    history = client.get_metric_history(run.info.run_id, "train/loss")
    assert {(metric.step, metric.value) for metric in history} == {(n, 1.0 / n) for n in (1, 2, 3)}
    assert run.data.metrics["validation/loss"] == 0.5


@pytest.mark.filterwarnings("ignore")
def test_mlflow_uses_the_users_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="needs luthier[mlflow]")
    own = f"sqlite:///{tmp_path / 'own.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", own)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "mail")
    track(build_trackers(["mlflow"], tmp_path / "run", "1f"), LINES)
    client = mlflow.MlflowClient(tracking_uri=own)
    assert len(client.search_runs([client.get_experiment_by_name("mail").experiment_id])) == 1
    assert not (tmp_path / "run").exists()


def written_by_wandb(folder: Path) -> list[Any]:
    """The records of an offline run: a file in LevelDB's log format behind a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    data, place, records, whole = file.read_bytes(), 7, [], b""
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # the end of a block is too short for a header
            place += 32768 - place % 32768
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # full, or last
            records.append(Record.FromString(whole))
            whole = b""
    return records


@pytest.mark.filterwarnings("ignore")
def test_wandb_without_a_key_is_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs luthier[wandb]")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    told = track(build_trackers(["wandb"], tmp_path, "1f2e"), [*LINES, HELD], name="tickets")
    (folder,) = (tmp_path / "wandb/wandb").glob("offline-run-*-1f2e")
    assert told == [f"wandb: offline; to send it: wandb sync {folder}"]
    records = written_by_wandb(folder)
    (run,) = [record.run for record in records if record.WhichOneof("record_type") == "run"]
    assert (run.project, run.display_name, run.run_id) == ("luthier", "tickets", "1f2e")
    rows = [
        {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    assert [(row["_step"], row["train/loss"]) for row in rows] == [(n, 1.0 / n) for n in (1, 2, 3)]
    assert rows[-1]["validation/loss"] == 0.5


@pytest.mark.filterwarnings("ignore")
def test_wandb_respects_its_mode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="needs luthier[wandb]")
    monkeypatch.setenv("WANDB_MODE", "disabled")
    told = track(build_trackers(["wandb"], tmp_path, "1f"), LINES)
    assert "failed" not in "".join(told)
    assert not list((tmp_path / "wandb").rglob("*.wandb"))


def test_a_key_of_wandb_is_found_where_its_login_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from luthier.trackers.wandb import _has_key

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert not _has_key()
    (tmp_path / "netrc").write_text("machine api.wandb.ai\n  login user\n  password 0123\n")
    assert _has_key()
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert not _has_key()
    monkeypatch.setenv("WANDB_API_KEY", "0123")
    assert _has_key()


def test_trackio(tmp_path: Path) -> None:
    """In a process of its own: trackio reads TRACKIO_DIR once, when it is imported."""
    pytest.importorskip("trackio", reason="needs luthier[trackio]")
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from luthier.trackers import build_trackers, tracking\n"
        "lines, config = json.loads(sys.argv[1])\n"
        "for part in (lines[:2], lines[2:]):\n"
        "    trackers = build_trackers(['trackio'], Path(), '1f')\n"
        "    with tracking(trackers, 'tickets', config, tell=lambda text: print('TOLD', text)) as log:\n"
        "        [log(line) for line in part]\n"
        "import trackio\n"
        "runs = list(trackio.Api().runs('luthier'))\n"
        "print('NAMES', json.dumps([run.name for run in runs]))\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "print('LOGS', json.dumps(SQLiteStorage.get_logs('luthier', runs[0].name)))\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, json.dumps([[*LINES, HELD], CONFIG])],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    said = [line.split(" ", 1) for line in result.stdout.splitlines()]
    assert [rest for word, rest in said if word == "TOLD"] == 2 * ["trackio: trackio show --project luthier"]
    found = {word: json.loads(rest) for word, rest in said if word in ("NAMES", "LOGS")}
    assert len(said) == 4, "trackio itself says nothing on the screen"
    assert found["NAMES"] == ["tickets-1f"]
    rows = [(row["step"], row["train/loss"]) for row in found["LOGS"] if "train/loss" in row]
    assert rows == [(n, 1.0 / n) for n in (1, 2, 3)]


# --- in a run -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tracked")
    tiny_run.write_model(folder / "model")
    return folder


def recipe_with(home: Path, folder: Path, *trackers: str) -> luthier.Recipe:
    path = tiny_run.write_recipe(
        folder, home / "model", trackers=list(trackers), candidates=["tuned"], probes=[]
    )
    return luthier.load_recipe(path)


def test_a_run_is_tracked_line_by_line(home: Path, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard", reason="needs luthier[tensorboard]")
    run = Run(recipe_with(home, tmp_path, "tensorboard"), tmp_path / "run")
    run.train()
    read = events(tmp_path / "run/train/tensorboard")
    lines = run.record.read_jsonl("train/metrics.jsonl")
    losses = [(line["step"], pytest.approx(line["loss"])) for line in lines if "loss" in line]
    held = [(line["step"], pytest.approx(line["validation_loss"])) for line in lines if "loss" not in line]
    assert (read["train/loss"], read["validation/loss"]) == (losses, held)
    assert len(losses) > 5
    assert held


def test_another_tracker_is_no_reason_to_train_again(home: Path, tmp_path: Path) -> None:
    Run(recipe_with(home, tmp_path), tmp_path / "run").train()
    before = (tmp_path / "run/train/summary.json").stat().st_mtime_ns
    Run(recipe_with(home, tmp_path, "tensorboard"), tmp_path / "run").train()
    assert (tmp_path / "run/train/summary.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("step", ["all", "evaluate", "train"])
def test_a_missing_tracker_is_found_before_any_work(
    step: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("luthier.trackers.tracker.find_spec", lambda name: None)
    run = Run(recipe_with(home, tmp_path, "wandb"), tmp_path / "run")
    with pytest.raises(RecipeError, match=r"pip install 'luthier\[wandb\]'"):
        getattr(run, step)()
    assert not (tmp_path / "run").exists()
