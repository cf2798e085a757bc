"""Luthier's side of scoring: `luthier.forest.score`, one group of questions per go."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench.protocol import Line, Steps
from luthier.forest import score
from luthier.models import load_model


def main() -> None:
    """Score every group of questions in turn."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    groups = json.loads((Path(job["folder"]) / "questions.json").read_text(encoding="utf-8"))
    model = load_model(job["model"], device="cpu").model
    steps = Steps(line)
    steps.begin()
    for group in groups:
        rows = [
            (ids, length)
            for question in group
            for ids, length in zip(question["ids"], question["lengths"], strict=True)
        ]
        needed = [[t >= len(ids) - length for t in range(1, len(ids))] for ids, length in rows]
        values = score(model, [ids for ids, _ in rows], needed=needed)
        tokens = sum(len(ids) for ids, _ in rows)
        steps.end_step(values=[float(value.sum()) for value in values], tokens=tokens)


if __name__ == "__main__":
    main()
