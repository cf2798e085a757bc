"""Our RMS norm computes what the models' own modules compute, and takes the place of no other formula."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_models import SHARING, relative_error, tiny

from luthier.models.norm import RMSNorm, _Normed, fuse_norms

IDS = torch.tensor([[3, 9, 27, 81, 4, 5]])


def test_gradients_by_finite_differences() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, w: _Normed.apply(x, w, 1e-3), (x, weight))


@settings(max_examples=25)
@given(st.integers(1, 40), st.sampled_from([1e-6, 1.0, 1e4]), st.sampled_from([1e-6, 1e-2]))
def test_equals_torch_s(width: int, scale: float, eps: float) -> None:
    torch.manual_seed(width)
    weight = torch.nn.Parameter(torch.randn(width))
    x = (torch.randn(4, width) * scale).requires_grad_()
    upstream = torch.randn(4, width)
    results = []
    for norm in (RMSNorm(weight, eps), lambda x: torch.nn.functional.rms_norm(x, (width,), weight, eps)):
        y = norm(x)
        results.append([y, *torch.autograd.grad(y, [x, weight], upstream)])
    rms = (x.detach().square().mean(-1, keepdim=True) + eps).sqrt()
    # sums are exact to the size of their terms: with one number to norm the gradient of x cancels
    terms = (results[1][0], upstream * weight / rms, upstream * x / rms)
    for got, expected, term in zip(*results, terms, strict=True):
        assert float((got - expected).detach().norm()) < 1e-5 * float(term.detach().norm())


@pytest.mark.parametrize("kind", SHARING)
def test_models_compute_the_same_with_it(kind: str) -> None:
    model = tiny(kind)
    own = copy.deepcopy(model)
    replaced = fuse_norms(model)
    assert replaced == sum(isinstance(module, RMSNorm) for module in model.modules())
    if kind in ("llama", "qwen2", "qwen3", "mistral", "olmo2", "mixtral"):
        assert replaced >= 5
    if kind in ("gpt2", "gpt_neox", "gemma2", "gemma3_text"):  # layer norms; 1 + weight
        assert replaced == 0
    assert list(model.state_dict()) == list(own.state_dict())
    results = []
    for m in (model, own):
        m.requires_grad_(True)
        loss = m(input_ids=IDS, labels=IDS).loss
        embedded = m.get_input_embeddings().weight
        norms = [p for name, p in m.named_parameters() if "norm" in name]
        results.append([loss.detach(), *torch.autograd.grad(loss, [embedded, *norms])])
    for got, expected in zip(*results, strict=True):
        assert relative_error(got, expected) < 1e-5


def test_leaves_other_formulas_alone() -> None:
    class FooRMSNorm(torch.nn.Module):
        """As `RMSNorm`, but eps is added after the root."""

        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(8))
            self.eps = 1e-5

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.weight * x / (x.square().mean(-1, keepdim=True).sqrt() + self.eps)

    model = tiny("llama")
    model.model.norm = FooRMSNorm()
    model.model.layers[0].input_layernorm = FooRMSNorm()
    fuse_norms(model)
    assert type(model.model.norm) is FooRMSNorm
    assert type(model.model.layers[0].input_layernorm) is FooRMSNorm
