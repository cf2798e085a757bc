"""Luthier's side of a sweep: `run_sweep` on the recipe, as the command does it."""

from __future__ import annotations

import time
from pathlib import Path

import torch

from bench.plan import Plan, tokens_of
from bench.protocol import Line, peak_bytes
from luthier.recipe import load_recipe
from luthier.sweep.sweep import run_sweep


def main() -> None:
    """One whole sweep for a "go"."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    over = "train.learning_rate=" + ",".join(str(rate) for rate in job["rates"])
    line.send(event="ready", peak_bytes=peak_bytes())
    line.receive()
    began = time.perf_counter()
    result = run_sweep(load_recipe(folder / "recipe.yaml"), folder / f"sweep-{job['turn']}", [over])
    seconds = time.perf_counter() - began
    done = [row for row in result["trials"] if row["state"] == "done"]
    line.send(
        event="step",
        done=True,
        seconds=seconds,
        peak_bytes=peak_bytes(),
        tokens=len(job["rates"]) * sum(map(tokens_of, plan.examples)),
        loss=min(row["value"] for row in done),
        losses={str(row["changes"]["train.learning_rate"]): row["value"] for row in done},
        trained_steps=result["steps"],
        planned_steps=result["planned_steps"],
    )


if __name__ == "__main__":
    main()
