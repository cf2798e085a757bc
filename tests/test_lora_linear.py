"""The fused LoRA layer is PEFT's: same outputs, gradients, parameters and files."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, PeftModel, get_peft_model
from tiny_models import relative_error, tiny

from luthier.models import lora_linear
from luthier.models.lora_linear import LoraLinear, fuse


class Block(torch.nn.Module):
    """Two linear layers, one with a bias."""

    def __init__(self, width: int = 6, out: int = 5) -> None:
        super().__init__()
        self.first = torch.nn.Linear(width, out)
        self.second = torch.nn.Linear(out, 4, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = torch.tanh(self.first(x))
        return self.second(hidden)


def adapted(block: torch.nn.Module, *, fused: bool, **options: Any) -> PeftModel:
    """LoRA with a B that is not zero; the same numbers whether fused or not."""
    config = LoraConfig(**{"r": 3, "lora_alpha": 5, "target_modules": ["first", "second"]} | options)
    torch.manual_seed(7)
    model = get_peft_model(copy.deepcopy(block), fuse(config) if fused else config)
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_" in name:
                p.copy_(torch.randn(p.shape))
    return model


def run(model: torch.nn.Module, x: torch.Tensor) -> list[torch.Tensor]:
    """Output, and gradients of the input and of all trained parameters."""
    x = x.clone().requires_grad_()
    y = model(x)
    trained = [p for p in model.parameters() if p.requires_grad]
    return [y.detach(), *torch.autograd.grad(y.square().sum(), [x, *trained])]


@settings(max_examples=25)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=3), st.integers(1, 7), st.sampled_from([1, 4, 32]))
def test_equals_peft_in_any_shape(shape: list[int], rank: int, alpha: int) -> None:
    torch.manual_seed(0)
    block, x = Block(), torch.randn(*shape, 6)
    models = [adapted(block, fused=fused, r=rank, lora_alpha=alpha) for fused in (True, False)]
    for got, expected in zip(*(run(model, x) for model in models), strict=True):
        assert relative_error(got, expected) < 1e-5


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 4, dtype=torch.float64).requires_grad_(False)
    x, a, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 3), (2, 3), (4, 2)))
    assert torch.autograd.gradcheck(lambda *v: lora_linear._Fused.apply(*v, 0.7, layer), (x, a, b))


def test_takes_the_fused_path_where_it_can_and_peft_s_where_it_must(monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    fused = lora_linear._Fused.apply
    monkeypatch.setattr(lora_linear._Fused, "apply", lambda *a: calls.append(1) or fused(*a))
    block, x = Block(), torch.randn(2, 6)

    def count(model: torch.nn.Module, x: torch.Tensor = x) -> int:
        calls.clear()
        model(x)
        return len(calls)

    model = adapted(block, fused=True)
    assert count(model) == 2
    with model.disable_adapter():
        assert count(model) == 0
    assert count(adapted(block, fused=True, use_dora=True)) == 0
    dropping = adapted(block, fused=True, lora_dropout=0.5)
    assert count(dropping.eval()) == 2
    assert count(dropping.train()) == 0
    assert count(adapted(block, fused=True).double().to(torch.bfloat16), x.bfloat16()) == 2
    model.add_adapter("other", LoraConfig(r=2, target_modules=["first", "second"]))
    model.base_model.set_adapter(["default", "other"])
    assert count(model) == 0
    model.base_model.set_adapter("other")
    assert count(model) == 2
    model.merge_adapter()
    assert count(model) == 0


def test_every_way_to_peft_is_right() -> None:
    block, x = Block(), torch.randn(2, 6)
    for options in (
        {"use_dora": True},
        {"use_rslora": True},
        {"lora_bias": True, "target_modules": ["first"]},
    ):
        got, expected = (adapted(block, fused=fused, **options)(x) for fused in (True, False))
        torch.testing.assert_close(got, expected)


def test_files_are_peft_s(tmp_path: Path) -> None:
    ids = torch.tensor([[3, 4, 5, 6]])
    config = LoraConfig(r=2, target_modules="all-linear", init_lora_weights=False)
    fused = get_peft_model(tiny("llama"), fuse(config)).eval()
    layers = [module for module in fused.modules() if isinstance(module, LoraLinear)]
    assert len(layers) == 14
    fused.save_pretrained(str(tmp_path))
    plain = PeftModel.from_pretrained(tiny("llama"), str(tmp_path)).eval()
    assert not any(isinstance(module, LoraLinear) for module in plain.modules())
    assert relative_error(fused(input_ids=ids).logits, plain(input_ids=ids).logits) < 1e-5
