"""Luthier's side of generation: `luthier.generate.generate` with its defaults, all prompts per go."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench.protocol import Line, Steps
from luthier.generate import generate
from luthier.models import load_model


def main() -> None:
    """Continue all prompts, again and again."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    prompts = json.loads((Path(job["folder"]) / "questions.json").read_text(encoding="utf-8"))
    model = load_model(job["model"], device="cpu").model
    # both sides: what a first call sets up is no part of a step, and a whole step of warm-up takes minutes
    generate(model, prompts[:2], max_new_tokens=2, stop_ids=frozenset())
    steps = Steps(line)
    steps.begin()
    while True:
        answers = generate(model, prompts, max_new_tokens=job["new_tokens"], stop_ids=frozenset())
        written = [list(answer.ids) for answer in answers]
        steps.end_step(written=written, tokens=sum(map(len, [*prompts, *written])))


if __name__ == "__main__":
    main()
