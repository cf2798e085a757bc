"""Luthier's side: `luthier.train.train` on the plan, one step per go."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import torch

from bench.plan import ALPHA, RANK, Plan
from bench.protocol import Line, Steps
from bench.workers.objective import REFERRED, items_of, method_of
from bench.workers.references import References, reference_logps
from luthier.models import attach_adapter, load_model
from luthier.recipe import Adapter, Train
from luthier.train import Progress, loop, train


def main() -> None:
    """Train the plan's one epoch; then, when asked on, say the held-out loss."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    # TRL writes none either
    loop.CHECKPOINT_SECONDS = math.inf
    kind: dict[str, Any] = {"base": job["base"]} if "base" in job else {}
    adapter = Adapter(rank=RANK, alpha=ALPHA, **kind)
    model = attach_adapter(load_model(job["model"], device="cpu"), adapter, seed=plan.seed)
    items = items_of(plan.examples)
    facts: dict[str, float] = {}
    references: References = {}
    if plan.objective in REFERRED:
        began = time.perf_counter()
        references = reference_logps(model, items)
        facts["reference_seconds"] = time.perf_counter() - began
    method = method_of(plan.objective, references)
    steps = Steps(line)
    before = [0, 0]

    def show(progress: Progress) -> None:
        tokens, executed = progress.tokens - before[0], progress.executed_tokens - before[1]
        before[:] = progress.tokens, progress.executed_tokens
        steps.end_step(loss=progress.loss, tokens=tokens, executed=executed)

    steps.begin(**facts)
    train(
        model,
        method,
        items,
        [],
        Train(epochs=1, batch_tokens=plan.batch_tokens),
        peak=plan.peak,
        seed=plan.seed,
        folder=folder / job.get("run", "luthier"),
        key="bench",
        show=show,
    )
    line.send(event="done", validation_loss=loop.validation_loss(model, method, items_of(plan.held_out)))


if __name__ == "__main__":
    main()
