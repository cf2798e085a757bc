"""The peer's side: TRL's SFTTrainer on a PEFT model, one step per go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from transformers import TrainerCallback
from trl import SFTConfig, SFTTrainer  # type: ignore[attr-defined]

from bench.plan import BATCH, Plan
from bench.protocol import Line, Steps
from luthier.models import load_model


class Recording(SFTTrainer):
    """SFTTrainer that notes the loss it computes and the tokens it executes."""

    losses: list[float]
    executed: int

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, noted: a sum over micro-batches is the loss of the step."""
        self.executed += inputs["input_ids"].numel()
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[no-untyped-call]
        self.losses.append(loss.item())
        return loss


class Turns(TrainerCallback):
    """Blocks the trainer at the end of every step."""

    def __init__(self, steps: Steps) -> None:
        self.steps = steps
        self.trainer: Recording | None = None

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Report the step and wait."""
        assert self.trainer is not None
        loss, executed = sum(self.trainer.losses), self.trainer.executed
        self.trainer.losses, self.trainer.executed = [], 0
        self.steps.end_step(loss=loss, executed=executed)


def main() -> None:
    """Train the plan's one epoch."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    loaded = load_model(job["model"], device="cpu")
    model = PeftModel.from_pretrained(loaded.model, plan.adapter, is_trainable=True)
    turns = Turns(Steps(line))
    trainer = Recording(
        model=model,
        args=_settings(plan, folder / "trl", job["settings"]),
        train_dataset=_dataset(plan),
        processing_class=loaded.tokenizer,
        optimizers=_optimizer(model, plan),
        callbacks=[turns],
    )
    trainer.losses, trainer.executed = [], 0
    turns.trainer = trainer
    turns.steps.begin()
    trainer.train()


def _settings(plan: Plan, folder: Path, settings: dict[str, Any]) -> SFTConfig:
    micro = settings["micro_batch"]
    return SFTConfig(
        output_dir=str(folder),
        use_cpu=True,
        bf16=False,
        max_steps=plan.steps,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=BATCH // micro,
        train_sampling_strategy="sequential",
        max_grad_norm=1.0,
        max_length=None,
        padding_free=settings["padding_free"],
        packing=False,
        gradient_checkpointing=False,
        torch_compile=settings["compile"],
        dataloader_pin_memory=False,
        logging_strategy="no",
        logging_nan_inf_filter=False,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        seed=plan.seed,
    )


def _dataset(plan: Plan) -> Dataset:
    """Rows in the order of the batches; -100 is the label of a token without weight."""
    rows = [row for step in range(plan.steps) for row in plan.batch(step)]
    return Dataset.from_dict(
        {
            "input_ids": [list(row.ids) for row in rows],
            "labels": [
                [token if weight else -100 for token, weight in zip(row.ids, row.weights, strict=True)]
                for row in rows
            ],
        }
    )


def _optimizer(
    model: PeftModel, plan: Plan
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The trainer's own default (fused AdamW, these betas, no decay) with the plan's rates."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    # the scheduler is asked once more after the last step
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: plan.rates[min(step, plan.steps - 1)]
    )
    return optimizer, schedule


if __name__ == "__main__":
    main()
