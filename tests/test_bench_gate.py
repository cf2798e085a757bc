"""The gate before timing, and the order of examples that gives both sides the same batches."""

from __future__ import annotations

import random
from pathlib import Path
from typing import cast

import pytest
import torch
from peft import PeftModel
from tiny_models import tiny

from bench.plan import Plan, Row
from bench.workers.objective import items_of
from bench.workers.prepare import SEED, _arrange, _draw_b, gate
from bench.workers.references import reference_logps
from bench.workers.sizes import model_sizes
from luthier.forest import logprobs
from luthier.models import LoadedModel, attach_adapter, save_adapter
from luthier.recipe import Adapter
from luthier.train.batches import epoch_batches

Pair = tuple[Row, ...]


def adapted(loaded: LoadedModel) -> PeftModel:
    model = attach_adapter(
        LoadedModel(tiny("llama", vocab_size=97), loaded.tokenizer, "tiny"), Adapter(), seed=0
    )
    return cast(PeftModel, model)


def example(*parts: int, prompt: int = 3, answers: int = 1) -> Pair:
    """`answers` sequences of 8 tokens that share a prompt."""
    head = [5 + part for part in parts][:prompt]
    tails = [[20 + 7 * answer + t for t in range(8 - prompt)] for answer in range(answers)]
    return tuple(Row((*head, *tail), (0.0,) * prompt + (1.0,) * (8 - prompt)) for tail in tails)


@pytest.mark.parametrize(("objective", "answers"), [("sft", 1), ("dpo", 2), ("grpo", 8)])
def test_the_gate_passes_what_is_right_and_sees_what_is_not(
    objective: str, answers: int, loaded: LoadedModel
) -> None:
    examples = [example(1, 2, third, answers=answers) for third in (3, 4)]
    own, naive = adapted(loaded), adapted(loaded)
    errors = gate(own, naive, objective, examples)
    assert max(errors["loss_error"], errors["gradient_error"]) < 1e-5
    with torch.no_grad():
        naive.get_base_model().model.layers[0].self_attn.q_proj.weight.mul_(1.01)
    errors = gate(own, naive, objective, examples)
    assert min(errors["loss_error"], errors["gradient_error"]) > 1e-5


def test_references_are_taken_with_the_adapter_off(loaded: LoadedModel) -> None:
    model, items = adapted(loaded), items_of([example(1, 2, 3, answers=2)])
    before = reference_logps(model, items)
    _draw_b(model)
    for one, other in zip(reference_logps(model, items)[items[0].where], before[items[0].where], strict=True):
        assert torch.equal(one, other)
    rows = [list(sequence.ids) for sequence in items[0].sequences]
    needed = [[weight > 0 for weight in sequence.weights[1:]] for sequence in items[0].sequences]
    with torch.no_grad():
        live = [float(values.sum()) for values in logprobs(model, rows, needed=needed)]
    assert abs(live[0] - float(before[items[0].where][0].sum())) > 1e-3


def test_sizes_of_a_model(loaded: LoadedModel) -> None:
    """Two layers of 32 dimensions: q 32, k and v 16, o 32, gate, up and down 48; rank 16 on both sides."""
    sizes = model_sizes(adapted(loaded))
    shapes = [(32, 32), (16, 32), (16, 32), (32, 32), (48, 32), (48, 32), (32, 48)]
    assert sizes.linear == 2 * sum(a * b for a, b in shapes)
    assert sizes.adapter == 2 * sum(16 * (a + b) for a, b in shapes)
    assert (sizes.width, sizes.vocabulary, sizes.layers, sizes.attention_width) == (32, 97, 2, 32)


def test_the_loop_makes_the_batches_that_were_dealt() -> None:
    dice = random.Random(0)
    lengths = [dice.randint(30, 600) for _ in range(48)]
    examples: list[Pair] = [(Row((i,) * n, (1.0,) * n),) for i, n in enumerate(lengths)]
    placed, batches, batch_tokens = _arrange(examples, 6, 8)
    assert sorted(placed, key=lambda e: e[0].ids) == sorted(examples, key=lambda e: e[0].ids)
    found = epoch_batches(items_of(placed), batch_tokens=batch_tokens, seed=SEED, epoch=0)
    assert tuple(map(tuple, found)) == batches
    assert [len(batch) for batch in batches] == [8] * 6
    totals = [sum(len(placed[i][0].ids) for i in batch) for batch in batches]
    assert max(totals) < 1.1 * min(totals)


def test_an_adapter_of_luthier_is_the_peers_start(loaded: LoadedModel, tmp_path: Path) -> None:
    """The folder in the plan loads as plain PEFT with the same weights."""
    folder = tmp_path / "adapter"
    model = adapted(loaded)
    save_adapter(model, loaded.tokenizer, folder, base_name="base")
    plan = Plan("sft", (), (), (), (), 0.1, 0, 1, str(folder))
    peer = PeftModel.from_pretrained(tiny("llama", vocab_size=97), plan.adapter, is_trainable=True)
    own = dict(model.named_parameters())
    for name, p in peer.named_parameters():
        if p.requires_grad:
            assert torch.equal(p, own[name])
