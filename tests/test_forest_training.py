"""Gradients of everything that can be trained, through a forest; and what must be refused, not wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest
import torch
from exactness import check, gradient_error, gradients, in_float64, one_by_one, value_error
from forests import Forest, forests
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from test_forest_logprobs import FOREST
from tiny_models import tiny, with_lora

from luthier.forest import logprobs
from luthier.forest.logprobs import can_share

# What is trained ------------------------------------------------------------------------------------


@pytest.mark.parametrize("tied", [False, True], ids=["own head", "tied head"])
@pytest.mark.parametrize("kind", ["llama", "qwen2", "gemma2", "gpt2", "granite", "mixtral"])
def test_full_fine_tuning(kind: str, tied: bool) -> None:
    """Embeddings, norms, biases, routers; a tied head is trained through both of its uses."""
    model = tiny(kind, tie_word_embeddings=tied)
    head, words = model.get_output_embeddings().weight, model.get_input_embeddings().weight
    assert (head is words) == tied
    assert all(p.requires_grad for p in model.parameters())
    check(model, FOREST)
    seen = gradients(model, logprobs(model, FOREST))
    assert all(
        bool(seen[name].any()) for name in seen if "embed" in name or "lm_head" in name or "norm" in name
    )


@pytest.mark.parametrize("part", ["embed_tokens", "lm_head", "layers.0", "layers.1.mlp", "norm"])
def test_a_part_of_the_model(part: str) -> None:
    """Freezing by layer: no gradient elsewhere, and the same one here."""
    model = tiny("llama", tie_word_embeddings=False).requires_grad_(False)
    chosen = [p for name, p in model.named_parameters() if part in name]
    for parameter in chosen:
        parameter.requires_grad_(True)
    check(model, FOREST)
    gradients(model, logprobs(model, FOREST))
    assert sum(p.grad is not None for p in model.parameters()) == len(chosen) > 0


ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rank-stabilised": {"use_rslora": True},
    "dora": {"use_dora": True},
    "all biases": {"bias": "all"},
    "adapters' biases": {"lora_bias": True, "target_modules": ["q_proj", "k_proj"]},
    "whole embeddings": {"modules_to_save": ["embed_tokens"]},
    "whole head": {"modules_to_save": ["lm_head"]},
    "some tokens": {"trainable_token_indices": [3, 5, 7]},
    "adapted embeddings": {"target_modules": ["q_proj", "down_proj", "embed_tokens"]},
    "adapted head": {"target_modules": ["v_proj", "lm_head"]},
    "some layers": {"target_modules": ["q_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("adapter", ADAPTERS)
def test_adapters(adapter: str) -> None:
    """A and B, and what else an adapter trains; in training mode, with dropout 0."""
    torch.manual_seed(1)
    config = LoraConfig(r=4, **({"target_modules": "all-linear"} | ADAPTERS[adapter]))
    model = get_peft_model(tiny("qwen2", tie_word_embeddings=False), config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1)  # B and DoRA's magnitudes start where a gradient hides
    model.train()
    check(model, FOREST)
    assert can_share(model)
    assert model.training


def test_an_adapter_that_is_switched_off() -> None:
    model = with_lora(tiny("llama"))
    adapted = logprobs(model, FOREST)
    with model.disable_adapter():
        plain = logprobs(model, FOREST)
        assert value_error(plain, one_by_one(model, FOREST)) < 1e-5
    assert value_error(plain, logprobs(tiny("llama"), FOREST)) < 1e-6
    assert value_error(plain, adapted) > 1e-3


@cache
def _lora() -> Any:
    return with_lora(tiny("mistral"))


@settings(max_examples=12)
@given(sequences=forests(max_sequences=8, max_length=12), seed=st.integers(0, 99))
def test_gradient_of_a_weighted_sum_over_sequences(sequences: Forest, seed: int) -> None:
    """One weight a sequence, as preference losses give: a shared target counts once for each sequence."""
    model, dice = _lora(), torch.Generator().manual_seed(seed)
    weights = torch.randn(len(sequences), generator=dice).tolist()
    wide = in_float64(model)
    slopes = []
    for each, values in ((model, logprobs(model, sequences)), (wide, one_by_one(wide, sequences))):
        each.zero_grad()
        total = sum(w * v.sum() for w, v in zip(weights, values, strict=True))
        if torch.is_tensor(total) and total.requires_grad:
            total.backward()
        slopes.append({n: _gradient(p) for n, p in each.named_parameters() if p.requires_grad})
    # sequences with opposite weights take most of each other's gradient away: rounding is all that is left
    norm = sum(float(g.norm()) ** 2 for g in slopes[1].values()) ** 0.5
    size = sum(abs(w) * (len(s) - 1) for w, s in zip(weights, sequences, strict=True))
    assert gradient_error(*slopes)[0] < 1e-5 * max(1.0, size / max(norm, 1e-3))


def _gradient(parameter: torch.Tensor) -> torch.Tensor:
    return torch.zeros_like(parameter) if parameter.grad is None else parameter.grad.clone()


def test_a_graph_may_be_used_twice_and_losses_added() -> None:
    model = _lora()
    values = logprobs(model, FOREST)
    model.zero_grad()
    values[0].sum().backward(retain_graph=True)
    values[1].sum().backward()
    got = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    again = logprobs(model, FOREST)
    (again[0].sum() + again[1].sum()).backward()
    wanted = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert gradient_error(got, wanted)[0] < 1e-5


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_without_gradients(mode: Any) -> None:
    model = tiny("gemma2")
    with mode():
        values = logprobs(model, FOREST)
    assert not any(v.requires_grad for v in values)
    assert value_error(values, one_by_one(model, FOREST)) < 1e-5
    check(model, FOREST)  # nothing of it was kept


# What must be as it was -----------------------------------------------------------------------------


@contextlib.contextmanager
def _breaking(model: Any, error: BaseException) -> Iterator[None]:
    def refuse(*_: Any) -> None:
        raise error

    handle = model.model.layers[1].mlp.register_forward_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize("error", [MemoryError(), KeyboardInterrupt(), RuntimeError("out of memory")])
@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
def test_the_attention_comes_back_after_an_exception(implementation: str, error: BaseException) -> None:
    model = tiny("qwen3")
    model.set_attn_implementation(implementation)
    expected = one_by_one(model, FOREST)
    logprobs(model, FOREST)
    with _breaking(model, error), pytest.raises(type(error)):
        logprobs(model, FOREST)
    assert model.config._attn_implementation == implementation
    again = one_by_one(model, FOREST)
    assert all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))
    check(model, FOREST)
