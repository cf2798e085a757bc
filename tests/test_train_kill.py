"""SIGKILL of real training processes, inside checkpoint writes too: nothing that was saved is lost."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import time
from multiprocessing.process import BaseProcess
from pathlib import Path

import children
import kill_training
import pytest

# Moments of a process that goes on from a checkpoint and writes the next: before and after each of the
# calls that make a name or its content durable.
TORN, MANIFEST, UNNAMED, NAMED, PRUNING, NEXT_BUT_ONE = 15, 30, 44, 45, 50, 100
MOMENTS = 66


def newest_whole(folder: Path) -> int:
    """Step of the newest checkpoint whose files are those of its manifest, or 0."""
    whole = [0]
    for path in folder.glob("train/checkpoints/step-*"):
        try:
            sums = json.loads((path / "manifest.json").read_text())["sha256"]
            if all(hashlib.sha256((path / name).read_bytes()).hexdigest() == sums[name] for name in sums):
                whole.append(int(path.name.split("-")[1]))
        except (OSError, ValueError):
            pass
    return max(whole)


def journal(folder: Path, word: str) -> list[int]:
    lines = (folder / "journal").read_text().splitlines() if (folder / "journal").exists() else []
    return [int(line.split()[1]) for line in lines if line.startswith(word)]


def wait_for_start(process: BaseProcess, folder: Path, starts: int) -> None:
    deadline = time.monotonic() + 120
    while len(journal(folder, "resumed")) < starts and process.is_alive() and time.monotonic() < deadline:
        time.sleep(0.002)


def kill_again_and_again(home: Path, size: str, *, calls: list[int], random_moments: int) -> None:
    """Kill at these calls, and at random moments, in an order of its own; then compare the results."""
    whole, killed = home / "whole", home / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    undisturbed = children.start(kill_training.train, str(whole), size, None)
    wait_for_start(undisturbed, whole, 1)
    began = time.perf_counter()
    undisturbed.join(300)
    assert undisturbed.exitcode == 0
    step_seconds = (time.perf_counter() - began) / max(journal(whole, "saved"))

    dice = random.Random(0)
    moments: list[int | None] = [*calls, *[None] * random_moments]
    dice.shuffle(moments)
    steps = []
    for call in moments:
        expected, starts = newest_whole(killed), len(journal(killed, "resumed"))
        process = children.start(kill_training.train, str(killed), size, call)
        if call is None:
            wait_for_start(process, killed, starts + 1)
            time.sleep(dice.uniform(0, 4 * step_seconds))
            process.kill()
        process.join(120)
        assert process.exitcode == -signal.SIGKILL, f"outlived call {call}"
        resumed = journal(killed, "resumed")
        if len(resumed) > starts:  # it had come as far as that
            assert resumed[-1] == expected
        assert newest_whole(killed) >= max([expected, *journal(killed, "saved")])
        steps.append(newest_whole(killed))
    assert steps == sorted(steps)
    assert len(set(steps)) > len(steps) // 8, "the kills were spread over the run"

    last = children.start(kill_training.train, str(killed), size, None)
    last.join(300)
    assert last.exitcode == 0
    assert journal(killed, "resumed")[-1] == steps[-1]
    for name in ("weights.safetensors", "result.json"):
        assert (killed / name).read_bytes() == (whole / name).read_bytes()
    left = {path.name for path in (killed / "train/checkpoints").iterdir()}
    assert left == {path.name for path in (whole / "train/checkpoints").iterdir()}


def test_killed_at_eight_moments(tmp_path: Path) -> None:
    calls = [TORN, MANIFEST, UNNAMED, NAMED, PRUNING, NEXT_BUT_ONE]
    kill_again_and_again(tmp_path, "fast", calls=calls, random_moments=2)


@pytest.mark.slow
def test_killed_at_fifty_moments(tmp_path: Path) -> None:
    calls = random.Random(1).sample(range(MOMENTS), 30)
    kill_again_and_again(tmp_path, "long", calls=calls, random_moments=20)
