"""One kind of adapter on the demo's task: trained, graded and probed by the pipeline itself."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from bench.protocol import Line
from luthier.demo import RECIPE
from luthier.pipeline import Run
from luthier.recipe import load_recipe


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    recipe = load_recipe(RECIPE, {"adapter": job["adapter"], "candidates": ["tuned"]})
    with tempfile.TemporaryDirectory(prefix="luthier-bench-") as folder:
        run = Run(recipe, Path(folder) / "run")
        scores = run.evaluate()["candidates"]["tuned"]
        probes = run.probe()
        summary = run.train()
        rows = run.record.read_jsonl("predictions/tuned.jsonl")
        line.send(
            event="measured",
            scores=[row["score"] for row in rows],
            score=scores["score"],
            score_bounds=(scores["low"], scores["high"]),
            **change("forgetting", probes["forgetting"], -1),
            **change("drift", probes["own_text"], 1),
            rate=summary["learning_rate"],
            steps=summary["steps"],
            seconds=summary["seconds"],
            memory=summary["peak_memory_bytes"],
            trained=summary["trainable_parameters"],
            adapter_bytes=summary["adapter_bytes"],
        )


def change(name: str, probe: dict[str, Any], sign: int) -> dict[str, Any]:
    """A probe's difference with its bounds, positive for worse."""
    bounds = sorted(sign * probe[side] for side in ("low", "high") if probe[side] is not None)
    return {name: sign * probe["difference"], f"{name}_bounds": bounds if len(bounds) == 2 else (None, None)}


if __name__ == "__main__":
    main()
