"""Weights, several targets at a node, targets inside shared prefixes, dropout."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from test_forest_logprobs import FOREST, SEQUENCES, model_of
from tiny_models import plain_logprobs, relative_error, tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning


def weighted_gradients(
    model: Any, values: list[torch.Tensor], weights: list[list[float]]
) -> dict[str, torch.Tensor]:
    model.zero_grad()
    total = sum((v * torch.tensor(w)).sum() for v, w in zip(values, weights, strict=True))
    assert torch.is_tensor(total)
    if total.requires_grad:
        total.backward()
    named = {n: p for n, p in model.named_parameters() if p.requires_grad}
    return {n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in named.items()}


@settings(max_examples=10)
@given(data=st.data())
def test_every_token_may_have_a_weight_of_its_own(data: st.DataObject) -> None:
    model = model_of("llama", True)
    sequences = data.draw(SEQUENCES)
    weights = [
        data.draw(st.lists(st.floats(-2, 2, width=32), min_size=len(s) - 1, max_size=len(s) - 1))
        for s in sequences
    ]
    got = weighted_gradients(model, logprobs(model, sequences), weights)
    wanted = weighted_gradients(model, [plain_logprobs(model, s) for s in sequences], weights)
    largest = max([float(g.abs().max()) for g in wanted.values()] + [1e-3])
    assert all(float((got[n] - wanted[n]).abs().max()) <= 1e-5 * largest for n in wanted)


def test_several_targets_at_one_node() -> None:
    """After [3, 4] come 5, 6 and 7: three log-probabilities of one distribution, each with its own weight."""
    model = model_of("llama", True)
    rows = [[3, 4, 5], [3, 4, 6], [3, 4, 7], [3, 4, 6]]
    values = logprobs(model, rows, needed=[[False, True]] * 4)
    logits = model(input_ids=torch.tensor([[3, 4]]), use_cache=False).logits[0, 1].float()
    expected = torch.log_softmax(logits, dim=0)[torch.tensor([5, 6, 7, 6])]
    assert relative_error(torch.cat(values), expected) < 1e-5
    # d/dz of sum_k w_k log p_k = sum_k w_k (onehot_k - p): a check that needs no second backward pass
    probability = torch.softmax(logits.detach(), dim=0)
    weights = [1.0, 2.0, -1.0, 0.5]
    slope = -sum(weights) * probability
    for target, weight in zip([5, 6, 7, 6], weights, strict=True):
        slope[target] += weight
    model.zero_grad()
    logits.backward(slope)
    wanted = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    got = weighted_gradients(model, logprobs(model, rows, needed=[[False, True]] * 4), [[w] for w in weights])
    for name, gradient in wanted.items():
        assert relative_error(got[name], gradient) < 1e-4


def test_a_target_inside_a_shared_prefix_counts_once_for_each_sequence() -> None:
    """Five sequences share 3 -> 4, and one of them is only that: its gradient is five times that of one."""
    model = model_of("llama", True)
    rows = [[3, 4, 5, 6], [3, 4, 5], [3, 4, 7], [3, 4], [3, 4, 5, 6]]
    flags = [[True] + [False] * (len(row) - 2) for row in rows]
    got = weighted_gradients(model, logprobs(model, rows, needed=flags), [[1.0]] * 5)
    alone = weighted_gradients(model, [plain_logprobs(model, [3, 4])], [[5.0]])
    largest = max(float(g.abs().max()) for g in alone.values())
    assert all(float((got[n] - alone[n]).abs().max()) <= 1e-5 * largest for n in alone)


# Dropout -------------------------------------------------------------------------------------------


def test_dropout_in_an_adapter_is_that_of_rows_on_their_own() -> None:
    """One mask for a shared token would be the same in all sequences: nothing is shared, and it is said."""
    model = with_lora(tiny("llama"), lora_dropout=0.5).train()
    with pytest.warns(FallbackWarning, match="dropout in .*lora_dropout"):
        torch.manual_seed(7)
        got = logprobs(model, FOREST)
    torch.manual_seed(7)
    expected = [plain_logprobs(model, row) for row in FOREST]
    assert relative_error(torch.cat(got), torch.cat(expected)) < 1e-5
    assert relative_error(torch.cat(got), torch.cat(logprobs(model.eval(), FOREST))) > 1e-2
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        values = logprobs(model, FOREST)  # in evaluation mode it is off, and tokens are shared again
    assert relative_error(torch.cat(values), torch.cat([plain_logprobs(model, row) for row in FOREST])) < 1e-5


@pytest.mark.parametrize("options", [{"resid_pdrop": 0.3}, {"embd_pdrop": 0.3}, {"attn_pdrop": 0.3}])
def test_dropout_of_the_base_is_not_shared_either(options: dict[str, float]) -> None:
    model = tiny("gpt2", **options).train()
    with pytest.warns(FallbackWarning, match=next(iter(options))):
        torch.manual_seed(7)
        got = logprobs(model, FOREST)
    torch.manual_seed(7)
    assert relative_error(torch.cat(got), torch.cat([plain_logprobs(model, row) for row in FOREST])) < 1e-5


def test_no_dropout_no_warning() -> None:
    model = with_lora(tiny("llama"), lora_dropout=0.0).train()
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)
        got = logprobs(model, FOREST)
    assert relative_error(torch.cat(got), torch.cat([plain_logprobs(model, row) for row in FOREST])) < 1e-5
