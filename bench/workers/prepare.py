"""Writes the plan and the adapter that both sides start from, counts the work, and holds the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer

from bench.catalogue import SFT as WORKLOADS
from bench.plan import ALPHA, BATCH, RANK, Plan, Row
from bench.protocol import Line
from bench.work import Model, Work
from luthier.chat import ChatFormat, TrainingSequence
from luthier.forest import logprobs
from luthier.forest.layout import common_prefix, lay_out
from luthier.forest.logprobs import causal_lm
from luthier.methods import SFT, Item
from luthier.models import attach_adapter, load_model, save_adapter
from luthier.recipe import Adapter
from luthier.train.batches import epoch_batches
from luthier.train.schedule import peak_rate, rate_at

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
    base = causal_lm(model)
    config = base.config.get_text_config()
    layers = [module for module in base.modules() if isinstance(module, LoraLayer)]
    return Model(
        linear=sum(layer.get_base_layer().weight.numel() for layer in layers),  # type: ignore[operator,misc]
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


def _gate(model: PeftModel, rows: list[Row]) -> dict[str, float]:
    """Relative distance of loss and gradient to one row per sequence with the model's own forward pass.

    The naive side sums its log-softmax in fp64: torch's fp32 log-softmax over 49,152 tokens is itself 3e-5
    off in the gradient, ten times more than the forest is; that distance is `plain_gradient_error`.
    """
    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    _draw_b(parameters)
    model.eval()
    method, items = SFT(), items_of(rows)
    total = method.total(items)
    needed = [[w > 0 for w in row.weights[1:]] for row in rows]
    values = logprobs(model, [row.ids for row in rows], needed=needed)
    loss = method.loss(items, [[value] for value in values]) / total
    shared = _flat(torch.autograd.grad(loss, list(parameters.values())))

    naive, exact, plain = 0.0, torch.zeros_like(shared), torch.zeros_like(shared)
    for row, flags in zip(rows, needed, strict=True):
        ids, where = torch.tensor(row.ids), torch.tensor(flags)
        logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1][where]
        part = torch.nn.functional.cross_entropy(logits.double(), ids[1:][where], reduction="sum") / total
        exact += _flat(torch.autograd.grad(part, list(parameters.values()), retain_graph=True))
        naive += part.item()
        part = torch.nn.functional.cross_entropy(logits, ids[1:][where], reduction="sum") / total
        plain += _flat(torch.autograd.grad(part, list(parameters.values())))
    return {
        "loss_error": abs(loss.item() - naive) / abs(naive),
        "gradient_error": ((shared - exact).norm() / exact.norm()).item(),
        "plain_gradient_error": ((plain - exact).norm() / exact.norm()).item(),
    }


def _draw_b(parameters: dict[str, torch.nn.Parameter]) -> None:
    """B is zero in a fresh adapter, which would make every gradient of A zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in parameters.items():
            if "lora_B" in name:
                p.copy_(0.02 * torch.randn(p.shape, generator=generator))


def _flat(gradients: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.double().flatten() for gradient in gradients])


if __name__ == "__main__":
    main()
