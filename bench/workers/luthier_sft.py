"""Luthier's side: `luthier.train.train` with the SFT method, one step per go."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from bench.plan import ALPHA, RANK, Plan
from bench.protocol import Line, Steps
from bench.workers.prepare import items_of
from luthier.methods import SFT
from luthier.models import attach_adapter, load_model
from luthier.recipe import Adapter, Train
from luthier.train import Progress, loop, train


def main() -> None:
    """Train the plan's one epoch."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    # the time that this side waits for its turn would count towards the next checkpoint
    loop.CHECKPOINT_SECONDS = math.inf
    model = attach_adapter(
        load_model(job["model"], device="cpu"), Adapter(rank=RANK, alpha=ALPHA), seed=plan.seed
    )
    steps = Steps(line)

    def show(progress: Progress) -> None:
        steps.end_step(loss=progress.loss)

    steps.begin()
    train(
        model,
        SFT(),
        items_of(list(plan.rows)),
        [],
        Train(epochs=1, batch_tokens=plan.batch_tokens),
        seed=plan.seed,
        folder=folder / "luthier",
        key="bench",
        show=show,
    )


if __name__ == "__main__":
    main()
