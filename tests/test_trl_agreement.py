"""Step for step against TRL: the same data, adapter, order, optimizer and schedule give the same losses.

TRL's trainers train a plain PEFT model on padded batches; Luthier's loop trains its own on forests of small
micro-batches. What TRL has under another name is compared there:

- continued pre-training: SFT on texts whose first token, which is predicted from nothing, has no label;
- label smoothing of DPO: `aot_unpaired` with one pair per step, where its sorting sorts nothing;
- DPO without a reference: CPO (`sigmoid`, alpha 0), with label smoothing and without;
- SimPO: CPO (`simpo`, alpha 0);
- ORPO: TRL imitates prompt and answer, as a mean over all tokens of a batch, where the paper imitates the
  answer. With prompts of one token, which is predicted from nothing, and chosen answers of one length these
  are the same. (Its odds ratio alone: test_method_orpo.py.)
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import chatml_tokenizer
from peft import LoraConfig, get_peft_model
from tiny_models import tiny
from torch.utils.data import DataLoader

from luthier.chat import TrainingSequence
from luthier.forest import score
from luthier.methods import CPT, DPO, KTO, ORPO, SFT, Item, Method, SimPO
from luthier.methods.method import Mismatch
from luthier.models import LoadedModel, attach_adapter
from luthier.recipe import Adapter, Train
from luthier.train import train
from luthier.train.batches import batches_per_epoch, epoch_batches
from luthier.train.schedule import rate_at

pytest.importorskip("trl")
# what TRL, accelerate and datasets warn of is theirs
pytestmark = pytest.mark.filterwarnings("ignore")

SEED, RATE, EPOCHS = 3, 5e-3, 4


@dataclass(frozen=True)
class Case:
    """One objective on both sides.

    Attributes:
        trainer: of TRL; `options` are those of its configuration.
        prompt, chosen: least and most tokens.
        batch_tokens: 1 for steps of one item.
    """

    name: str
    method: Method
    trainer: str
    options: dict[str, Any]
    prompt: tuple[int, int] = (2, 6)
    chosen: tuple[int, int] = (1, 8)
    batch_tokens: int = 60


CASES = [
    Case("sft", SFT(), "SFT", {}, batch_tokens=40),
    Case("cpt", CPT(), "SFT", {}, prompt=(1, 1), batch_tokens=25),
    Case("dpo", DPO(beta=0.3), "DPO", {"beta": 0.3, "loss_type": ["sigmoid"]}),
    Case(
        "dpo-norm",
        DPO(beta=2.0, loss_type="sigmoid_norm"),
        "DPO",
        {"beta": 2.0, "loss_type": ["sigmoid_norm"]},
    ),
    Case("ipo", DPO(beta=0.5, loss_type="ipo"), "DPO", {"beta": 0.5, "loss_type": ["ipo"]}),
    Case("hinge", DPO(beta=0.4, loss_type="hinge"), "DPO", {"beta": 0.4, "loss_type": ["hinge"]}),
    Case(
        "dpo-smoothed",
        DPO(beta=0.3, label_smoothing=0.2),
        "DPO",
        {"beta": 0.3, "loss_type": ["aot_unpaired"], "label_smoothing": 0.2},
        batch_tokens=1,
    ),
    Case(
        "dpo-free",
        DPO(beta=0.2, reference_free=True),
        "CPO",
        {"beta": 0.2, "loss_type": "sigmoid", "cpo_alpha": 0.0},
    ),
    Case(
        "dpo-free-smoothed",
        DPO(beta=0.2, reference_free=True, label_smoothing=0.1),
        "CPO",
        {"beta": 0.2, "loss_type": "sigmoid", "cpo_alpha": 0.0, "label_smoothing": 0.1},
    ),
    Case(
        "simpo",
        SimPO(beta=2.5, gamma=0.8),
        "CPO",
        {"beta": 2.5, "loss_type": "simpo", "cpo_alpha": 0.0, "simpo_gamma": 0.8},
    ),
    Case("orpo", ORPO(beta=0.3), "ORPO", {"beta": 0.3}, prompt=(1, 1), chosen=(5, 5), batch_tokens=45),
    Case(
        "kto",
        KTO(beta=0.3, desirable_weight=1.2, undesirable_weight=0.7),
        "KTO",
        {"beta": 0.3, "desirable_weight": 1.2, "undesirable_weight": 0.7},
        batch_tokens=25,
    ),
]
FAST = ("sft", "dpo", "kto")


@pytest.mark.parametrize(
    "case",
    [pytest.param(case, marks=() if case.name in FAST else pytest.mark.slow) for case in CASES],
    ids=lambda case: case.name,
)
def test_losses_are_trls_step_for_step(case: Case, tmp_path: Path) -> None:
    items = made_up_items(case)
    batches = batches_of(case, items)
    assert len(batches) >= 10
    assert case.batch_tokens == 1 or len({len(batch) for batch in batches}) > 1  # batches are not alike
    ours = luthier_losses(case, items, tmp_path)
    theirs, points = trl_losses(case, items, batches, tmp_path)
    assert len(ours) == len(theirs) == len(batches)
    assert ours == pytest.approx(theirs, abs=1e-4)
    assert max(abs(a - b) for a, b in pairwise(ours)) > 1e-3  # something was learnt
    assert abs(ours[-1] - ours[0]) > 1e-2
    assert not points or max(points) > 0.1  # the reference point of KTO took part


# --- data ---------------------------------------------------------------------------------------


def made_up_items(case: Case) -> list[Item]:
    """Random tokens; with what the base model gives them, where the method compares with it."""
    dice = random.Random(SEED)

    def tokens(least: int, most: int) -> list[int]:
        return [dice.randint(3, 90) for _ in range(dice.randint(least, most))]

    items: list[Item] = []
    answers = [tokens(*case.chosen) for _ in range(12)]
    for number, chosen in enumerate(answers):
        prompt = tokens(*case.prompt)
        if isinstance(case.method, KTO):  # a few answers to many prompts: what is learnt of one tells of all
            mismatch = Mismatch(after(prompt, answers[(number + 1) % 4]))
            item = Item(
                "", (after(prompt, answers[number % 4]),), wanted=(number % 4 != 3,), mismatch=mismatch
            )
        elif case.trainer == "SFT":
            item = Item("", (after(prompt, chosen),))
        else:
            pair = after(prompt, chosen), after(prompt, tokens(1, 8))
            item = Item("", pair, wanted=(True, False))
        items.append(with_reference(item) if case.method.needs_reference else item)
    return items


def after(prompt: Sequence[int], answer: Sequence[int]) -> TrainingSequence:
    return TrainingSequence((*prompt, *answer), (0.0,) * len(prompt) + (1.0,) * len(answer))


def with_reference(item: Item) -> Item:
    own = score(base(), [sequence.ids for sequence in item.sequences], needed=item.flags)
    item = replace(item, reference=tuple(float(values.double().sum()) for values in own))
    if item.mismatch is None:
        return item
    (other,) = score(base(), [item.mismatch.sequence.ids], needed=[item.mismatch.flags])
    return replace(item, mismatch=replace(item.mismatch, reference=float(other.double().sum())))


def batches_of(case: Case, items: Sequence[Item]) -> list[list[int]]:
    """The steps that Luthier's loop makes."""
    return [
        batch
        for epoch in range(EPOCHS)
        for batch in epoch_batches(items, batch_tokens=case.batch_tokens, seed=SEED, epoch=epoch)
    ]


