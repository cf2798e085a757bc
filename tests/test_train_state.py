"""Negative controls: every field of a checkpoint matters, and a checkpoint that lacks one is not used."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_training import Crash, crash_at, make_items, make_model, measured, metrics, outcome, run, settings

from luthier.errors import StoppedError
from luthier.record import sha256_of, write_json
from luthier.train import Progress, loop
from luthier.train.checkpoint import Checkpoint, Checkpoints
from luthier.train.state import Counters, Training

FIELDS = [field.name for field in dataclasses.fields(Counters)]
GROUPS = ("weight", "best", "optimizer.step", "optimizer.exp_avg", "optimizer.exp_avg_sq")
SCORES = (0.2, 0.3, 0.3, 0.25, 0.3, 0.2, 0.2, 0.2)  # by epoch; best is the third, its loss being lower
STEP = 13  # in the fifth epoch, after one that was no better
PENDING = ("loss", "validated_step")  # only matter while a validation is pending
NOT_EXACT = ("seconds", "peak_memory_bytes")


def save_often(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    patch.setattr("luthier.train.saving.COST_FACTOR", 0.0)
    patch.setattr(os, "fsync", lambda handle: None)


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    save_often(monkeypatch)


@dataclasses.dataclass
class Outcome:
    """What came out of a run, and what was shown of each step."""

    exact: Any
    shown: list[dict[str, Any]]
    summary: dict[str, Any]

    def agrees(self, whole: Outcome) -> bool:
        weights, lines, summary = self.exact
        expected, *plain = whole.exact
        same = weights.keys() == expected.keys() and all(
            torch.equal(weights[n], expected[n]) for n in weights
        )
        return same and [lines, summary] == plain and self.shown == whole.shown[-len(self.shown) :]


def go(folder: Path, stop: Callable[[Progress], None] = lambda progress: None, **changes: Any) -> Outcome:
    """A run of three steps an epoch that stops early."""
    shown: list[Progress] = []

    def show(progress: Progress) -> None:
        shown.append(progress)
        stop(progress)

    given: dict[str, Any] = {
        "settings": settings(epochs=8, patience=3),
        "validation": make_items(6, seed=9),
        "peak": 3e-2,
        "micro_tokens": 15,
        "score": lambda: SCORES[metrics(folder)[-1]["step"] // 3 - 1],
        "show": show,
    }
    trained = run(folder, model=make_model(num_hidden_layers=1), **(given | changes))
    rows = [dataclasses.asdict(dataclasses.replace(progress, note=None)) for progress in shown]
    return Outcome(outcome(folder, trained), measured(rows), trained[1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Outcome:
    found = go(tmp_path_factory.mktemp("whole"))
    assert found.summary["stopped"] == "no better validation for 3 epochs (patience 3)"
    assert (found.summary["best_step"], found.summary["steps"]) == (9, 18)
    return found


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[bool, Path]:
    """Two runs that were stopped: between two validations, and (True) with one pending."""
    between, pending = tmp_path_factory.mktemp("between"), tmp_path_factory.mktemp("pending")
    with pytest.MonkeyPatch.context() as patch:
        save_often(patch)
        with pytest.raises(Crash):
            go(between, crash_at(STEP + 1))

        def terminate() -> float:
            os.kill(os.getpid(), signal.SIGTERM)
            return 0.0

        with pytest.raises(StoppedError):
            go(pending, score=terminate)
    return {False: between, True: pending}


@pytest.fixture
def stopped(tmp_path: Path, originals: dict[bool, Path], request: pytest.FixtureRequest) -> Path:
    """A copy of one of the two, by its newest checkpoint."""
    pending = getattr(request, "param", None) in PENDING
    shutil.copytree(originals[pending], tmp_path, dirs_exist_ok=True)
    return tmp_path / "checkpoints" / ("step-000003" if pending else f"step-{STEP:06d}")


def rewrite(checkpoint: Path, change: Callable[[dict[str, Any], dict[str, torch.Tensor]], None]) -> None:
    """Change state or tensors of a checkpoint, and have the manifest vouch for it."""
    state = json.loads((checkpoint / "state.json").read_text())
    tensors = {name: value.clone() for name, value in load_file(checkpoint / "tensors.safetensors").items()}
    change(state, tensors)
    write_json(checkpoint / "state.json", state)
    save_file(tensors, checkpoint / "tensors.safetensors")
    manifest = json.loads((checkpoint / "manifest.json").read_text())
    manifest["sha256"] = {name: sha256_of(checkpoint / name) for name in manifest["sha256"]}
    write_json(checkpoint / "manifest.json", manifest)


@pytest.mark.parametrize("stopped", ["tokens", "loss"], indirect=True)
def test_rewriting_alone_changes_nothing(stopped: Path, whole: Outcome) -> None:
    rewrite(stopped, lambda state, tensors: None)
    assert go(stopped.parent.parent).agrees(whole)


@pytest.mark.parametrize(("stopped", "field"), [(name, name) for name in FIELDS], indirect=["stopped"])
def test_every_field_matters(field: str, stopped: Path, whole: Outcome) -> None:
    changes = {"micro_tokens": 15, "stale_epochs": -1, "step": 1, "best_step": -3}
    changes |= dict.fromkeys(("metrics_bytes", "losses_bytes"), -(10**9))
    change = changes.get(field, -0.01 if field in ("best_score", "highest_score") else 1000)

    def alter(state: dict[str, Any], tensors: Any) -> None:
        state[field] = max(0, state[field] + change)

    rewrite(stopped, alter)
    found = go(stopped.parent.parent)
    if field in NOT_EXACT:
        assert found.summary[field] >= 1000
        assert found.agrees(whole)
    else:
        assert not found.agrees(whole)


@pytest.mark.parametrize("group", GROUPS)
def test_every_tensor_matters(group: str, stopped: Path, whole: Outcome) -> None:
    def alter(state: Any, tensors: dict[str, torch.Tensor]) -> None:
        name = max(name for name in tensors if name.startswith(f"{group}/"))
        tensors[name].view(-1)[0] += 1

    rewrite(stopped, alter)
    assert not go(stopped.parent.parent).agrees(whole)


def without(checkpoint: Checkpoint, missing: str) -> Checkpoint:
    """A checkpoint that lacks a plain value, or the first tensor of a group."""
    state = {name: value for name, value in checkpoint.state.items() if name != missing}
    first = min((name for name in checkpoint.tensors if name.startswith(f"{missing}/")), default=None)
    tensors = {name: value for name, value in checkpoint.tensors.items() if name != first}
    return Checkpoint(checkpoint.step, checkpoint.validated, tensors, state)


def test_what_a_checkpoint_must_have(stopped: Path) -> None:
    parameters = {n: p for n, p in make_model(num_hidden_layers=1).named_parameters() if p.requires_grad}
    training = Training(parameters, torch.optim.AdamW(parameters.values()), Counters(1))
    checkpoint = Checkpoints(stopped.parent, "k").load()
    assert checkpoint is not None
    assert training.fits(checkpoint)
    for missing in [*checkpoint.state, *GROUPS]:
        assert not training.fits(without(checkpoint, missing)), missing
    name = min(parameters)
    value = checkpoint.tensors[f"weight/{name}"]
    for label, wrong in (("weight/" + name, value.T), ("best/" + name, value.half()), ("weight/x", value)):
        tensors = {**checkpoint.tensors, label: wrong}
        assert not training.fits(dataclasses.replace(checkpoint, tensors=tensors))
    for group in GROUPS[2:]:
        left = {name: v for name, v in checkpoint.tensors.items() if not name.startswith(f"{group}/")}
        assert not training.fits(dataclasses.replace(checkpoint, tensors=left)), group
    label = f"optimizer.exp_avg/{name}"
    for wrong in (checkpoint.tensors[label].T, checkpoint.tensors[label].half()):
        tensors = {**checkpoint.tensors, label: wrong}
        assert not training.fits(dataclasses.replace(checkpoint, tensors=tensors))
    before_any_step = dataclasses.replace(
        checkpoint,
        step=0,
        state=checkpoint.state | {"updates": 0},
        tensors={name: v for name, v in checkpoint.tensors.items() if name.startswith(("weight/", "best/"))},
    )
    assert training.fits(before_any_step)
    assert training.fits(dataclasses.replace(before_any_step, step=1))  # nothing was worth learning from
    updated = checkpoint.state | {"updates": 1}
    assert not training.fits(dataclasses.replace(before_any_step, step=1, state=updated))
    no_best = {name: value for name, value in checkpoint.tensors.items() if not name.startswith("best/")}
    assert not training.fits(dataclasses.replace(checkpoint, tensors=no_best))
    too_much = {**checkpoint.state, "another": 1}
    assert not training.fits(dataclasses.replace(checkpoint, state=too_much))


def test_a_checkpoint_that_lacks_something_is_not_used(stopped: Path, whole: Outcome) -> None:
    rewrite(stopped, lambda state, tensors: state.pop("tokens"))
    found = go(stopped.parent.parent)
    assert found.shown[0]["step"] == STEP, "it went on from the checkpoint before"
    assert found.agrees(whole)


def test_nothing_of_the_checkpoint_stays_in_use(stopped: Path) -> None:
    """Moments that are views of a mapped file would keep a removed checkpoint's space on the disk."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this system does not list a process's mapped files")
    seen = []
    go(stopped.parent.parent, lambda progress: seen.append(str(stopped.parent) in maps.read_text()))
    assert seen
    assert not any(seen)
