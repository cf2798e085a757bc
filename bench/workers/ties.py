"""How close the two best tokens are where two answers part, by the model's own forward pass."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from bench.protocol import Line
from luthier.models import load_model


def main() -> None:
    """One job in, one answer out: nats between the two best tokens, for every answer that differs."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    prompts = json.loads((Path(job["folder"]) / "questions.json").read_text(encoding="utf-8"))
    model = load_model(job["model"], device="cpu").model
    gaps = []
    for parted in job["parted"]:
        ids = prompts[parted["row"]] + parted["ids"][: parted["place"]]
        with torch.inference_mode():
            logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=1).logits[0, -1]
        best, second = logits.topk(2).values.tolist()
        gaps.append(best - second)
    line.send(event="ties", gaps=gaps)


if __name__ == "__main__":
    main()
