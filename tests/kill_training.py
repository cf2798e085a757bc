"""A training that kills its own process at a given call, or waits to be killed; it keeps a journal."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tiny_training import losses, make_items, make_model, measured, metrics, run, settings, trainable

from luthier.train import checkpoint, loop, saving
from luthier.train.checkpoint import Checkpoints
from luthier.train.saving import Saver

EPOCHS = {"fast": 8, "long": 44}  # of three steps


def train(home: str, size: str, fatal_call: int | None) -> None:
    """Train in `home`, saving after every step.

    Args:
        fatal_call: the process dies before (even) or after (odd) the call number `fatal_call // 2` that
            makes something durable, or changes a name; None: it does not kill itself.
    """
    torch.set_num_threads(1)
    folder = Path(home)
    loop.CHECKPOINT_SECONDS = 0.0
    saving.COST_FACTOR = 0.0
    _keep_journal(folder / "journal")
    if fatal_call is not None:
        _die_at(fatal_call)
    model, summary = run(
        folder / "train",
        model=make_model(num_hidden_layers=1),
        settings=settings(epochs=EPOCHS[size]),
        validation=make_items(4, seed=9),
        peak=2e-2,
    )
    save_file(trainable(model), folder / "weights.safetensors")
    lines = measured(metrics(folder / "train")) + losses(folder / "train")
    rows = {"lines": lines, "summary": measured([summary])}
    (folder / "result.json").write_text(json.dumps(rows))


def _keep_journal(path: Path) -> None:
    """One line when training begins, and one after each checkpoint that was written."""
    journal = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    resume, save = Saver.resume, Checkpoints.save

    def noted_resume(self: Saver) -> None:
        resume(self)
        os.write(journal, f"resumed {self.training.counters.step}\n".encode())

    def noted_save(self: Checkpoints, content: checkpoint.Checkpoint) -> None:
        save(self, content)
        os.write(journal, f"saved {content.step}\n".encode())

    Saver.resume = noted_resume  # type: ignore[method-assign]
    Checkpoints.save = noted_save  # type: ignore[method-assign]


def _die_at(fatal: int) -> None:
    made = 0

    def deadly(call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            nonlocal made
            here, made = made, made + 1
            if fatal == 2 * here:
                os.kill(os.getpid(), signal.SIGKILL)
            result = call(*args, **kwargs)
            if fatal == 2 * here + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return wrapped

    def torn(tensors: Any, path: str) -> None:
        """Written in two halves: a process can die in between."""
        write(tensors, path)
        content = Path(path).read_bytes()
        halved(Path(path), content[: len(content) // 2])
        Path(path).write_bytes(content)

    write, halved = checkpoint.save_file, deadly(Path.write_bytes)
    checkpoint.save_file = deadly(torn)
    os.fsync = deadly(os.fsync)
    Path.rename = deadly(Path.rename)  # type: ignore[method-assign]
    Path.replace = deadly(Path.replace)  # type: ignore[method-assign]
    Path.mkdir = deadly(Path.mkdir)  # type: ignore[method-assign]
    shutil.rmtree = deadly(shutil.rmtree)  # type: ignore[assignment]
