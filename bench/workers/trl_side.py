"""What the TRL trainers share: how they begin, recording, turns, settings, optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import TrainerCallback

from bench.peers import TrlSettings
from bench.plan import Plan, Row, tokens_of
from bench.protocol import Line, Steps
from luthier.models import LoadedModel, load_model

REBALANCE_SEED = 42  # the default seed of Transformers' BatchRebalanceSampler, which the trainer leaves


@dataclass(frozen=True)
class Opening:
    """What a trainer is made of.

    Attributes:
        folder: where the plan lies, and what the trainer writes.
        loaded: the base; `model` is it with the plan's adapter, to be trained.
    """

    job: dict[str, Any]
    folder: Path
    plan: Plan
    settings: TrlSettings
    loaded: LoadedModel
    model: PeftModel
    steps: Steps

    def train(self, trainer: Any, turns: Turns, **facts: Any) -> None:
        """Report that all is ready, with these facts, and train as the parent says."""
        trainer.forget()
        turns.trainer = trainer
        self.steps.begin(**facts)
        trainer.train()


def open_side() -> Opening:
    """Take the job, and load what it names."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    loaded = load_model(job["model"], device="cpu")
    model = PeftModel.from_pretrained(loaded.model, plan.adapter, is_trainable=True)
    return Opening(job, folder, plan, TrlSettings(**job["settings"]), loaded, model, Steps(line))


class Records:
    """Mixed into a trainer: the losses it computes and the tokens it executes, since the last step."""

    losses: list[float]
    tokens: int
    executed: int

    def forget(self) -> None:
        """Start a new step."""
        self.losses, self.tokens, self.executed = [], 0, 0

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, noted: a sum over micro-batches is the loss of the step."""
        executed = inputs["input_ids"].numel()
        mask = inputs.get("attention_mask")
        self.executed += executed
        self.tokens += executed if mask is None else int(mask.sum())
        loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        self.losses.append(loss.item())
        return loss


class Turns(TrainerCallback):
    """Blocks the trainer at the end of every step.

    Args:
        mean: whether the micro-batches' losses are means, to be averaged rather than summed.
    """

    def __init__(self, steps: Steps, *, mean: bool) -> None:
        self.steps = steps
        self.mean = mean
        self.trainer: Any = None

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        """Report the step and wait."""
        records: Records = self.trainer
        loss = sum(records.losses) / (len(records.losses) if self.mean else 1)
        facts = {"loss": loss, "tokens": records.tokens, "executed": records.executed}
        records.forget()
        self.steps.end_step(**facts)


def in_order(plan: Plan, settings: TrlSettings) -> list[tuple[Row, ...]]:
    """Examples in the order that gives the trainer the plan's batches; in each, from long to short."""
    examples: list[tuple[Row, ...]] = []
    for step in range(plan.steps):
        examples += sorted(plan.batch(step), key=tokens_of, reverse=True)
    if settings.feeding != "rebalanced":
        return examples
    # the sampler shuffles and then takes batches off the front: undo its shuffle beforehand
    order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(REBALANCE_SEED)).tolist()
    placed = list(examples)
    for place, example in zip(order, examples, strict=True):
        placed[place] = example
    return placed


def common_settings(plan: Plan, folder: Path, settings: TrlSettings, *, accumulation: int) -> dict[str, Any]:
    """Arguments of all trainers' configurations."""
    strategies = {"grouped": "group_by_length", "rebalanced": "batch_rebalance"}
    return {
        "output_dir": str(folder),
        "use_cpu": True,
        "bf16": False,
        "max_steps": plan.steps,
        "per_device_train_batch_size": settings.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "train_sampling_strategy": strategies.get(settings.feeding, "sequential"),
        "max_grad_norm": 1.0,
        "gradient_checkpointing": False,
        "torch_compile": settings.compile,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "logging_nan_inf_filter": False,
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": plan.seed,
    }


def optimizer_of(
    model: PeftModel, rates: Sequence[float]
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
    """The trainer's own default (fused AdamW, these betas, no decay) with the plan's rates."""
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, betas=(0.9, 0.999), eps=1e-8, weight_decay=0.0, fused=True)
    # the scheduler is asked once more after the last step
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, len(rates) - 1)])
    return optimizer, schedule
