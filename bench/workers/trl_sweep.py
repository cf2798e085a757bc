"""The peer's side of a sweep: TRL's SFTTrainer once per learning rate, on one base in one process."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import torch
from peft import PeftModel
from transformers import PreTrainedModel
from trl import SFTTrainer  # type: ignore[attr-defined]

from bench.peers import TrlSettings
from bench.plan import Plan, tokens_of
from bench.protocol import Line, peak_bytes
from bench.workers.objective import items_of
from bench.workers.trl_sft import config_of, dataset_of
from bench.workers.trl_side import in_order, optimizer_of
from luthier.methods import SFT
from luthier.models import LoadedModel, load_model
from luthier.train import loop
from luthier.train.schedule import rate_at


def main() -> None:
    """One run for every "go"; the last report is of all of them."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    plan = Plan.load(folder / "plan.json")
    settings = TrlSettings(**job["settings"])
    line.send(event="ready", peak_bytes=peak_bytes())
    loaded: LoadedModel | None = None
    seconds = 0.0
    losses: dict[str, float] = {}
    for rate in job["rates"]:
        line.receive()
        began = time.perf_counter()
        loaded = loaded or load_model(job["model"], device="cpu")
        rates = tuple(rate_at(step, steps=plan.steps, peak=rate) for step in range(plan.steps))
        model = _run(loaded, replace(plan, rates=rates, peak=rate), folder / f"trl-{job['turn']}", settings)
        seconds += time.perf_counter() - began
        # one yardstick for both sides, beside the trainer's own validation, and not timed
        loss = loop.validation_loss(model, SFT(), items_of(plan.held_out))
        losses[str(rate)] = math.inf if loss is None else loss
        model.unload()  # type: ignore[operator]
        line.send(
            event="step",
            done=len(losses) == len(job["rates"]),
            seconds=seconds,
            peak_bytes=peak_bytes(),
            tokens=len(job["rates"]) * sum(map(tokens_of, plan.examples)),
            loss=min(losses.values()),
            losses=losses,
        )


def _run(loaded: LoadedModel, plan: Plan, folder: Path, settings: TrlSettings) -> PeftModel:
    """Train at one rate, then validate."""
    base: PreTrainedModel = loaded.model
    model = PeftModel.from_pretrained(base, plan.adapter, is_trainable=True)
    trainer = SFTTrainer(
        model=model,
        args=config_of(plan, folder, settings),
        train_dataset=dataset_of(in_order(plan, settings)),
        eval_dataset=dataset_of(plan.held_out),
        processing_class=loaded.tokenizer,
        optimizers=optimizer_of(model, plan.rates),
    )
    trainer.train()
    trainer.evaluate()
    return model


if __name__ == "__main__":
    main()
