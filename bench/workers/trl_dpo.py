"""The peer's side on preference pairs: TRL's DPOTrainer on a PEFT model, one step per go."""

from __future__ import annotations

import time
from typing import Any

from datasets import Dataset  # type: ignore[import-untyped]
from trl import DPOConfig, DPOTrainer  # type: ignore[attr-defined]

from bench.peers import TrlSettings
from bench.plan import BETA, Plan
from bench.workers.trl_side import Records, Turns, common_settings, in_order, open_side, optimizer_of


class Recording(Records, DPOTrainer):
    """DPOTrainer that takes token ids, and says what it did."""

    reference_seconds = 0.0
    probing = False

    def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Token ids are there already; its own tokenization takes texts only."""
        return dataset

    def _precompute_ref_logps(self, *args: Any, **kwargs: Any) -> Any:
        if self.probing:  # any values will do: they change no time
            (dataset, *_) = args
            zeros = [0.0] * len(dataset)
            return dataset.add_column("ref_chosen_logps", zeros).add_column("ref_rejected_logps", zeros)
        began = time.perf_counter()
        result = super()._precompute_ref_logps(*args, **kwargs)
        self.reference_seconds += time.perf_counter() - began
        return result


def main() -> None:
    """Train the plan's one epoch."""
    side = open_side()
    plan, settings = side.plan, side.settings
    turns = Turns(side.steps, mean=True)
    batch = len(plan.batches[0])
    config = DPOConfig(
        **common_settings(plan, side.folder / "trl", settings, accumulation=batch // settings.micro_batch),
        max_length=None,
        beta=BETA,
        loss_type=["sigmoid"],
        precompute_ref_log_probs=True,
    )
    Recording.probing = side.job.get("probe", False)
    trainer = Recording(
        model=side.model,
        args=config,
        train_dataset=_dataset(plan, settings),
        processing_class=side.loaded.tokenizer,
        optimizers=optimizer_of(side.model, plan.rates),
        callbacks=[turns],
    )
    side.train(trainer, turns, reference_seconds=trainer.reference_seconds)


def _dataset(plan: Plan, settings: TrlSettings) -> Dataset:
    pairs = in_order(plan, settings)
    prompts = [next(t for t, weight in enumerate(one.weights) if weight) for one, _ in pairs]
    return Dataset.from_dict(
        {
            "prompt_ids": [list(one.ids[:cut]) for cut, (one, _) in zip(prompts, pairs, strict=True)],
            "chosen_ids": [list(one.ids[cut:]) for cut, (one, _) in zip(prompts, pairs, strict=True)],
            "rejected_ids": [list(other.ids[cut:]) for cut, (_, other) in zip(prompts, pairs, strict=True)],
        }
    )


if __name__ == "__main__":
    main()
