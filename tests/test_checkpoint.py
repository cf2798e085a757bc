"""Checkpoints on disk: written so that a power cut leaves them whole or absent, verified when read."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from luthier.errors import TrainingError
from luthier.record import sha256_of
from luthier.train import checkpoint as module
from luthier.train.checkpoint import Checkpoint, Checkpoints

FILES = ["tensors.safetensors", "state.json", "manifest.json"]


def at(step: int, *, validated: bool = False) -> Checkpoint:
    tensors = {"weight/w": torch.full((2,), float(step)), "best/w": torch.arange(3, dtype=torch.bfloat16)}
    return Checkpoint(step, validated, tensors, {"tokens": 10 * step, "best_loss": None})


def save(folder: Path, *steps: int, key: str = "k") -> Checkpoints:
    checkpoints = Checkpoints(folder, key)
    for step in steps:
        checkpoints.save(at(step))
    return checkpoints


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path, key: str = "k") -> int | None:
    found = Checkpoints(folder, key).load()
    return None if found is None else found.step


def test_what_is_saved_comes_back(tmp_path: Path) -> None:
    save(tmp_path, 7)
    found = Checkpoints(tmp_path, "k").load()
    assert found is not None
    assert (found.step, found.validated, found.state) == (7, False, {"tokens": 70, "best_loss": None})
    assert found.tensors.keys() == at(7).tensors.keys()
    for name, value in at(7).tensors.items():
        assert found.tensors[name].dtype == value.dtype
        assert torch.equal(found.tensors[name], value)


def test_files_are_safetensors_and_json(tmp_path: Path) -> None:
    save(tmp_path, 7)
    assert names(tmp_path / "step-000007") == sorted(FILES)
    manifest = json.loads((tmp_path / "step-000007/manifest.json").read_text())
    assert manifest["sha256"] == {name: sha256_of(tmp_path / "step-000007" / name) for name in FILES[:2]}


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3, 4)
    assert names(tmp_path) == ["step-000003", "step-000004"]
    assert newest(tmp_path) == 4
    assert newest(tmp_path, key="another") is None
    assert newest(tmp_path / "nowhere") is None


def test_a_step_comes_before_its_validation_and_after_all_smaller_ones(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, 999_999, 1_000_000)
    assert newest(tmp_path) == 1_000_000
    checkpoints.save(at(1_000_000, validated=True))
    found = Checkpoints(tmp_path, "k").load()
    assert found is not None
    assert found.validated
    assert names(tmp_path) == ["step-1000000", "step-1000000-validated"]


def test_saving_the_same_moment_twice_writes_nothing(tmp_path: Path) -> None:
    checkpoints = save(tmp_path, 5)
    before = (tmp_path / "step-000005/manifest.json").stat().st_mtime_ns
    checkpoints.save(at(5))
    loaded = Checkpoints(tmp_path, "k")
    loaded.load()
    loaded.save(at(5))
    assert (tmp_path / "step-000005/manifest.json").stat().st_mtime_ns == before


# --- the order of what is made durable -------------------------------------------------------------------


class Calls:
    """Notes each sync and rename by the names of what it is done to; can fail the n-th of them."""

    def __init__(self, patch: pytest.MonkeyPatch, *, fail: int | None = None, error: int = errno.EIO) -> None:
        self.made: list[str] = []
        self.fail, self.error = fail, error
        sync, rename, replace_, mkdir = os.fsync, Path.rename, Path.replace, Path.mkdir
        save_file = module.save_file
        patch.setattr(os, "fsync", lambda handle: self._note("sync", handle, sync, handle))
        patch.setattr(Path, "rename", lambda path, to: self._note("rename", path, rename, path, to))
        patch.setattr(Path, "replace", lambda path, to: self._note("replace", to, replace_, path, to))
        patch.setattr(Path, "mkdir", lambda path, *a, **k: self._note("mkdir", path, mkdir, path, *a, **k))
        patch.setattr(
            module, "save_file", lambda tensors, to: self._note("write", to, save_file, tensors, to)
        )

    def _note(self, verb: str, what: Any, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        path = Path(f"/proc/self/fd/{what}").readlink() if isinstance(what, int) else Path(what)
        self.made.append(f"{verb} {path.name}")
        if self.fail == len(self.made):
            if verb == "write":
                raise SafetensorError(f"I/O error: it broke (os error {self.error})")
            raise OSError(self.error, os.strerror(self.error), str(path))
        return call(*args, **kwargs)

    def place(self, what: str) -> int:
        return self.made.index(what)


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="asks Linux for open files")


@needs_proc
def test_a_name_is_given_after_everything_under_it_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "checkpoints", 1)
    calls = Calls(monkeypatch)
    save(tmp_path / "checkpoints", 2)
    written = [calls.place("write tensors.safetensors"), calls.place("sync tensors.safetensors")]
    written += [calls.place("replace state.json"), calls.place("replace manifest.json")]
    assert written == sorted(written), "the manifest vouches for what is durable"
    rename = calls.place("rename .step-000002.writing")
    synced = [call for call in calls.made[written[-1] : rename] if call.startswith("sync")]
    assert {"sync manifest.json", "sync .step-000002.writing"} <= set(synced)
    assert synced[-1] == "sync .step-000002.writing"
    assert "sync checkpoints" in calls.made[rename:]


@needs_proc
def test_the_folder_of_the_first_checkpoint_is_durable_before_what_is_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(monkeypatch)
    save(tmp_path / "train/checkpoints", 1)
    order = ["mkdir train", f"sync {tmp_path.name}", "mkdir checkpoints", "sync train"]
    order += ["mkdir .step-000001.writing", "write tensors.safetensors"]
    assert calls.made[: len(order)] == order


@needs_proc
@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EIO])
def test_a_write_that_fails_anywhere_leaves_the_one_before(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = save(tmp_path / "counted", 1)
    with monkeypatch.context() as patch:
        calls = Calls(patch)
        checkpoints.save(at(2))
    moments = len(calls.made)
    assert moments > 10
    raised = 0
    for moment in range(1, moments + 1):
        folder = tmp_path / str(moment)
        checkpoints = save(folder, 1)
        with monkeypatch.context() as patch:
            Calls(patch, fail=moment, error=error)
            try:
                checkpoints.save(at(2))
            except OSError as caught:
                raised += 1
                assert caught.errno == error
                # there after all, when only the sync of the new name failed
                assert names(folder) in (["step-000001"], ["step-000001", "step-000002"])
            # after the rename, and where folders cannot be synced, the new one is there
            assert newest(folder) == (2 if "step-000002" in names(folder) else 1)
        checkpoints.save(at(3))
        assert newest(folder) == 3
    assert raised == moments


# --- what is damaged --------------------------------------------------------------------------------


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], Any]] = {
    "a bit": flip,
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "gone": Path.unlink,
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "json of another kind": lambda path: path.write_text("[1]"),
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage: str, name: str, tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    DAMAGES[damage](tmp_path / "step-000002" / name)
    checkpoints = Checkpoints(tmp_path, "k")
    found = checkpoints.load()
    assert found is not None
    assert found.step == 1
    assert checkpoints.passed_over == ["step-000002"]
    assert checkpoints.newest == "step-000001"


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_a_disk_that_is_away_costs_no_checkpoint(
    error: int, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a whole one it may not be said that there is none: the caller would start anew, and clear."""
    save(tmp_path, 1, 2)
    opened = Path.open

    def broken(path: Path, *given: Any, **named: Any) -> Any:
        if path.name == name and (everywhere or "step-000002" in str(path)):
            raise OSError(error, os.strerror(error), str(path))
        return opened(path, *given, **named)

    everywhere = True
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", broken)
        with pytest.raises(TrainingError, match=f"cannot be read: {os.strerror(error)}") as caught:
            newest(tmp_path)
        assert caught.value.where == str(tmp_path / "step-000002")
        assert f"start anew by removing {tmp_path}" in (caught.value.fix or "")
        everywhere = False
        assert newest(tmp_path) == 1
    assert newest(tmp_path) == 2


