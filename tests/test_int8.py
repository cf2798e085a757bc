"""A base held in int8 or in 4 bits: products, what is replaced, and adapters trained on it."""

from __future__ import annotations

import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import PeftModel, get_peft_model_state_dict
from test_forest_logprobs import FOREST, gradients
from test_soft_prompts import peft_logprobs
from tiny_models import relative_error, tiny
from transformers.pytorch_utils import Conv1D

from luthier.errors import ModelError
from luthier.forest import logprobs
from luthier.forest.logprobs import FallbackWarning
from luthier.models import LoadedModel, attach_adapter, load_adapter, save_adapter
from luthier.models import int8 as int8_module
from luthier.models.held import hold_base, is_exact
from luthier.models.int4 import four_bit_linear
from luthier.models.int8 import Int8Linear
from luthier.recipe import Adapter


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(*shape: int, seed: int = 0) -> torch.Tensor:
    """Integers from -127 to 127 with both ends in every row: int8 holds them exactly."""
    numbers = torch.randint(-127, 128, shape, generator=torch.Generator().manual_seed(seed)).float()
    numbers[:, 0], numbers[:, 1] = 127.0, -127.0
    return numbers


# The layer -----------------------------------------------------------------------------------------


def test_what_int8_can_hold_is_exact() -> None:
    weight, x, dy = whole(6, 8), whole(5, 8, seed=1) / 4, whole(5, 6, seed=2) / 32
    layer = Int8Linear(weight / 16, random(6))
    assert torch.equal(layer.weight, weight / 16)
    assert torch.allclose(layer.frozen_product(x), x @ (weight / 16).t() + layer.bias, rtol=1e-6, atol=0)
    # every row's scale is 1/16, so that dy with the scales folded in stays on the grid
    assert torch.allclose(layer.frozen_gradient(dy), dy @ (weight / 16), rtol=1e-6, atol=0)


def test_a_product_by_hand() -> None:
    """W = [1, -0.5] is held as [127, -64] / 127 (63.5 rounds to even), x = [2, 1] as [127, 64] * 2 / 127."""
    layer = Int8Linear(torch.tensor([[1.0, -0.5]]), None)
    assert layer.quantised.tolist() == [[127, -64]]
    assert layer.scales.item() == pytest.approx(1 / 127)
    y = layer.frozen_product(torch.tensor([[2.0, 1.0]]))
    assert y.item() == pytest.approx((127 * 127 - 64 * 64) * (1 / 127) * (2 / 127))
    assert layer.frozen_gradient(torch.tensor([[3.0]]))[0].tolist() == pytest.approx([3.0, -3 * 64 / 127])


@settings(max_examples=40)
@given(
    tokens=st.integers(1, 9), inputs=st.integers(2, 12), outputs=st.integers(1, 12), seed=st.integers(0, 999)
)
def test_errors_stay_within_half_a_step(tokens: int, inputs: int, outputs: int, seed: int) -> None:
    weight, x = random(outputs, inputs, seed=seed), random(tokens, inputs, seed=seed + 1)
    dy = random(tokens, outputs, seed=seed + 2)
    layer = Int8Linear(weight, None)
    step_w = weight.abs().amax(1) / 127
    step_x = x.abs().amax(1, keepdim=True) / 127
    limit = step_x / 2 * layer.weight.abs().sum(1) + step_w / 2 * x.abs().sum(1, keepdim=True)
    assert ((layer.frozen_product(x) - x @ weight.t()).abs() <= limit * 1.001 + 1e-6).all()
    folded = dy * step_w
    step_y = folded.abs().amax(1, keepdim=True) / 127
    limit = step_y / 2 * (layer.quantised.float().abs().sum(0)) + dy.abs() @ (
        step_w[:, None] / 2 * torch.ones_like(weight)
    )
    assert ((layer.frozen_gradient(dy) - dy @ weight).abs() <= limit * 1.001 + 1e-6).all()


def test_forward_and_backward_are_these_two_products() -> None:
    layer, x = Int8Linear(random(6, 8), random(6)), random(2, 3, 8, seed=1).requires_grad_()
    y = layer(x)
    assert y.shape == (2, 3, 6)
    assert torch.equal(y.reshape(6, 6), layer.frozen_product(x.detach().reshape(6, 8)))
    upstream = random(2, 3, 6, seed=2).transpose(0, 1).contiguous().transpose(0, 1)
    y.backward(upstream)
    assert x.grad is not None
    assert torch.equal(x.grad.reshape(6, 8), layer.frozen_gradient(upstream.reshape(6, 6)))
    assert {n for n, p in layer.named_parameters() if p.requires_grad} == set()


