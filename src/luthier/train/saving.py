"""When and where a training is saved, and how it is taken up again."""

from __future__ import annotations

import time
from pathlib import Path

from luthier.record import free_space
from luthier.train.checkpoint import Checkpoint, Checkpoints
from luthier.train.metrics import Metrics
from luthier.train.state import Training

COST_FACTOR = 20.0  # saving takes at most a twentieth of the time


class Saver:
    """Keeps a training on disk: `metrics.jsonl` and `losses.jsonl` as it goes, `checkpoints/` every so often.

    Args:
        notes: receives what the user should know.
    """

    def __init__(self, folder: Path, key: str, training: Training, notes: list[str]) -> None:
        self.training = training
        self.metrics = Metrics(folder / "metrics.jsonl")
        self.losses = Metrics(folder / "losses.jsonl")
        self.checkpoints = Checkpoints(folder / "checkpoints", key)
        self._notes = notes
        self._failed = False
        self._saved_at = 0.0
        self._cost = 0.0

    def resume(self) -> None:
        """Go on from the newest whole checkpoint of this key, or from the start."""
        checkpoint = self.checkpoints.load(self.training.fits)
        passed = ", ".join(self.checkpoints.passed_over)
        if checkpoint is None:
            if passed:
                self._notes.append(f"starting anew: {passed} cannot be used, or is of another recipe")
            self.checkpoints.clear()  # they take space
            self.metrics.rewind(0)
            self.losses.rewind(0)
            return
        self.training.restore(checkpoint)
        self._saved_at = self.training.counters.seconds
        self._notes.append(f"going on after step {checkpoint.step}")
        if passed:
            self._notes.append(f"{passed} cannot be used, {checkpoint.name} is whole")
        counters = self.training.counters
        for file, length in ((self.metrics, counters.metrics_bytes), (self.losses, counters.losses_bytes)):
            if not file.rewind(length):
                self._notes.append(f"lines of {file.path.name} are missing")

    def save_if_due(self, every_seconds: float) -> None:
        """Save after so many seconds of training, or more where saving takes long.

        When it fails, training goes on, and it is tried again later.
        """
        counters = self.training.counters
        if counters.seconds - self._saved_at <= max(every_seconds, COST_FACTOR * self._cost):
            return
        began = time.perf_counter()
        try:
            self.save()
            self._failed = False
        except OSError as error:
            if not self._failed:
                self._notes.append(f"{self._explain(error)}; training goes on and tries again")
            self._failed = True
        self._saved_at = counters.seconds
        self._cost = time.perf_counter() - began

    def save_now(self) -> str:
        """Save at once, as far as possible; returns what was done, in words."""
        try:
            self.save()
        except OSError as error:
            return self._explain(error)
        return f"step {self.training.counters.step} is saved in {self.checkpoints.folder}"

    def save(self) -> None:
        """Save at once.

        Raises:
            OSError: it could not be written.
        """
        self.sync()
        self.training.counters.metrics_bytes = self.metrics.length
        self.training.counters.losses_bytes = self.losses.length
        self.checkpoints.save(self.training.checkpoint())

    def sync(self) -> None:
        """Make all lines durable. Raises OSError as `Metrics.sync`."""
        self.metrics.sync()
        self.losses.sync()

    def _explain(self, error: OSError) -> str:
        checkpoint = self.training.checkpoint()
        folder = self.checkpoints.folder
        needed = f"it needs {_size(checkpoint)}; free: {free_space(folder.parent)}"
        newest = self.checkpoints.newest
        intact = "there is none before it" if newest is None else f"{newest} is intact"
        return (
            f"the checkpoint of step {checkpoint.step} could not be written to {folder}: "
            f"{error.strerror or error} ({needed}); {intact}"
        )


def _size(checkpoint: Checkpoint) -> str:
    total = sum(tensor.numel() * tensor.element_size() for tensor in checkpoint.tensors.values())
    return f"{total / 1e6:.1f} MB"