def test_tensors_that_cannot_be_read_now_are_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path, 1)

    def broken(path: str) -> Any:
        raise SafetensorError(text)

    monkeypatch.setattr(module, "load_file", broken)
    text = "I/O error: Input/output error (os error 5)"
    with pytest.raises(TrainingError, match="Input/output error"):
        newest(tmp_path)
    text = "invalid header"
    assert newest(tmp_path) is None


def test_what_cannot_be_read_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1, 2)

    def broken(path: str) -> Any:
        if "000002" in path:
            raise SafetensorError("I/O error: Input/output error (os error 5)")
        return {}

    monkeypatch.setattr(module, "load_file", broken)
    assert newest(tmp_path) == 1


def test_a_half_written_one_is_not_seen_and_is_cleared_away(tmp_path: Path) -> None:
    save(tmp_path, 1)
    shutil.copytree(tmp_path / "step-000001", tmp_path / ".step-000002.writing")
    shutil.copytree(tmp_path / "step-000001", tmp_path / "step-000003")
    (tmp_path / "step-000003/manifest.json").unlink()
    checkpoints = Checkpoints(tmp_path, "k")
    found = checkpoints.load()
    assert found is not None
    assert found.step == 1
    checkpoints.save(at(4))
    assert names(tmp_path) == ["step-000001", "step-000004"]


def test_a_damaged_one_never_takes_the_place_of_a_whole_one(tmp_path: Path) -> None:
    save(tmp_path, 1, 2, 3)
    flip(tmp_path / "step-000003/state.json")
    checkpoints = Checkpoints(tmp_path, "k")
    checkpoints.load()
    checkpoints.save(at(4))
    assert names(tmp_path) == ["step-000002", "step-000004"]
    flip(tmp_path / "step-000004/state.json")
    assert newest(tmp_path) == 2


def test_a_damaged_one_is_written_again_at_the_same_step(tmp_path: Path) -> None:
    save(tmp_path, 1, 2)
    flip(tmp_path / "step-000002/tensors.safetensors")
    checkpoints = Checkpoints(tmp_path, "k")
    checkpoints.load()
    checkpoints.save(at(2))
    assert newest(tmp_path) == 2
    assert names(tmp_path) == ["step-000001", "step-000002"]


def test_another_format_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    monkeypatch.setattr(module, "FORMAT", module.FORMAT + 1)
    assert newest(tmp_path) is None


def test_clearing_removes_all(tmp_path: Path) -> None:
    checkpoints = save(tmp_path / "checkpoints", 1, 2)
    checkpoints.clear()
    checkpoints.clear()
    assert names(tmp_path) == []
    assert checkpoints.newest is None
    checkpoints.save(replace(at(2), step=3))
    assert newest(tmp_path / "checkpoints") == 3