@cache
def tokenizer() -> Any:
    """TRL wants one with a padding token; nothing is tokenized."""
    found = chatml_tokenizer()
    found.pad_token = found.eos_token
    return found


@cache
def base() -> Any:
    """The model before training; nobody trains this one."""
    return fresh().model


def fresh() -> LoadedModel:
    model = tiny("llama", vocab_size=len(tokenizer()), initializer_range=0.2)
    return LoadedModel(model.requires_grad_(False), tokenizer(), "tiny")


# --- Luthier ------------------------------------------------------------------------------------


def luthier_model() -> Any:
    return attach_adapter(fresh(), Adapter(kind="lora", rank=4), seed=SEED)


def luthier_losses(case: Case, items: Sequence[Item], folder: Path) -> list[float]:
    train(
        luthier_model(),
        case.method,
        items,
        [],
        Train(epochs=EPOCHS, learning_rate=RATE, batch_tokens=case.batch_tokens),
        peak=RATE,
        seed=SEED,
        folder=folder / "luthier",
        key="k",
        micro_tokens=24,  # several forests for most steps
    )
    lines = (folder / "luthier/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [row["loss"] for row in map(json.loads, lines) if "loss" in row]


# --- TRL ----------------------------------------------------------------------------------------


def trl_losses(
    case: Case, items: Sequence[Item], batches: list[list[int]], folder: Path
) -> tuple[list[float], list[float]]:
    """Losses, and the reference points where there are any."""
    from datasets import Dataset

    trainer_of, config_of = classes(case.trainer)
    losses: list[float] = []
    points: list[float] = []

    class Recording(trainer_of):  # type: ignore[misc, valid-type]
        """The trainer, which takes token ids and given batches, and notes its losses."""

        def _prepare_dataset(self, dataset: Any, *args: Any, **kwargs: Any) -> Any:
            return dataset

        @staticmethod
        def tokenize_row(row: dict[str, Any]) -> dict[str, Any]:
            return row

        def get_train_dataloader(self) -> Any:
            return DataLoader(self.train_dataset, batch_sampler=batches, collate_fn=self.data_collator)

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            loss = super().compute_loss(*args, **kwargs)
            losses.append(loss.item())
            if case.trainer == "KTO":
                points.append(self._metrics["train"]["kl"][-1])
            return loss

    model = get_peft_model(
        fresh().model, LoraConfig(r=4, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    copy_adapter(luthier_model(), model)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1.0, betas=(0.9, 0.999), weight_decay=0.0)
    steps = batches_per_epoch(items, case.batch_tokens) * EPOCHS
    rates = [rate_at(step, steps=steps, peak=RATE) for step in range(steps)]
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rates[min(step, steps - 1)])
    config = config_of(
        output_dir=str(folder / "trl"),
        use_cpu=True,
        bf16=False,
        num_train_epochs=1,
        per_device_train_batch_size=4,  # of no effect: the batches are given
        max_grad_norm=1.0,
        gradient_checkpointing=False,
        remove_unused_columns=False,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        max_length=None if case.trainer in ("DPO", "KTO") else 64,
        **case.options,
    )
    trainer = Recording(
        model=model,
        args=config,
        train_dataset=Dataset.from_list([row_of(case, item) for item in items]),
        processing_class=tokenizer(),
        optimizers=(optimizer, schedule),
    )
    trainer.train()
    return losses, points


def classes(name: str) -> tuple[Any, Any]:
    if name in ("SFT", "DPO", "KTO"):
        import trl

        return getattr(trl, f"{name}Trainer"), getattr(trl, f"{name}Config")
    if name == "CPO":
        from trl.experimental.cpo import CPOConfig, CPOTrainer

        return CPOTrainer, CPOConfig
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    return ORPOTrainer, ORPOConfig


def copy_adapter(source: Any, target: Any) -> None:
    ours = {name: p for name, p in source.named_parameters() if p.requires_grad}
    theirs = {name: p for name, p in target.named_parameters() if p.requires_grad}
    assert ours.keys() == theirs.keys()
    for name, parameter in theirs.items():
        parameter.data.copy_(ours[name].data)


def row_of(case: Case, item: Item) -> dict[str, Any]:
    """The item as the trainer's own preparation leaves a row."""
    cuts = [sequence.prompt_tokens for sequence in item.sequences]
    ids = [list(sequence.ids) for sequence in item.sequences]
    if case.trainer == "KTO":
        assert item.mismatch is not None
        other = list(item.mismatch.sequence.ids)
        return {
            "prompt_ids": ids[0][: cuts[0]],
            "completion_ids": ids[0][cuts[0] :],
            "KL_completion_ids": other[cuts[0] :],
            "label": item.wanted[0],
        }
    if case.trainer == "DPO":
        return {
            "prompt_ids": ids[0][: cuts[0]],
            "chosen_ids": ids[0][cuts[0] :],
            "rejected_ids": ids[1][cuts[1] :],
        }
    if case.trainer == "SFT":
        return {"input_ids": ids[0], "labels": [-100] * cuts[0] + ids[0][cuts[0] :]}
    row: dict[str, Any] = {}
    for name, own, cut in zip(("chosen", "rejected"), ids, cuts, strict=True):
        row[f"{name}_input_ids"] = own
        row[f"{name}_attention_mask"] = [1] * len(own)
        row[f"{name}_labels"] = [-100] * cut + own[cut:]
    return row
