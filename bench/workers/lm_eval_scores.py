"""The peer's side of scoring: lm-eval's `hf` backend, one group of questions per go."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from lm_eval.api.instance import Instance  # type: ignore[import-not-found]
from lm_eval.models.huggingface import HFLM  # type: ignore[import-not-found]

from bench.protocol import Line, Steps
from luthier.models import load_model


def main() -> None:
    """Score every group of questions in turn."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    groups = json.loads((Path(job["folder"]) / "questions.json").read_text(encoding="utf-8"))
    loaded = load_model(job["model"], device="cpu")
    peer = HFLM(
        pretrained=loaded.model,
        tokenizer=loaded.tokenizer,
        backend="causal",
        device="cpu",
        batch_size=job["settings"]["batch_size"],
    )
    steps = Steps(line)
    steps.begin()
    for group in groups:
        requests = [
            Instance("loglikelihood", {}, (question["context"], option), index)
            for index, question in enumerate(group)
            for option in question["options"]
        ]
        values = [value for value, _ in peer.loglikelihood(requests, disable_tqdm=True)]
        tokens = sum(len(ids) for question in group for ids in question["ids"])
        steps.end_step(values=values, tokens=tokens)


if __name__ == "__main__":
    main()
