"""Writes the questions or prompts that both sides answer, and counts the work."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import torch

from bench.catalogue import WORKLOADS
from bench.plan import Row
from bench.protocol import Line
from bench.work import count_work
from bench.workers.sizes import model_sizes
from bench.workload import ChoiceWorkload, Question, WritingWorkload
from luthier.chat import ChatFormat
from luthier.models import load_model


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    workload = WORKLOADS[job["workload"]]
    file = Path(job["folder"]) / "questions.json"
    loaded = load_model(job["model"], device="cpu")
    if isinstance(workload, ChoiceWorkload):
        questions = workload.questions(loaded.tokenizer, job["steps"] * workload.per_step)
        steps = [
            questions[start : start + workload.per_step]
            for start in range(0, len(questions), workload.per_step)
        ]
        file.write_text(json.dumps([[asdict(q) for q in step] for step in steps]), encoding="utf-8")
        work = [vars(count_work([row for q in step for row in _rows(q)])) for step in steps]
        line.send(event="prepared", model=vars(model_sizes(loaded.model)), work=work)
        return
    assert isinstance(workload, WritingWorkload)
    prompts = [list(prompt) for prompt in workload.prompts(ChatFormat(loaded.tokenizer))]
    file.write_text(json.dumps(prompts), encoding="utf-8")
    work = count_work([Row(tuple(prompt), (0.0,) * len(prompt)) for prompt in prompts])
    line.send(
        event="prepared",
        prompts=len(prompts),
        shortest=min(map(len, prompts)),
        longest=work.longest,
        shared=work.shared,
    )


def _rows(question: Question) -> list[Row]:
    return [
        Row(ids, (0.0,) * (len(ids) - length) + (1.0,) * length)
        for ids, length in zip(question.ids, question.lengths, strict=True)
    ]


if __name__ == "__main__":
    main()