def test_products_are_in_memory_of_their_own() -> None:
    """Who asks for one may add to it."""
    layer, x = Int8Linear(random(6, 8), None), random(3, 8)
    first = layer.frozen_product(x)
    kept = first.clone()
    first.add_(1.0)
    assert torch.equal(layer.frozen_product(x), kept)


def test_rows_quantised_once_are_known_by_their_content() -> None:
    layer, x = Int8Linear(random(6, 8), None), random(3, 8)
    before = layer.frozen_product(x)
    x.mul_(2.0)
    assert torch.allclose(layer.frozen_product(x), 2 * before)
    x[:, 0] = 100.0  # through a view of the same memory
    assert not torch.allclose(layer.frozen_product(x), 2 * before)
    for seed in range(20):  # freed memory is given to the next tensor of this size
        y = random(3, 8, seed=seed)
        assert torch.equal(layer.frozen_product(y), Int8Linear(random(6, 8), None).frozen_product(y.clone()))
        del y
    with torch.inference_mode():
        z = random(3, 8, seed=30)
        layer.frozen_product(z)
        z.mul_(3.0)
        assert torch.equal(layer.frozen_product(z), layer.frozen_product(z.clone()))


def test_layers_with_the_same_input_quantise_it_once(monkeypatch: pytest.MonkeyPatch) -> None:
    x, seen = random(3, 8).requires_grad_(), []
    original = int8_module._quantise
    monkeypatch.setattr(
        int8_module, "_quantise", lambda rows, into=None: (seen.append(1), original(rows, into))[1]
    )
    one, two = Int8Linear(random(6, 8), None), Int8Linear(random(4, 8, seed=1), None)
    seen.clear()
    one(x)
    two(x)
    assert len(seen) == 1


def test_rows_that_are_nothing_or_not_finite() -> None:
    layer = Int8Linear(random(6, 8), None)
    assert layer.frozen_product(torch.zeros(2, 8)).abs().max() == 0
    assert layer.frozen_gradient(torch.zeros(2, 6)).abs().max() == 0
    assert layer.frozen_product(torch.zeros(0, 8)).shape == (0, 6)
    for wrong in (float("nan"), float("inf")):
        x = random(3, 8)
        x[1, 2] = wrong
        y = layer.frozen_product(x)
        assert torch.isfinite(y[[0, 2]]).all()
        assert not torch.isfinite(y[1]).any()
    assert Int8Linear(torch.zeros(3, 8), None).frozen_product(random(2, 8)).abs().max() == 0


# In a model ----------------------------------------------------------------------------------------


def held(kind: str, how: Any = "int8", adapter: str = "lora") -> tuple[Any, LoadedModel]:
    from conftest import chatml_tokenizer

    tokenizer = chatml_tokenizer()
    model = tiny(kind, vocab_size=len(tokenizer)).requires_grad_(False)
    loaded = LoadedModel(model, tokenizer, "tiny")
    trained = attach_adapter(
        loaded,
        Adapter(kind=adapter, rank=4, virtual_tokens=4, base=how),
        seed=0,  # type: ignore[arg-type]
    )
    with torch.no_grad():
        for name, parameter in trained.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    return trained, loaded


@pytest.mark.parametrize("kind", ["llama", "gpt2", "gemma3_text"])
def test_what_is_replaced(kind: str) -> None:
    model, loaded = held(kind)
    assert not is_exact(model)
    held_layers = {n for n, m in model.named_modules() if isinstance(m, Int8Linear)}
    assert held_layers
    assert all(n.endswith("base_layer") for n in held_layers)
    assert not isinstance(loaded.model.get_output_embeddings(), Int8Linear)
    left = [n for n, m in loaded.model.named_modules() if type(m) in (torch.nn.Linear, Conv1D)]
    assert all("lora_" in n or n == "lm_head" for n in left)
    assert {n.split(".")[-3] for n, p in model.named_parameters() if p.requires_grad} == {"lora_A", "lora_B"}


def test_exact_is_left_alone() -> None:
    model = tiny("llama").requires_grad_(False)
    before = [type(m) for m in model.modules()]
    assert hold_base(model, "exact") == 0
    assert [type(m) for m in model.modules()] == before
    assert is_exact(model)


