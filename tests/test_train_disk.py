"""A disk that is full or failing while training: what was saved stays, training goes on, and it is said."""

from __future__ import annotations

import errno
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_training import Crash, crash_at, make_model, metrics, outcome, run, same, settings

from luthier.errors import RecordError, StoppedError
from luthier.models import save_adapter
from luthier.record import explain_os_errors
from luthier.train import Progress, checkpoint, loop
from luthier.train.checkpoint import Checkpoints
from luthier.train.metrics import Metrics


@pytest.fixture(autouse=True)
def a_checkpoint_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr("luthier.train.saving.COST_FACTOR", 0.0)


def go(folder: Path, **changes: Any) -> Any:
    return outcome(folder, run(folder, model=make_model(num_hidden_layers=1), **changes))


class Disk:
    """Refuses to write tensors while `error` is set."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.error: int | None = None
        self.tries = 0
        save_file = checkpoint.save_file

        def write(tensors: Any, path: str) -> None:
            if self.error is not None:
                self.tries += 1
                Path(path).write_bytes(b"half")
                raise OSError(self.error, os.strerror(self.error), path)
            save_file(tensors, path)

        patch.setattr(checkpoint, "save_file", write)


@pytest.mark.parametrize(
    ("error", "told"), [(errno.ENOSPC, "No space left on device"), (errno.EIO, "Input/output error")]
)
def test_training_goes_on_says_so_once_and_tries_again(
    error: int, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = go(tmp_path / "whole")
    disk = Disk(monkeypatch)
    folder, notes, found = tmp_path / "run", {}, {}

    def show(progress: Progress) -> None:
        notes[progress.step] = progress.note
        newest = Checkpoints(folder / "checkpoints", "k").load()
        found[progress.step] = None if newest is None else newest.step
        disk.error = error if progress.step in (2, 3, 4) else None

    got = go(folder, show=show)
    assert same(got, expected)
    # step n is saved before step n + 1 is shown
    assert found == {1: None, 2: 1, 3: 1, 4: 1, 5: 1, 6: 5}
    assert disk.tries == 3
    assert [step for step, note in notes.items() if note] == [3], "once, although it failed three times"
    assert re.fullmatch(
        r"the checkpoint of step 2 could not be written to .*/run/checkpoints: "
        + told
        + r" \(it needs 0\.\d MB; free: [\d.]+ MB\); step-000001 is intact; "
        r"training goes on and tries again",
        notes[3],
    )


def test_a_second_failure_is_said_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk, notes = Disk(monkeypatch), {}

    def show(progress: Progress) -> None:
        notes[progress.step] = progress.note
        disk.error = errno.ENOSPC if progress.step in (1, 4) else None

    go(tmp_path, show=show)
    assert [step for step, note in notes.items() if note] == [2, 5]
    assert "there is none before it" in notes[2]


def test_stopped_with_a_full_disk_says_what_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = go(tmp_path / "whole")
    disk = Disk(monkeypatch)

    def show(progress: Progress) -> None:
        if progress.step == 3:
            disk.error = errno.ENOSPC
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match=r"step 3 could not be written.*; step-000002 is intact"):
        go(tmp_path / "run", show=show)
    disk.error = None
    assert same(go(tmp_path / "run"), expected)


# --- metrics.jsonl --------------------------------------------------------------------------------------


def test_lines_that_cannot_be_written_are_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = Metrics(tmp_path / "metrics.jsonl")
    file.rewind(0)
    file.append({"step": 1})
    write = Metrics._write

    def half(self: Metrics) -> None:
        with self.path.open("ab") as opened:
            opened.write(self._unwritten[:4])
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Metrics, "_write", half)
    file.append({"step": 2})
    file.append({"step": 3})
    with pytest.raises(OSError, match="full"):
        file.sync()
    monkeypatch.setattr(Metrics, "_write", write)
    file.append({"step": 4})
    assert [line["step"] for line in metrics(tmp_path)] == [1, 2, 3, 4]
    assert file.length == file.path.stat().st_size


def test_rewinding(tmp_path: Path) -> None:
    file = Metrics(tmp_path / "train/metrics.jsonl")
    assert file.rewind(0)
    for step in (1, 2):
        file.append({"step": step})
    length = file.length
    file.append({"step": 3})
    again = Metrics(file.path)
    assert again.rewind(length)
    again.append({"step": 30})
    assert [line["step"] for line in metrics(file.path.parent)] == [1, 2, 30]
    os.truncate(file.path, length - 3)
    assert not Metrics(file.path).rewind(length), "a part of the second line is gone"
    assert [line["step"] for line in metrics(file.path.parent)] == [1]


def test_a_file_that_someone_emptied_gets_no_holes(tmp_path: Path) -> None:
    file = Metrics(tmp_path / "metrics.jsonl")
    file.rewind(0)
    file.append({"step": 1})
    file.path.write_bytes(b"")
    file.append({"step": 2})
    assert [line["step"] for line in metrics(tmp_path)] == [2]
    assert file.length == file.path.stat().st_size


def test_lost_lines_are_noted_and_nothing_else_is_lost(tmp_path: Path) -> None:
    expected = go(tmp_path / "whole")
    with pytest.raises(Crash):
        go(tmp_path / "run", show=crash_at(5))
    for name in ("metrics.jsonl", "losses.jsonl"):
        (tmp_path / "run" / name).unlink()
    shown: list[Progress] = []
    weights, lines, summary = go(tmp_path / "run", show=shown.append)
    told = "going on after step 4; lines of metrics.jsonl are missing; lines of losses.jsonl are missing"
    assert shown[0].note == told
    assert same((weights, [], summary), (expected[0], [], expected[2]))
    assert lines == [line for line in expected[1] if line["step"] > 4]


# --- a real disk that is really full ----------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 640 kB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=640k", "tmpfs", str(place)]
    try:
        made = subprocess.run(mount, capture_output=True, check=False, timeout=20)
    except OSError as error:
        pytest.skip(f"a small file system cannot be made here: {error}")
    if made.returncode:
        pytest.skip(f"a small file system cannot be made here: {made.stderr.decode().strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True, timeout=20)


def test_a_full_file_system(small_disk: Path, tmp_path: Path) -> None:
    """Room for two checkpoints and a half: the third fails, the run does not."""
    expected = go(tmp_path / "whole")
    folder, notes = small_disk / "train", []

    def show(progress: Progress) -> None:
        notes.append(progress.note)
        newest = Checkpoints(folder / "checkpoints", "k").load()
        assert (newest is None) == (progress.step == 1)
        if progress.step == 4:
            raise Crash

    size = sum(p.stat().st_size for p in (tmp_path / "whole").rglob("*.safetensors")) // 2
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(640 * 1024 - int(2.5 * size)))
    with pytest.raises(Crash):
        go(folder, show=show)
    assert sum("No space left on device" in (note or "") for note in notes) == 1
    assert [p.name for p in sorted((folder / "checkpoints").iterdir())] == ["step-000001", "step-000002"]
    ballast.unlink()
    assert same(go(folder), expected)


def test_a_result_that_cannot_be_written_is_an_error(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, loaded: Any
) -> None:
    monkeypatch.setattr(loop, "CHECKPOINT_SECONDS", 1e9)
    ballast = small_disk / "ballast"

    def fill() -> None:
        with pytest.raises(OSError, match="No space left"), ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))

    def show(progress: Progress) -> None:
        if progress.step == 3:
            fill()

    with pytest.raises(RecordError, match=r"no space left on the disk \(0.0 MB free\)"):  # noqa: SIM117
        with explain_os_errors(small_disk):
            go(small_disk / "train", show=show, settings=settings(epochs=12))  # more lines than fit a page
    ballast.unlink()
    model, _ = run(small_disk / "train", model=make_model(num_hidden_layers=1))
    fill()
    with pytest.raises(RecordError, match="no space left"), explain_os_errors(small_disk):
        save_adapter(model, loaded.tokenizer, small_disk / "adapter", base_name="tiny")  # type: ignore[arg-type]
    assert not (small_disk / "adapter").exists()
