"""Writes the plan and the adapter that both sides start from, counts the work, and holds the gate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from luthier.chat import ChatFormat, TrainingSequence
from luthier.forest import logprobs
from luthier.forest.layout import common_prefix, lay_out
from luthier.methods import SFT, Item
from luthier.models import attach_adapter, load_model, save_adapter
from luthier.recipe import Adapter
from luthier.train.batches import epoch_batches
from luthier.train.schedule import peak_rate, rate_at
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from bench.catalogue import SFT as WORKLOADS
from bench.plan import ALPHA, BATCH, RANK, Plan, Row
from bench.protocol import Line
from bench.work import Model, Work

SEEDS = 1000


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    loaded = load_model(job["model"], device="cpu")
    rows = WORKLOADS[job["workload"]].rows(ChatFormat(loaded.tokenizer), job["steps"] * BATCH)
    seed, batches, batch_tokens = _batches(rows, job["steps"])
    model = attach_adapter(loaded, Adapter(rank=RANK, alpha=ALPHA), seed=seed)
    save_adapter(model, loaded.tokenizer, folder / "adapter", base_name="base")
    peak = peak_rate("auto", hidden_size=model.config.get_text_config().hidden_size)
    rates = tuple(rate_at(step, steps=job["steps"], peak=peak) for step in range(job["steps"]))
    plan = Plan(tuple(rows), batches, rates, seed, batch_tokens, str(folder / "adapter"))
    plan.save(folder / "plan.json")
    line.send(
        event="prepared",
        model=vars(_measure_model(model)),
        work=[vars(_measure_work(plan.batch(step))) for step in range(plan.steps)],
        peak_rate=peak,
        **_gate(model, plan.batch(0)),
    )


def items_of(rows: list[Row]) -> list[Item]:
    """Rows as the training loop takes them."""
    return [Item(f"row {i}", (TrainingSequence(row.ids, row.weights),)) for i, row in enumerate(rows)]


def _batches(rows: list[Row], steps: int) -> tuple[int, tuple[tuple[int, ...], ...], int]:
    """The first seed for which the loop's own batches, even in tokens, have 8 rows each."""
    items = items_of(rows)
    batch_tokens = round(sum(item.tokens for item in items) / steps)
    for seed in range(SEEDS):
        batches = epoch_batches(items, batch_tokens=batch_tokens, seed=seed, epoch=0)
        if len(batches) == steps and all(len(batch) == BATCH for batch in batches):
            return seed, tuple(map(tuple, batches)), batch_tokens
    raise ValueError(f"none of {SEEDS} seeds gives batches of {BATCH} rows: ask for fewer pairs")


def _measure_model(model: PeftModel) -> Model:
    base = model.get_base_model()
    config = base.config.get_text_config()
    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    return Model(
        linear=sum(layer.get_base_layer().weight.numel() for layer in layers),
        adapter=sum(p.numel() for p in model.parameters() if p.requires_grad),
        width=config.hidden_size,
        vocabulary=base.get_output_embeddings().weight.shape[0],
        layers=config.num_hidden_layers,
        attention_width=config.num_attention_heads * config.head_dim,
    )


def _measure_work(rows: list[Row]) -> Work:
    layout = lay_out([row.ids for row in rows], [[w > 0 for w in row.weights[1:]] for row in rows])
    ordered = sorted(row.ids for row in rows)
    return Work(
        tokens=sum(len(row.ids) for row in rows),
        trained=int(sum(sum(row.weights) for row in rows)),
        executed=len(layout.tokens),
        predictions=len(layout.targets),
        pairs=int((layout.positions + 1).sum()),
        shared=common_prefix(ordered[0], ordered[-1]),
        longest=max(len(row.ids) for row in rows),
    )


def _gate(model: PeftModel, rows: list[Row]) -> dict[str, Any]:
    """Relative distance of loss and gradient to one row per sequence with the model's own forward pass.

    B = 0 in a fresh adapter, which makes every gradient of A zero: here B is drawn at random.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    before = {name: p.detach().clone() for name, p in parameters.items()}
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in parameters.items():
            if "lora_B" in name:
                p.copy_(0.02 * torch.randn(p.shape, generator=generator))
    model.eval()
    method, items = SFT(), items_of(rows)
    total = method.total(items)
    needed = [[w > 0 for w in row.weights[1:]] for row in rows]
    values = logprobs(model, [row.ids for row in rows], needed=needed)
    loss = method.loss(items, [[value] for value in values]) / total
    loss.backward()
    gradient = _take_gradient(parameters)

    naive = 0.0
    for row, flags in zip(rows, needed, strict=True):
        ids = torch.tensor(row.ids)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1]
        part = torch.nn.functional.cross_entropy(logits, ids[1:], reduction="none")[torch.tensor(flags)]
        (part.sum() / total).backward()
        naive += part.sum().item() / total
    expected = _take_gradient(parameters)
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(before[name])
    return {
        "loss_error": abs(loss.item() - naive) / abs(naive),
        "gradient_error": ((gradient - expected).norm() / expected.norm()).item(),
        "naive_loss": naive,
    }


def _take_gradient(parameters: dict[str, torch.nn.Parameter]) -> torch.Tensor:
    """All gradients as one fp64 vector; they are zero afterwards."""
    parts = []
    for p in parameters.values():
        assert p.grad is not None
        parts.append(p.grad.double().flatten())
        p.grad = None
    return torch.cat(parts)


if __name__ == "__main__":
    main()