@pytest.mark.parametrize("adapter", ["lora", "rslora", "dora", "prefix", "prompt"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_values_and_gradients_are_close_to_the_exact_ones(kind: str, adapter: str) -> None:
    if kind == "gpt2" and adapter == "prefix":
        pytest.skip("PEFT reads the tiny model's num_key_value_heads, which GPT-2 does not have")
    (exact, _), (model, _) = (held(kind, how, adapter) for how in ("exact", "int8"))
    with warnings.catch_warnings():
        warnings.simplefilter("error", FallbackWarning)  # sharing is still recognised as exact
        got, wanted = (logprobs(m, FOREST) for m in (model, exact))
    difference = torch.cat(got) - torch.cat(wanted)
    assert 0 < difference.abs().mean() < 0.2  # of values around 6; the tiny models' weights are large
    slopes = [
        torch.cat([g.flatten() for g in gradients(m, v).values()]) for m, v in ((model, got), (exact, wanted))
    ]
    assert torch.cosine_similarity(*slopes, dim=0) > 0.9


def test_an_adapter_trained_on_int8_loads_on_the_exact_base(tmp_path: Path) -> None:
    model, loaded = held("llama")
    exact, _ = held("llama", "exact")
    assert get_peft_model_state_dict(model).keys() == get_peft_model_state_dict(exact).keys()
    save_adapter(model, loaded.tokenizer, tmp_path / "adapter", base_name="b")
    fresh = tiny("llama", vocab_size=len(loaded.tokenizer)).requires_grad_(False)
    back = load_adapter(replace(loaded, model=fresh), tmp_path / "adapter")
    assert is_exact(back)
    with torch.no_grad():
        expected = torch.cat(logprobs(exact, FOREST))
        assert relative_error(torch.cat(logprobs(back, FOREST)), expected) < 1e-5
        plain = PeftModel.from_pretrained(
            tiny("llama", vocab_size=len(loaded.tokenizer)), str(tmp_path / "adapter")
        ).eval()
        own = torch.cat([peft_logprobs(plain, row) for row in FOREST])
        assert relative_error(own, expected) < 1e-5


def test_int8_is_refused_off_the_cpu() -> None:
    with pytest.raises(ModelError, match="in int8 is for CPUs"):
        hold_base(tiny("llama").to("meta"), "int8")


# 4 bits --------------------------------------------------------------------------------------------


def test_four_bits_without_bitsandbytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(ModelError, match=r"needs bitsandbytes.*\n?.*pip install 'luthier\[int4\]'"):
        hold_base(tiny("llama").requires_grad_(False), "int4")


def bitsandbytes_serves() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed", exc_type=ImportError)
    try:
        four_bit_linear(random(8, 64), None)
    except ModelError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize("adapter", ["lora", "dora", "prefix", "prompt"])
def test_adapters_train_on_four_bits(adapter: str, tmp_path: Path) -> None:
    bitsandbytes_serves()
    sizes = {"hidden_size": 64, "intermediate_size": 128}
    _, loaded = held("llama", "exact")
    model = tiny("llama", vocab_size=len(loaded.tokenizer), **sizes).requires_grad_(False)
    loaded = replace(loaded, model=model)
    asked = Adapter(kind=adapter, rank=4, base="int4")  # type: ignore[arg-type]
    trained = attach_adapter(loaded, asked, seed=0)
    assert not is_exact(trained)
    slopes = gradients(trained, logprobs(trained, FOREST))
    assert all(float(g.abs().max()) > 0 for n, g in slopes.items() if "lora_A" not in n)
    save_adapter(trained, loaded.tokenizer, tmp_path / "adapter", base_name="b")
    fresh = replace(
        loaded, model=tiny("llama", vocab_size=len(loaded.tokenizer), **sizes).requires_grad_(False)
    )
    assert is_exact(load_adapter(fresh, tmp_path / "adapter"))


def test_a_layer_in_four_bits() -> None:
    bitsandbytes_serves()
    weight, x = random(32, 64) * 0.05, random(5, 64, seed=1).requires_grad_()
    layer = four_bit_linear(weight, random(32)).eval()
    with torch.no_grad():
        held_weight = (layer(torch.eye(64)) - random(32)).t()
    assert 0 < relative_error(held_weight, weight) < 0.15
    for rows in (x, x[:1]):
        y = layer(rows + 0)
        x.grad = None
        y.backward(upstream := random(len(rows), 32, seed=2))
        assert x.grad is not None
        assert relative_error(y, rows @ held_weight.t() + random(32)) < 1e-5
        assert relative_error(x.grad[: len(rows)], upstream @ held_weight) < 1e-5
    assert not any(p.requires_grad for p in layer.parameters())
    across = four_bit_linear(weight.t().contiguous(), None, fan_in_fan_out=True)
    assert torch.equal(across(x), four_bit_linear(weight, None)(x))
