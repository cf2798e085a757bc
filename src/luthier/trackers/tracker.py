"""The port: what a tracker is, which there are, and a run that is tracked by some of them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol

from luthier.errors import RecipeError
from luthier.trackers.courier import FINISH_SECONDS, STOP_SECONDS, Courier

PROJECT = "luthier"  # what runs are filed under, where the tracker's own variable names nothing else

Log = Callable[[Mapping[str, Any]], None]
Plain = str | int | float | bool | None


class Tracker(Protocol):
    """Keeps a run's numbers. Whatever it raises ends its own tracking, never the run."""

    def start(self, run_name: str, config: Mapping[str, Plain]) -> str:
        """Begin, or go on with, a run; returns how its numbers can be seen, in one line."""
        ...

    def log(self, step: int, numbers: Mapping[str, float]) -> None:
        """Keep numbers of a step; steps only grow, and come more than once."""
        ...

    def finish(self, *, done: bool) -> None:
        """Write what is still held back. The training is `done`, or it was stopped, or failed."""
        ...


def require_trackers(names: Sequence[str]) -> None:
    """Refuse trackers whose package is missing.

    Raises:
        RecipeError: with the command that brings it.
    """
    for name in names:
        spec = find_spec(name)
        # a folder of that name, as trackers leave them where one works, is no package
        if spec is None or spec.origin is None:
            raise RecipeError(
                f"trackers: {name} is not installed",
                fix=f"pip install 'luthier[{name}]', or take {name} out of the recipe's `trackers`",
            )


@contextlib.contextmanager
def tracking(
    trackers: Mapping[str, Tracker],
    run_name: str,
    config: Mapping[str, Plain],
    *,
    tell: Callable[[str], None],
) -> Iterator[Log]:
    """Track what happens inside; the value takes the lines of `train/metrics.jsonl`.

    Every tracker works on a thread of its own, so that a slow network holds nothing up.

    Args:
        tell: gets where each tracker's numbers can be seen, and one line when it fails.
    """
    couriers = [Courier(name, tracker, tell) for name, tracker in trackers.items()]

    def log(line: Mapping[str, Any]) -> None:
        for courier in couriers:
            courier.log(line["step"], numbers_of(line))

    done = False
    try:
        for courier in couriers:
            courier.start(run_name, config)
        yield log
        done = True
    finally:
        for courier in couriers:
            courier.end(done=done)
        until = time.monotonic() + (FINISH_SECONDS if done else STOP_SECONDS)
        for courier in couriers:
            courier.wait(until)


def build_trackers(names: Sequence[str], folder: Path, identity: str) -> dict[str, Tracker]:
    """The trackers of a run by name.

    Args:
        folder: each keeps its files in a folder of its name in here, unless its own variables say otherwise.
        identity: of the run: one that goes on after a kill is the same run to them.
    """
    return {name: _build(name, folder / name, identity) for name in names}


def _build(name: str, folder: Path, identity: str) -> Tracker:
    if name == "tensorboard":
        from luthier.trackers.tensorboard import TensorBoard

        return TensorBoard(folder)
    if name == "mlflow":
        from luthier.trackers.mlflow import MLflow

        return MLflow(folder, identity)
    if name == "wandb":
        from luthier.trackers.wandb import WeightsAndBiases

        return WeightsAndBiases(folder, identity)
    from luthier.trackers.trackio import Trackio

    return Trackio(identity)


def numbers_of(line: Mapping[str, Any]) -> dict[str, float]:
    """A line of metrics as trackers name it: `train/loss`, `validation/score`; without what is undefined."""
    return {
        key.replace("_", "/", 1) if key.startswith("validation_") else f"train/{key}": float(value)
        for key, value in line.items()
        if key != "step" and isinstance(value, int | float)
    }
