"""A killed run goes on where it stopped, bit for bit; a damaged or foreign checkpoint is not used."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from test_train import make_items, make_model, metrics, run, trainable

from luthier.recipe import Train
from luthier.train import Progress, loop
from luthier.train.checkpoint import Checkpoint, load_newest, save_checkpoint

SETTINGS = Train(epochs=4, learning_rate=3e-2, batch_tokens=40)


class Crash(Exception):  # noqa: N818
    """The power cord."""


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # nothing here pulls the real power cord


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, torch.Tensor], Any, list[Any]]:
    folder = tmp_path_factory.mktemp("uninterrupted")
    model, summary = run(folder, settings=SETTINGS, validation=make_items(6, seed=5))
    return trainable(model), summary, measured(folder)


def measured(folder: Path) -> list[Any]:
    """Metrics without clocks and memory."""
    return [{k: v for k, v in m.items() if k not in ("seconds", "memory_bytes")} for m in metrics(folder)]


def crash_at(step: int) -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        if progress.step == step:
            raise Crash

    return show


def crash(folder: Path, step: int, **options: Any) -> None:
    with pytest.raises(Crash):
        run(folder, settings=SETTINGS, validation=make_items(6, seed=5), show=crash_at(step), **options)


def resume(folder: Path, **options: Any) -> tuple[dict[str, torch.Tensor], Any, list[int]]:
    steps: list[int] = []
    model, summary = run(
        folder,
        settings=SETTINGS,
        validation=make_items(6, seed=5),
        show=lambda progress: steps.append(progress.step),
        **options,
    )
    return trainable(model), summary, steps


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


@pytest.mark.parametrize("step", [2, 8, 18])
def test_resumed_equals_uninterrupted(step: int, tmp_path: Path, uninterrupted: Any) -> None:
    weights, summary, lines = uninterrupted
    crash(tmp_path, step)
    got, resumed, steps = resume(tmp_path)
    assert steps[0] == step, "the step that crashed was shown before it was saved"
    assert equal(got, weights)
    assert measured(tmp_path) == lines
    same = ("steps", "tokens", "trained_tokens", "executed_tokens", "best_step", "best_validation_loss")
    assert [resumed[k] for k in same] == [summary[k] for k in same]
    assert summary["best_step"] not in (0, summary["steps"]), "the best epoch must be one worth restoring"


def test_killed_again_and_again(tmp_path: Path, uninterrupted: Any) -> None:
    for step in (2, 3, 4, 8, 17):
        crash(tmp_path, step)
    assert equal(resume(tmp_path)[0], uninterrupted[0])


def test_forgetting_a_moment_of_the_optimizer_would_show(tmp_path: Path, uninterrupted: Any) -> None:
    crash(tmp_path, 5)
    checkpoint = load_newest(tmp_path / "checkpoints", key="k")
    assert checkpoint is not None
    tensors = {
        name: torch.zeros_like(t) if name.startswith("exp_avg_sq/") else t
        for name, t in checkpoint.tensors.items()
    }
    save_checkpoint(tmp_path / "checkpoints", replace(checkpoint, tensors=tensors))
    assert not equal(resume(tmp_path)[0], uninterrupted[0])


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "manifest.json"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(
    name: str, tmp_path: Path, uninterrupted: Any
) -> None:
    crash(tmp_path, 6)
    newest = tmp_path / "checkpoints" / "step-000005"
    content = bytearray((newest / name).read_bytes())
    content[len(content) // 2] ^= 1
    (newest / name).write_bytes(content)
    weights, _, steps = resume(tmp_path)
    assert steps[0] == 5
    assert equal(weights, uninterrupted[0])


def test_a_half_written_checkpoint_is_not_seen(tmp_path: Path, uninterrupted: Any) -> None:
    crash(tmp_path, 6)
    folder = tmp_path / "checkpoints"
    shutil.copytree(folder / "step-000005", folder / ".step-000006.writing")
    (folder / "step-000005" / "manifest.json").unlink()
    weights, _, steps = resume(tmp_path)
    assert steps[0] == 5
    assert equal(weights, uninterrupted[0])


def test_another_key_starts_anew_and_clears_the_way(tmp_path: Path, uninterrupted: Any) -> None:
    crash(tmp_path, 9)
    crash(tmp_path, 4, key="other")
    kept = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert kept == ["step-000002", "step-000003"]
    weights, _, steps = resume(tmp_path, key="other")
    assert steps[0] == 4
    assert equal(weights, uninterrupted[0])


def test_checkpoints_are_safetensors_and_json(tmp_path: Path) -> None:
    crash(tmp_path, 4)
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} == {".safetensors", ".json", ".jsonl"}
    newest = load_newest(tmp_path / "checkpoints", key="k")
    assert newest is not None
    assert newest.step == 3
    assert len(newest.tensors) == 5 * len(trainable(make_model()))


def test_saving_keeps_two(tmp_path: Path) -> None:
    for step in range(1, 5):
        save_checkpoint(tmp_path, Checkpoint(step, {"w": torch.full((2,), float(step))}, {"key": "k"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-000003", "step-000004"]
    newest = load_newest(tmp_path, key="k")
    assert newest is not None
    assert newest.tensors["w"].tolist() == [4.0, 4.0]
    assert load_newest(tmp_path, key="another") is None
    assert load_newest(tmp_path / "nowhere", key="k") is None
