"""The peer's side on frozen rollouts: TRL's GRPOTrainer, its generation replaced by what the plan holds."""

from __future__ import annotations

import time
from typing import Any

import torch
from datasets import Dataset  # type: ignore[import-untyped]
from peft import PeftModel
from trl import GRPOConfig, GRPOTrainer  # type: ignore[attr-defined]

from bench.plan import KL, Row
from bench.w4_rollouts import advantages
from bench.workers.trl_side import Records, Turns, common_settings, in_order, open_side, optimizer_of


class Recording(Records, GRPOTrainer):
    """GRPOTrainer that learns from given answers, and says what it did."""

    frozen: list[dict[str, torch.Tensor]]

    def _generate_and_score_completions(self, inputs: Any) -> dict[str, torch.Tensor]:
        """The group of the prompt that the sampler repeats, copied: a step may be asked for twice."""
        return {name: value.clone() for name, value in self.frozen[int(inputs[0]["group"])].items()}

    def compute_loss(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """TRL's loss, noted."""
        shown = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
        return super().compute_loss(model, {**inputs, "input_ids": shown}, *args, **kwargs)


def main() -> None:
    """Train the plan's one epoch."""
    side = open_side()
    plan, settings = side.plan, side.settings
    groups = in_order(plan, settings)
    turns = Turns(side.steps, mean=False)
    answers = len(groups[0])
    config = GRPOConfig(
        **common_settings(plan, side.folder / "trl", settings, accumulation=answers // settings.micro_batch),
        num_generations=answers,
        beta=KL,
        loss_type="dapo",
        temperature=1.0,
        shuffle_dataset=False,
        remove_unused_columns=False,
    )
    trainer = Recording(
        model=side.model,
        args=config,
        reward_funcs=_unused,
        train_dataset=Dataset.from_dict({"prompt": [""] * len(groups), "group": list(range(len(groups)))}),
        processing_class=side.loaded.tokenizer,
        optimizers=optimizer_of(side.model, plan.rates),
        callbacks=[turns],
    )
    began = time.perf_counter()
    known = not side.job.get("probe", False)  # in a probe any values will do: they change no time
    trainer.frozen = [_freeze(trainer, side.model, group, settings.micro_batch, known) for group in groups]
    side.train(trainer, turns, reference_seconds=time.perf_counter() - began)


def _unused(**given: Any) -> list[float | None]:
    raise RuntimeError("nothing is generated, so nothing is rewarded")


def _freeze(
    trainer: Any, model: PeftModel, group: tuple[Row, ...], batch: int, known: bool
) -> dict[str, torch.Tensor]:
    """A group as TRL's own generation would return it."""
    cut = next(t for t, weight in enumerate(group[0].weights) if weight)
    ids = torch.tensor([row.ids for row in group])
    mask = torch.ones_like(ids)
    reference = torch.zeros(len(group), ids.shape[1] - cut)
    if known:
        with torch.no_grad(), model.disable_adapter():
            reference = trainer._get_per_token_logps_and_entropies(
                model, ids, mask, ids.shape[1] - cut, batch_size=batch
            )[0]
    return {
        "prompt_ids": ids[:, :cut],
        "prompt_mask": mask[:, :cut],
        "completion_ids": ids[:, cut:],
        "completion_mask": mask[:, cut:],
        "advantages": torch.tensor(advantages([row.ids for row in group])),
        "ref_per_token_logps": reference,
        "num_items_in_batch": mask[:, cut:].sum(),
    }


if __name__ == "__main__":
    main()
