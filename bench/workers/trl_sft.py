"""The peer's side: TRL's SFTTrainer on a PEFT model, one step per go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from bench.peers import TrlSettings
from bench.plan import Plan, Row, tokens_of
from bench.protocol import Line, Steps
from bench.workers.trl_side import Records, Turns, common_settings, in_order, optimizer_of
from luthier.models import load_model


class Recording(Records, SFTTrainer):
    """SFTTrainer that says what it did."""


def main() -> None:
    """Train the plan's one epoch."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    settings = TrlSettings(**job["settings"])
    loaded = load_model(job["model"], device="cpu")
    model = PeftModel.from_pretrained(loaded.model, plan.adapter, is_trainable=True)
    turns = Turns(Steps(line), mean=False)
    trainer = Recording(
        model=model,
        args=config_of(plan, folder / "trl", settings),
        train_dataset=dataset_of(in_order(plan, settings)),
        processing_class=loaded.tokenizer,
        optimizers=optimizer_of(model, plan.rates),
        callbacks=[turns],
    )
    trainer.forget()
    turns.trainer = trainer
    turns.steps.begin()
    trainer.train()


def config_of(plan: Plan, folder: Path, settings: TrlSettings) -> SFTConfig:
    """The trainer's configuration; every update is one batch of the plan."""
    longest = max(map(tokens_of, plan.examples))
    packed = settings.feeding == "packed"
    batch = len(plan.batches[0])
    # packs are as long as the longest sequence: nothing is cut off, and a batch has as many tokens as before
    accumulation = (
        round(plan.batch_tokens / longest / settings.micro_batch) if packed else batch // settings.micro_batch
    )
    return SFTConfig(
        **common_settings(plan, folder, settings, accumulation=max(1, accumulation)),
        max_length=longest if packed else None,
        padding_free=settings.feeding == "free",
        packing=packed,
    )


def dataset_of(examples: Sequence[Sequence[Row]]) -> Dataset:
    """-100 is the label of a token without weight."""
    rows = [row for (row,) in examples]
    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [
                [token if weight else -100 for token, weight in zip(row.ids, row.weights, strict=True)]
                for row in rows
            ],
        }
    )


if __name__ == "__main__":
    main()
