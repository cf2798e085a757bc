"""Writes the plan and the adapter that both sides start from, counts the work, and holds the gate."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import PeftModel

from bench.catalogue import WORKLOADS
from bench.plan import ALPHA, RANK, Plan, Row, deal
from bench.protocol import Line
from bench.work import count_work
from bench.workers.objective import REFERRED, items_of, method_of
from bench.workers.references import reference_logps
from bench.workers.sizes import model_sizes
from bench.workload import Example, TrainingWorkload
from luthier.chat import ChatFormat
from luthier.forest import logprobs
from luthier.methods import Method
from luthier.models import attach_adapter, load_model, save_adapter
from luthier.recipe import Adapter
from luthier.train.batches import epoch_batches
from luthier.train.schedule import peak_rate, rate_at

SEED = 0
HELD_OUT = 2  # batches
PREFERENCE_RATE = 5e-5  # the rule is for supervised fine-tuning, and far too high for preferences and rewards


def main() -> None:
    """One job in, one answer out."""
    line = Line()
    job = line.receive()
    torch.set_num_threads(job["threads"])
    folder, steps = Path(job["folder"]), job["steps"]
    workload = WORKLOADS[job["workload"]]
    assert isinstance(workload, TrainingWorkload)
    loaded = load_model(job["model"], device="cpu")
    examples = workload.examples(ChatFormat(loaded.tokenizer), (steps + HELD_OUT) * workload.batch)
    held_out = examples[:: steps // HELD_OUT + 1][: HELD_OUT * workload.batch]
    examples = [example for example in examples if example not in held_out][: steps * workload.batch]
    examples, batches, batch_tokens = _arrange(examples, steps, workload.batch)
    model = attach_adapter(loaded, Adapter(rank=RANK, alpha=ALPHA), seed=SEED)
    save_adapter(model, loaded.tokenizer, folder / "adapter", base_name="base")
    width = model.config.get_text_config().hidden_size
    peak = PREFERENCE_RATE if workload.objective in REFERRED else peak_rate("auto", hidden_size=width)
    plan = Plan(
        workload.objective,
        tuple(examples),
        tuple(held_out),
        batches,
        tuple(rate_at(step, steps=steps, peak=peak) for step in range(steps)),
        peak,
        SEED,
        batch_tokens,
        str(folder / "adapter"),
    )
    plan.save(folder / "plan.json")
    naive = PeftModel.from_pretrained(
        load_model(job["model"], device="cpu").model, plan.adapter, is_trainable=True
    )
    line.send(
        event="prepared",
        model=vars(model_sizes(model)),
        work=[vars(count_work([row for rows in plan.batch(step) for row in rows])) for step in range(steps)],
        peak_rate=peak,
        **gate(model, naive, plan.objective, plan.batch(0)),
    )


def file_order(lengths: Sequence[int], steps: int, batch: int) -> list[int]:
    """Indices in the file order that the loop's own shuffle turns into batches of one size."""
    dealt = [i for indices in deal(lengths, steps) for i in indices]
    alike = items_of([(Row((0,), (1.0,)),)] * len(lengths))
    order = [i for indices in epoch_batches(alike, batch_tokens=batch, seed=SEED, epoch=0) for i in indices]
    placed = list(order)
    for place, i in zip(order, dealt, strict=True):
        placed[place] = i
    return placed


def _arrange(
    examples: Sequence[Example], steps: int, batch: int
) -> tuple[list[Example], tuple[tuple[int, ...], ...], int]:
    """Examples in that order, the batches they make, and the tokens of one.

    Raises:
        ValueError: the loop makes other batches.
    """
    items = items_of(examples)
    placed = [examples[i] for i in file_order([item.tokens for item in items], steps, batch)]
    batch_tokens = round(sum(item.tokens for item in items) / steps)
    batches = epoch_batches(items_of(placed), batch_tokens=batch_tokens, seed=SEED, epoch=0)
    if [len(indices) for indices in batches] != [batch] * steps:
        raise ValueError(f"the loop makes batches of {[len(indices) for indices in batches]} examples")
    return placed, tuple(map(tuple, batches)), batch_tokens


def gate(
    model: PeftModel, naive: PeftModel, objective: str, examples: Sequence[Sequence[Row]]
) -> dict[str, float]:
    """Relative distance of loss and gradient to one row per sequence, on a plain PEFT model.

    The naive side sums its log-softmax in fp64: torch's fp32 log-softmax over 49,152 tokens is itself 3e-5
    off in the gradient, ten times more than the forest is; that distance is `plain_gradient_error`.
    """
    items = items_of(examples)
    for side in (model, naive):
        _draw_b(side)
        side.eval()
    references = reference_logps(naive, items) if objective in REFERRED else {}
    method = method_of(objective, references)
    rows = [row for example in examples for row in example]
    values = iter(logprobs(model, [row.ids for row in rows], needed=[row.needed for row in rows]))
    logps = [[next(values) for _ in example] for example in examples]
    loss = method.loss(items, logps) / method.total(items)
    shared = _gradient(model, loss)
    exact_loss, exact = _naive(naive, method, examples, torch.float64)
    _, plain = _naive(naive, method, examples, torch.float32)
    return {
        "loss_error": abs(loss.item() - exact_loss) / abs(exact_loss),
        "gradient_error": ((shared - exact).norm() / exact.norm()).item(),
        "plain_gradient_error": ((plain - exact).norm() / exact.norm()).item(),
    }


def _naive(
    model: PeftModel, method: Method, examples: Sequence[Sequence[Row]], dtype: torch.dtype
) -> tuple[float, torch.Tensor]:
    """Loss and gradient example by example, with the model's own forward pass."""
    items = items_of(examples)
    loss, gradient = 0.0, torch.zeros(())
    for item, rows in zip(items, examples, strict=True):
        values = []
        for row in rows:
            ids, where = torch.tensor(row.ids), torch.tensor(row.needed)
            logits = model(input_ids=ids[None], use_cache=False).logits[0, :-1][where].to(dtype)
            chosen = ids[1:][where]
            values.append(-torch.nn.functional.cross_entropy(logits, chosen, reduction="none"))
        part = method.loss([item], [values]) / method.total(items)
        loss += part.item()
        gradient = gradient + _gradient(model, part)
    return loss, gradient


def _draw_b(model: PeftModel) -> None:
    """B is zero in a fresh adapter, which would make every gradient of A zero."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in _trained(model):
            if "lora_B" in name:
                p.copy_(0.02 * torch.randn(p.shape, generator=generator))


def _gradient(model: PeftModel, loss: torch.Tensor) -> torch.Tensor:
    gradients = torch.autograd.grad(loss, [p for _, p in _trained(model)])
    return torch.cat([gradient.double().flatten() for gradient in gradients])


def _trained(model: PeftModel) -> list[tuple[str, torch.nn.Parameter]]:
    return sorted((name, p) for name, p in model.named_parameters() if p.requires_grad)


if __name__ == "__main__":
    main()
