"""The peer's side: TRL's SFTTrainer on a PEFT model, one step per go."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from datasets import Dataset  # type: ignore[import-untyped]
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from bench.peers import TrlSettings
from bench.plan import Plan, Row, tokens_of
from bench.workers.trl_side import Records, Turns, common_settings, in_order, open_side, optimizer_of


class Recording(Records, SFTTrainer):
    """SFTTrainer that says what it did."""


def main() -> None:
    """Train the plan's one epoch."""
    side = open_side()
    plan, settings = side.plan, side.settings
    turns = Turns(side.steps, mean=False)
    trainer = Recording(
        model=side.model,
        args=config_of(plan, side.folder / "trl", settings),
        train_dataset=dataset_of(in_order(plan, settings)),
        processing_class=side.loaded.tokenizer,
        optimizers=optimizer_of(side.model, plan.rates),
        callbacks=[turns],
    )
    side.train(trainer, turns)


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
